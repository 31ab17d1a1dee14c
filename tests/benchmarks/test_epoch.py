"""The benchmark of training runs, and the page shows its results."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench", ROOT / "benchmarks" / "epoch.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_benchmark_times_all_loops_and_every_part_of_ours(
    benchmark: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = "--device cpu --network resnet10 --width 4 --side 16 --batch 4 --steps 2 --repeats 1"
    benchmark.main([*options.split(), "--workers", "1", "--json", str(tmp_path / "result.json")])
    result = json.loads((tmp_path / "result.json").read_text())
    assert list(result["ms_a_batch"]) == ["plain", "ours", "cached", "filling"]
    parts = ["data", "teacher", "student forward", "student backward", "optimiser"]
    assert sorted(result["split_ms"]) == sorted(parts)
    assert all(ms > 0 for ms in (*result["ms_a_batch"].values(), *result["split_ms"].values()))
    printed = capsys.readouterr().out
    assert result["machine"] in printed
    assert "| ours, cached views: from the second student on | " in printed
    assert "| ours, cached views: the first student, which fills them | " in printed


def test_the_page_shows_what_the_benchmark_wrote(benchmark: ModuleType) -> None:
    text = (ROOT / "docs" / "guide" / "training.md").read_text("utf-8")
    between = text.split(benchmark.BEGIN)[1].split(benchmark.END)[0]
    assert between == benchmark.section(benchmark.written_results())
