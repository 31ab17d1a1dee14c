"""The benchmark of Ray Serve runs, and the docs have a place for its figures; these are not kept."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.harness.docs import END

ROOT = Path(__file__).parents[2]


@pytest.mark.deploy
def test_both_forms_are_measured_against_one_process(bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "ray.json"
    # In a process of its own: Ray can be started only once per process.
    command = [sys.executable, "-m", "benchmarks.ray", "--seconds", "2"]
    command += ["--bundle", str(bundle), "--json", str(file)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr
    base, *others = json.loads(file.read_text())["rows"]
    assert base["layout"] == "one process"
    assert {row["layout"].split(",")[0] for row in others} == {"replicas", "stages"}
    for row in (base, *others):
        assert row["failed"] == 0
        assert row["p50_ms"] > 0
        assert row["cpu_ms"] > 0
    # With one replica of each stage, clients may time out before it is replaced.
    replicated = [row for row in others if row["layout"].startswith("stages")][1:]
    assert all(row["killed_failed"] == 0 for row in replicated)
    assert "answers per core" in done.stdout


def test_the_docs_have_a_place_for_the_figures() -> None:
    text = (ROOT / "docs" / "ray.md").read_text("utf-8")
    assert END in text.split("<!-- benchmark: ray -->\n")[1]
