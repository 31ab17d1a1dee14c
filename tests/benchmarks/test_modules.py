"""Every benchmark can be imported and describes itself, except the peers' own servers."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "benchmarks"
# These run in the peers' environment, which is not installed for tests.
ELSEWHERE = {"bentoml_app", "litserve_app", "plain", "pytriton_app"}
MODULES = sorted(
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
    for path in ROOT.rglob("*.py")
    if path.stem not in ELSEWHERE and path.stem != "__init__"
)


@pytest.mark.parametrize("name", MODULES)
def test_a_benchmark_can_be_imported_and_has_a_docstring(name: str) -> None:
    assert importlib.import_module(name).__doc__
