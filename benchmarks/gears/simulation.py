"""A simulation of the server's queue under a trace of arrivals, by discrete events.

It has the scheduler's essentials (docs/design/scheduling.md): a queue per stage, the deepest first, batches
of the best size without waiting for one to fill, few files at once if decoding is slow, and refusal by the
predicted wait. What work costs is a measured Host (`benchmarks/gears/host.py`). The controller is the
server's own, called at the server's interval.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from serving.gears.controller import INTERVAL_S, Observation, State, step
from serving.gears.latencies import Latencies
from serving.scheduling.costs import LEARNING_RATE as DECODE_LEARNING_RATE
from serving.scheduling.costs import MAX_DECODE_BATCH_S, CostTable
from serving.scheduling.queues import LEARNING_RATE, MAX_SLOWDOWN, MIN_SLOWDOWN

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Host:
    """What work costs, in seconds: stages `stage_factor` times `costs`; of every request `decode_s` of a
    worker, `request_s` of the process around it, and `refuse_s` if it is refused. `workers` threads have a
    core each; what the process itself takes, it takes from them. `core_share` of the cores is the server's:
    other processes have the rest."""

    costs: CostTable
    stages: int
    workers: int = 1
    decode_s: float = 1e-4
    request_s: float = 3e-4
    refuse_s: float = 7e-5
    stage_factor: float = 1.0
    core_share: float = 1.0


@dataclass(frozen=True)
class Rules:
    """`shares` are the exit shares of every gear, the dearest first. A `target_s` of None keeps gear 0."""

    shares: Sequence[Sequence[float]]
    max_wait_s: float = 0.5
    target_s: float | None = None


@dataclass
class Outcome:
    """What happened, by request in order of arrival: `arrived` seconds, `latency` in seconds, infinite if
    refused, `gear` and `exit` (from 1). `gears` are the shifts as (second, gear), the first at 0. `cpu_s` is
    what it all took of the cores."""

    arrived: Floats
    latency: Floats
    gear: NDArray[np.int64]
    exit: NDArray[np.int64]
    gears: list[tuple[float, int]] = field(default_factory=lambda: [(0.0, 0)])
    cpu_s: float = 0.0

    @property
    def refused(self) -> NDArray[np.bool_]:
        """Which requests were refused."""
        return np.isinf(self.latency)


def gear_costs(costs: CostTable, shares: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Seconds of stages for an image in each gear."""
    stages = range(1, len(shares[0]) + 1)
    seconds = np.cumsum([costs.seconds_per_image(stage) for stage in stages])
    return tuple(float(np.dot(row, seconds)) for row in shares)


def simulate(
    host: Host,
    rules: Rules,
    arrivals: Floats,
    *,
    seed: int = 0,
    believed: Sequence[float] | None = None,
) -> Outcome:
    """Serve requests of one image that arrive at `arrivals`, ascending seconds.

    `believed` are the costs of the gears that the controller is given in place of the true ones.
    """
    server = _Server(host, rules, arrivals, seed)
    costs = believed or gear_costs(host.costs, rules.shares)
    state, tick = State(at=0.0), INTERVAL_S
    times, arriving = [*arrivals.tolist(), math.inf], 0
    while arriving < len(arrivals) or server.busy:
        now = times[arriving]
        if server.running and server.running[0][0] < now:
            now = server.running[0][0]
        if rules.target_s is not None and tick <= now:
            seen = server.observe(tick, state.shifted_at)
            state = step(state, seen, costs, rules.target_s)
            server.shift(state.gear, tick)
            tick += INTERVAL_S
            continue
        if server.running and server.running[0][0] <= now:
            server.complete(now)
        else:
            server.arrive(arriving, now)
            arriving += 1
    return server.outcome


