"""A dispatcher on the tiny bundle, with a stage that tests can hold back."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exports.bundle.policy import Policy
from exports.bundle.reader import Bundle
from serving.inference.engine import Engine, Prediction
from serving.scheduling.costs import CostTable
from serving.scheduling.dispatcher import Dispatcher
from serving.scheduling.options import BatchResult, RequestOptions
from serving.telemetry.metrics import Metrics
from tests.serving.tiny_bundle import EXITS

EARLY = Policy(thresholds=(0.6, 0.5), max_exit=EXITS)
FIRST = EARLY.override(threshold=0)
FULL = EARLY.override(threshold=2)
ENSEMBLE = EARLY.override(mode="ensemble")
POLICIES = (EARLY, FIRST, FULL, ENSEMBLE, EARLY.override(mode="exit", max_exit=2))
Images = NDArray[np.uint8]
# Closer to its threshold than this, onnxruntime's last bit may send a sample either way.
MEASURE_TOLERANCE = 1e-5


class Stage:
    """Replaces an engine's `run_stage`: records the batches, and can hold them back.

    While `open` is not set, batches of stage `hold_at` and deeper wait, and release `held` once each.
    """

    def __init__(self, engine: Engine) -> None:
        self.batches: list[tuple[int, list[int]]] = []
        self.open = threading.Event()
        self.open.set()
        self.held = threading.Semaphore(0)
        self.hold_at = 1
        self.pause = 0.0
        self._run = engine.run_stage
        self._lock = threading.Lock()
        engine.run_stage = self.run  # type: ignore[method-assign]

    def run(self, stage: int, inputs: Any) -> Any:
        with self._lock:
            # The first pixel of an image is its number, see `numbered`.
            numbers = [int(x) for x in inputs[:, 0, 0, 0]] if stage == 1 else []
            self.batches.append((stage, numbers or [len(inputs)]))
        if stage >= self.hold_at and not self.open.is_set():
            self.held.release()
            assert self.open.wait(10)
        time.sleep(self.pause)
        return self._run(stage, inputs)

    def ran(self, stage: int) -> list[list[int]]:
        """The batches of `stage`: image numbers for stage 1, else the size."""
        return [numbers for ran, numbers in self.batches if ran == stage]

    async def wait_held(self) -> None:
        """Wait until one more batch is held back."""
        assert await asyncio.to_thread(self.held.acquire, True, 10)


class Punctuality:
    """Checks that nothing is late, except for as long as the event loop itself stalls on a busy machine."""

    async def __aenter__(self) -> Punctuality:
        self.longest_stall = 0.0
        self._last_tick = time.perf_counter()
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()

    async def _watch(self) -> None:
        while True:
            self._last_tick = time.perf_counter()
            await asyncio.sleep(0.001)
            self.longest_stall = max(self.longest_stall, self._stalled(time.perf_counter()))

    def _stalled(self, now: float) -> float:
        return now - self._last_tick - 0.001

    def check(self, deadline: float) -> None:
        """Assert that `deadline` has not passed by more than 5 ms and twice the longest stall."""
        now = time.perf_counter()
        # `_watch` has not measured a stall that has just ended.
        stall = max(self.longest_stall, self._stalled(now))
        assert now - deadline < 0.005 + 2 * stall, now - deadline


def numbered(count: int) -> Images:
    """Dark images of the bundle's size, whose first value is their number."""
    images = np.zeros((count, 8, 8, 3), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(count)
    return images


@dataclass(frozen=True)
class Setup:
    """A dispatcher with one open engine, whose stages are controlled by `stage`."""

    dispatcher: Dispatcher
    engine: Engine
    stage: Stage
    metrics: Metrics

    async def classify(self, images: Images, policy: Policy, **options: Any) -> BatchResult:
        """Classify `images`; `options` are those of RequestOptions."""
        return await self.dispatcher.classify_pixels(
            self.engine, images, RequestOptions(policy, **options)
        )

    async def classify_files(
        self, files: list[bytes], policy: Policy, **options: Any
    ) -> BatchResult:
        return await self.dispatcher.classify(self.engine, files, RequestOptions(policy, **options))

    def start(self, images: Images, policy: Policy, **options: Any) -> asyncio.Task[BatchResult]:
        return asyncio.create_task(self.classify(images, policy, **options))

    def start_files(
        self, files: list[bytes], policy: Policy, **options: Any
    ) -> asyncio.Task[BatchResult]:
        return asyncio.create_task(self.classify_files(files, policy, **options))


@contextmanager
def dispatching(
    bundle: Bundle, *, workers: int = 1, costs: CostTable | None = None, **limits: float
) -> Iterator[Setup]:
    """A running dispatcher; `limits` replace its generous ones."""
    metrics = Metrics()
    engine = Engine(bundle, on_stage=metrics.stage_observer("tiny"))
    options: Any = {"max_queue_ms": 60_000, "max_queue_bytes": 1 << 30, **limits}
    dispatcher = Dispatcher(workers=workers, max_pixels=10_000, metrics=metrics, **options)
    dispatcher._scheduler.open(engine, costs or even_costs(0.001, best=8))
    try:
        yield Setup(dispatcher, engine, Stage(engine), metrics)
    finally:
        dispatcher.close()


def even_costs(seconds: float, best: int = 1) -> CostTable:
    """Costs where every stage takes `seconds`, and a batch up to `best` hardly more than one image."""
    return CostTable([{1: seconds, best: seconds * (1 if best == 1 else 1.1)}] * EXITS)


def run_scenario(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 30))


def same_prediction(found: Prediction, expected: Prediction, policy: Policy) -> bool:
    """Whether two predictions agree, or differ only because a measure is next to its threshold."""
    if found.exit != expected.exit:
        shallow = min(found, expected, key=lambda prediction: prediction.exit)
        threshold = policy.thresholds[shallow.exit - 1]
        return abs(shallow.measured - threshold) < MEASURE_TOLERANCE
    return (
        found.index == expected.index
        and found.reason == expected.reason
        and bool(np.allclose(found.probabilities, expected.probabilities, atol=1e-5))
    )
