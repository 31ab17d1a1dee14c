"""Defaults that follow from the machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from serving import settings


@pytest.mark.parametrize(
    ("limit", "cores"),
    [
        ("200000 100000", 2),
        ("250000 100000", 2),
        ("50000 100000", 1),
        ("max 100000", 8),
        ("1600000 100000", 8),
        (None, 8),
    ],
)
def test_as_many_workers_as_cores_that_the_containers_cpu_time_fills(
    limit: str | None, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(settings, "CPU_LIMIT", tmp_path / "cpu.max")
    if limit is not None:
        settings.CPU_LIMIT.write_text(limit + "\n")
    assert settings.Settings().workers == cores