class _Server:
    """Queues and workers. `busy` is whether an accepted image is not finished."""

    def __init__(self, host: Host, rules: Rules, arrivals: Floats, seed: int) -> None:
        count = len(arrivals)
        self.outcome = Outcome(
            arrivals, np.full(count, np.inf), np.zeros(count, np.int64), np.zeros(count, np.int64)
        )
        self.running: list[tuple[float, int, int, float, list[int]]] = []
        self._host, self._rules = host, rules
        # An image that leaves early in one gear leaves no later in a cheaper one.
        self._hardness = np.random.default_rng(seed).random(count).tolist()
        self._leaving = [np.cumsum(shares).tolist() for shares in rules.shares]
        self._remaining = [self._ahead(shares) for shares in rules.shares]
        self._queues: list[deque[int]] = [deque() for _ in range(host.stages + 1)]
        self._waiting = 0
        self._gear = 0
        self._backlog = 0.0
        self._owed = 0.0
        self._batches = 0
        self._measured = self._predicted = host.costs.seconds(1, 1)
        # The server learns what decoding takes, and what each waiting image was expected to take.
        self._decode_s = host.decode_s
        self._expected = [0.0] * count
        self._latencies = Latencies()
        self._arrivals, self._finished, self._work = 0, 0, 0.0

    @property
    def busy(self) -> bool:
        return bool(self.running) or self._waiting > 0

    @property
    def wait_s(self) -> float:
        """The predicted wait of a new image."""
        slowdown = min(max(self._measured / self._predicted, MIN_SLOWDOWN), MAX_SLOWDOWN)
        return slowdown * self._backlog / self._host.workers

    def arrive(self, number: int, now: float) -> None:
        host, outcome = self._host, self.outcome
        self._arrivals += 1
        outcome.gear[number] = self._gear
        if self.wait_s > self._rules.max_wait_s:
            self._interrupt(host.refuse_s)
            return
        self._interrupt(host.request_s)
        place = bisect_right(self._leaving[self._gear], self._hardness[number])
        outcome.exit[number] = min(place + 1, host.stages)
        outcome.latency[number] = 0.0
        self._expect(number, self._decode_s + self._remaining[self._gear][1])
        self._queues[0].append(number)
        self._waiting += 1
        self._start(now)

    def complete(self, now: float) -> None:
        _, _, stage, seconds, batch = heapq.heappop(self.running)
        self._work += seconds
        self.outcome.cpu_s += seconds * self._host.core_share
        if stage == 0:
            weight = 1 - (1 - DECODE_LEARNING_RATE) ** len(batch)
            self._decode_s += weight * (seconds / len(batch) - self._decode_s)
        else:
            predicted = self._host.costs.seconds(stage, len(batch))
            self._measured += LEARNING_RATE * (seconds - self._measured)
            self._predicted += LEARNING_RATE * (predicted - self._predicted)
        for number in batch:
            if 0 < stage == self.outcome.exit[number]:
                self.outcome.latency[number] = now - self.outcome.arrived[number]
                self._latencies.add(now, self.outcome.latency[number])
                self._finished += 1
                self._expect(number, 0.0)
                continue
            self._expect(number, self._remaining[self.outcome.gear[number]][stage + 1])
            self._queues[stage + 1].append(number)
            self._waiting += 1
        if not self.busy:
            self._backlog = 0.0
        self._start(now)

    def observe(self, now: float, since: float) -> Observation:
        seen = Observation(
            now=now,
            arrivals=self._arrivals,
            finished=self._finished,
            work_s=self._work,
            workers=self._host.workers,
            wait_s=self.wait_s,
            p99_s=self._latencies.p99(now, since),
        )
        self._arrivals, self._finished, self._work = 0, 0, 0.0
        return seen

    def shift(self, gear: int, now: float) -> None:
        if gear != self._gear:
            self.outcome.gears.append((now, gear))
        self._gear = gear

    def _start(self, now: float) -> None:
        """Give every free worker a batch of the deepest queue."""
        host = self._host
        while len(self.running) < host.workers and self._waiting:
            stage = max(place for place, queue in enumerate(self._queues) if queue)
            queue = self._queues[stage]
            free = host.workers - len(self.running)
            size = min(host.costs.best_batch(max(stage, 1)), -(-len(queue) // free))
            if stage == 0:
                size = min(size, max(1, int(MAX_DECODE_BATCH_S / max(self._decode_s, 1e-9))))
            self._waiting -= size
            batch = [queue.popleft() for _ in range(size)]
            seconds = (self._seconds(stage, size) + self._owed) / host.core_share
            self._owed = 0.0
            self._batches += 1
            heapq.heappush(self.running, (now + seconds, self._batches, stage, seconds, batch))

    def _interrupt(self, seconds: float) -> None:
        """The process takes `seconds` of the core of the batch that ends first, or before the next one."""
        if not self.running:
            self._owed += seconds
            return
        longer = seconds / self._host.core_share
        end, number, stage, lasts, batch = self.running[0]
        heapq.heapreplace(self.running, (end + longer, number, stage, lasts + longer, batch))

    def _seconds(self, stage: int, size: int) -> float:
        host = self._host
        if stage == 0:
            return host.decode_s * size
        return host.stage_factor * host.costs.seconds(stage, size)

    def _expect(self, number: int, seconds: float) -> None:
        """Image `number` has `seconds` of work ahead."""
        self._backlog += seconds - self._expected[number]
        self._expected[number] = seconds

    def _ahead(self, shares: Sequence[float]) -> list[float]:
        """Seconds of stages ahead of an image that waits for each; index 0 is unused."""
        host = self._host
        ahead = [0.0] * (host.stages + 1)
        deeper, beyond = 0.0, 0.0
        for stage in range(host.stages, 0, -1):
            reached = beyond + shares[stage - 1]
            deeper *= beyond / reached if reached > 0 else 0.0
            deeper += host.costs.seconds_per_image(stage)
            ahead[stage], beyond = deeper, reached
        return ahead


def constant(rate: float, seconds: float, seed: int = 0) -> Floats:
    """Arrivals of a Poisson process."""
    return trace([(seconds, rate)], seed)


def trace(parts: Sequence[tuple[float, float]], seed: int = 0) -> Floats:
    """Arrivals of a Poisson process whose rate changes: (seconds, arrivals a second), one after the other."""
    random = np.random.default_rng(seed)
    found, begin = [], 0.0
    for seconds, rate in parts:
        count = random.poisson(rate * seconds)
        found.append(begin + np.sort(random.random(count)) * seconds)
        begin += seconds
    return np.concatenate(found)
