"""The simulation, given what was measured before, against the committed runs with gears."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from benchmarks.gears.check import CORE_SHARE, differences, with_gears
from benchmarks.gears.host import as_json, from_json
from benchmarks.gears.runs import Scenario
from benchmarks.gears.simulation import Host
from benchmarks.harness.docs import DOCS

RESULT: dict[str, Any] = json.loads((DOCS.parent / "benchmarks" / "gears.json").read_text("utf-8"))
HOST = from_json(RESULT["host"])
RUNS = [run for run in RESULT["runs"] if run["mode"] == "gears"]


def simulated(run: dict[str, Any], host: Host) -> dict[str, Any]:
    parts = tuple((seconds, rate) for seconds, rate in run["parts"])
    scenario = Scenario(run["scenario"], run["factor"], parts)
    limits = RESULT["max_queue_ms"], RESULT["target_ms"]
    return with_gears(host, RESULT["gears"], scenario, run["core_share"], *limits)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run['scenario']}-{run['factor']:g}")
def test_the_simulation_is_within_its_tolerances_of_every_measured_run(run: dict[str, Any]) -> None:
    assert differences(run, simulated(run, HOST), RESULT["target_ms"]) == []


def test_a_simulation_that_leaves_out_half_of_the_work_is_not() -> None:
    half = replace(
        HOST,
        decode_s=HOST.decode_s / 2,
        request_s=HOST.request_s / 2,
        stage_factor=HOST.stage_factor / 2,
    )
    assert all("cpu_ms" in differences(run, simulated(run, half), 100.0) for run in RUNS)


def test_latency_and_refusals_count_only_where_the_server_had_its_core() -> None:
    high = {"refused": 0.1, "p50": 100.0, "p99": 200.0}
    run = {"high": high, "cpu_ms": 2.0, "core_share": CORE_SHARE}
    far = {"refused": 0.3, "p50": 140.0, "p99": 265.0, "cpu_ms": 2.1}
    assert differences(run, {**high, "cpu_ms": 1.9}, 100.0) == []
    assert differences(run, far, 100.0) == ["refused", "p50"]
    assert differences(run, far, 150.0) == ["refused"]
    assert differences({**run, "core_share": 0.5}, far, 100.0) == []
    assert differences({**run, "core_share": 0.5}, {**far, "cpu_ms": 1.0}, 100.0) == ["cpu_ms"]


def test_what_was_simulated_before_the_costs_were_measured_is_found_out() -> None:
    """Four runs of a ResNet-18, with 7.0, 0.4, 56.7 and 53.3 % refused in the simulation."""
    measured = [(0.345, 279, 354), (0.377, 241, 306), (0.571, 304, 378), (0.655, 245, 285)]
    before = [(0.070, 303, 328), (0.004, 222, 269), (0.567, 341, 361), (0.533, 332, 357)]
    found = []
    for real, guess in zip(measured, before, strict=True):
        high, wrong = (
            dict(zip(("refused", "p50", "p99"), row, strict=True)) for row in (real, guess)
        )
        run = {"high": high, "cpu_ms": 1.0, "core_share": 1.0}
        found.append(differences(run, {**wrong, "cpu_ms": 1.0}, 100.0))
    assert found == [["refused"], ["refused"], [], ["refused", "p50"]]


def test_a_host_is_read_as_it_was_written() -> None:
    assert as_json(from_json(as_json(HOST))) == as_json(HOST)
