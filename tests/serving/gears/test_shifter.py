"""What the controller is told: the work of one model, besides that of others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from serving.gears import shifter as module
from serving.gears.controller import Observation, State
from serving.gears.latencies import Latencies
from serving.gears.shifter import GearShifter
from serving.inference.engine import Engine
from serving.models.gears import GearReader
from serving.models.registry import LoadedModel, ModelRegistry, open_engine
from serving.scheduling.options import Load
from serving.telemetry.metrics import Metrics
from tests.serving.tiny_bundle import write_tiny_bundle
from tests.serving.tiny_gears import write_tiny_gears

IDLE = Load(0, 0, 0.0, 0.0, 0.0, 1.0)


class FakeDispatcher:
    """Reports the loads that a test sets."""

    def __init__(self) -> None:
        self.loads: dict[str, Load] = {}

    def load(self, engine: Engine) -> Load | None:
        return self.loads.get(engine.manifest.name)


@pytest.fixture
def models(tmp_path: Path) -> ModelRegistry:
    """The models `ant` and `bee`, with gears."""
    registry = ModelRegistry()
    for name in ("ant", "bee"):
        path = write_tiny_gears(write_tiny_bundle(tmp_path / name, name=name))
        model = open_engine(path, threads=1, provider="cpu")
        box = GearReader(0.0).read(path, model.engine.manifest, model.policy, model.calibration)
        registry.put(replace(model, gears=box, exit_seconds=(1e-3, 2e-3, 3e-3)))
    return registry


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Observation]:
    """What the controller was given."""
    found: list[Observation] = []

    def step(state: State, observation: Observation, *_: object) -> State:
        found.append(observation)
        return replace(state, at=observation.now)

    monkeypatch.setattr(module, "step", step)
    return found


def shifter_of(models: ModelRegistry, cpu: list[float]) -> tuple[GearShifter, FakeDispatcher]:
    dispatcher = FakeDispatcher()
    dispatcher.loads = {"ant": IDLE, "bee": IDLE}
    found = GearShifter(
        models,
        dispatcher,  # type: ignore[arg-type]
        Metrics(),
        target_s=0.1,
        workers=2,
        cpu_s=lambda: cpu[0],
    )
    found.update(10.0)
    return found, dispatcher


def test_a_model_has_the_workers_that_others_leave_and_its_share_of_the_event_loop(
    models: ModelRegistry, seen: list[Observation]
) -> None:
    cpu = [5.0]
    shifter, dispatcher = shifter_of(models, cpu)
    dispatcher.loads = {
        "ant": Load(30, 20, 0.4, 0.1, 0.05, 1.5),
        "bee": Load(20, 20, 0.3, 0.0, 0.05, 1.5),
    }
    cpu[0] = 6.0  # 0.8 seconds of workers, and 0.2 of the event loop
    shifter.update(11.0)
    ant, bee = seen[-2:]
    assert (ant.arrivals, ant.finished, ant.wait_s, ant.slowdown) == (30, 20, 0.05, 1.5)
    assert ant.work_s == pytest.approx(0.5)
    assert ant.workers == pytest.approx(1.7)
    assert bee.work_s == pytest.approx(0.4)
    assert bee.workers == pytest.approx(1.6)


def test_refused_requests_are_arrivals(models: ModelRegistry, seen: list[Observation]) -> None:
    shifter, dispatcher = shifter_of(models, [0.0])
    for _ in range(3):
        shifter._metrics.failed("ant", "over_capacity")
    shifter._metrics.failed("ant", "invalid_image")
    dispatcher.loads["ant"] = replace(IDLE, admitted=4)
    shifter.update(10.1)
    assert seen[-2].arrivals == 7
    shifter.update(10.2)
    assert seen[-2].arrivals == 0


def test_a_model_that_is_replaced_begins_again_and_one_that_is_gone_is_forgotten(
    models: ModelRegistry, seen: list[Observation]
) -> None:
    shifter, _ = shifter_of(models, [0.0])
    ant: LoadedModel = models.get("ant")
    assert ant.gears is not None
    models.put(replace(ant, gears=replace(ant.gears)))
    assert shifter.status(models.get("ant")) is None
    models.remove("bee")
    shifter.update(10.1)
    assert shifter.status(models.get("ant")) is not None
    rendered = shifter._metrics.render().decode()
    assert 'offramp_gear{model="ant"} 0.0' in rendered
    assert 'offramp_gear{model="bee"}' not in rendered


def test_the_p99_is_of_requests_that_arrived_in_this_gear_lately() -> None:
    found = Latencies()
    for number in range(200):
        found.add(10.0 + number / 100, number / 1000)
    assert found.p99(12.0, 0.0) == pytest.approx(0.197, abs=0.001)
    assert found.p99(12.0, 11.5) is None  # too few
    assert found.p99(30.0, 0.0) is None  # too long ago
