"""The benchmark of the latency target runs on a tiny network; the figures are discarded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.gears import __main__ as gears
from benchmarks.gears.core import Core
from benchmarks.gears.host import as_json, from_json
from benchmarks.gears.runs import MODES, figures, scenarios
from benchmarks.gears.section import section
from tests.serving.tiny_bundle import write_tiny_bundle


def test_load_is_run_against_a_server_and_simulated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the scenarios, against one of the servers."""
    monkeypatch.setattr(gears, "MODES", MODES[:1])
    # What else runs on this machine must not make the simulation shift.
    monkeypatch.setattr(Core, "share", lambda *_: 1.0)
    monkeypatch.setattr(gears, "scenarios", lambda *arguments: scenarios(*arguments)[1:])
    bundle = write_tiny_bundle(tmp_path / "tiny")
    file, picture = tmp_path / "gears.json", tmp_path / "gears.png"
    options = "--shorter 0.05 --factors 0.5 --points 100 --target-ms 1000 --max-queue-ms 2000"
    written = ["--json", str(file), "--picture", str(picture)]
    gears.main([*options.split(), "--bundle", str(bundle), *written])
    result = json.loads(file.read_text())
    (run,) = result["runs"]
    assert (run["scenario"], run["mode"]) == ("spike", "gears")
    assert run["high"]["offered"] > 0
    assert run["high"]["failed"] == 0
    assert run["high"]["accuracy"] is None
    assert run["simulated"]["gears"] == [[0.0, 0]]
    assert [row["load"] for row in result["constant"]] == [0.5, 0.8, 1.5]
    assert run["cpu_ms"] > 0
    assert as_json(from_json(result["host"])) == result["host"]
    assert all(0 < result["host"][name] < 0.1 for name in ("decode_s", "request_s"))
    assert picture.stat().st_size > 1000
    assert section(result) in capsys.readouterr().out


def test_figures_are_of_the_requests_that_were_due_in_the_span() -> None:
    report = {
        "due": [0.5, 1.1, 1.2, 1.3, 1.9, 2.5],
        "status": [200, 200, 429, 200, 0, 200],
        "latency": [9.0, 20.0, 1.0, 40.0, 0.0, 9.0],
        "image": [0, 1, 0, 1, 0, 1],
        "index": [7, 8, -1, 7, -1, 8],
    }
    found = figures(report, [7, 8], 1.0, 2.0)
    assert (found["offered"], found["refused"], found["failed"]) == (4, 0.25, 1)
    assert found["p99"] == pytest.approx(39.8)
    assert found["accuracy"] == 50.0
    assert figures(report, None, 3.0, 4.0)["p99"] is None
