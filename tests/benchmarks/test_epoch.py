"""The benchmark of training runs, and the page shows its results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.epoch import __main__ as epoch
from benchmarks.harness.docs import DOCS, END


def test_the_benchmark_times_all_loops_and_every_part_of_ours(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = "--device cpu --network resnet10 --width 4 --side 16 --batch 4 --steps 2 --repeats 1"
    epoch.main([*options.split(), "--workers", "1", "--json", str(tmp_path / "result.json")])
    result = json.loads((tmp_path / "result.json").read_text())
    assert list(result["ms_a_batch"]) == ["plain", "ours", "cached", "filling"]
    parts = ["data", "teacher", "student forward", "student backward", "optimiser"]
    assert sorted(result["split_ms"]) == sorted(parts)
    assert all(ms > 0 for ms in (*result["ms_a_batch"].values(), *result["split_ms"].values()))
    printed = capsys.readouterr().out
    assert result["machine"] in printed
    assert "| ours, cached views: from the second student on | " in printed
    assert "| ours, cached views: the first student, which fills them | " in printed


def test_the_page_shows_what_the_benchmark_wrote() -> None:
    text = (DOCS / "guide" / "training.md").read_text("utf-8")
    between = text.split(f"<!-- benchmark: {epoch.NAME} -->\n")[1].split(END)[0]
    assert between == epoch.section(epoch.written_results())
