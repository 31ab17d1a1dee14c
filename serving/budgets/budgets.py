"""Which client sent a request, how deep its budget lets the request go, and what was spent."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from starlette.types import Scope

from serving.budgets.bucket import Bucket
from serving.budgets.clients import ANONYMOUS, hashed, read_clients
from serving.budgets.metrics import BudgetMetrics
from serving.inference.engine import Prediction
from serving.scheduling.options import ImageResult

BEARER = b"bearer "


class Reservation:
    """What a request may spend. Until it is settled or refunded, the client is charged for its deepest exit;
    so it is for a request that is dropped because its client has disconnected."""

    __slots__ = ("_bucket", "_charged", "_client", "_metrics", "all_exits", "exit", "limited")

    def __init__(
        self,
        client: str,
        bucket: Bucket,
        metrics: BudgetMetrics,
        costs: Sequence[int],
        images: int,
        deepest: int,
        *,
        all_exits: bool,
    ) -> None:
        """See Budgets.reserve. `exit` is the deepest one allowed; `all_exits` is whether those after the
        answer may run as well; `limited` is whether either is less than was asked for."""
        level, cost = bucket.level, 0
        # Exits after the answer are the first to go.
        depths = [(deepest, True)] if all_exits else []
        depths += [(exit_, False) for exit_ in range(deepest, 0, -1)]
        for self.exit, self.all_exits in depths:
            cost = images * (costs[-1] if self.all_exits else costs[self.exit - 1])
            if cost <= level:
                break
        self.limited = (self.exit, self.all_exits) != depths[0]
        self._client, self._bucket, self._metrics = client, bucket, metrics
        self._charged = bucket.take(cost)
        metrics.reserved(client, self.limited)

    def settle(self, costs: Sequence[int], results: Sequence[ImageResult]) -> None:
        """The request was answered with `results` by a model whose exits cost `costs`: charge what was spent
        and return the rest."""
        # A sample that began at a later stage did not pay for those before.
        upto = (0, *costs)
        spent = sum(
            costs[-1] if self.all_exits else upto[found.exit] - upto[found.first_stage - 1]
            for found in results
            if isinstance(found, Prediction)
        )
        if spent < self._charged:
            self._bucket.give_back(self._charged - spent)
        self._charged = 0.0
        self._metrics.spent(self._client, spent)

    def refund(self) -> None:
        """The request failed: charge nothing."""
        self._bucket.give_back(self._charged)
        self._charged = 0.0


class Budgets:
    """The buckets of all clients. Used on the event loop only."""

    def __init__(
        self, path: Path, metrics: BudgetMetrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Read the clients in `path`; raises SettingsError."""
        self._path = path
        self._metrics = metrics
        self._clock = clock
        self._names: dict[bytes, str] = {}
        self._buckets: dict[str, Bucket] = {}
        self.reload()

    def reload(self) -> None:
        """Read the file again; a client whose budget is the same keeps its level. Raises SettingsError, and
        then nothing changes."""
        found = read_clients(self._path)
        buckets = {}
        for name, budget in found.budgets.items():
            rate, burst = budget.macs_per_second, budget.burst_macs
            old = self._buckets.get(name)
            if old is None or (old.rate, old.burst) != (rate, burst):
                old = Bucket(rate, burst, self._clock)
            buckets[name] = old
        for name in self._buckets:
            self._metrics.ended(name)
        for name, bucket in buckets.items():
            self._metrics.watch(name, bucket)
        self._names, self._buckets = found.names, buckets

    def client_of(self, scope: Scope) -> str:
        """The name of the client that sent the request of `scope`, by its key; ANONYMOUS without one."""
        for name, value in scope["headers"]:
            if name == b"x-api-key":
                key = value
            elif name == b"authorization" and value[: len(BEARER)].lower() == BEARER:
                key = value[len(BEARER) :].strip()
            else:
                continue
            client = self._names.get(hashed(key))
            if client is not None:
                return client
        return ANONYMOUS

    def reserve(
        self,
        client: str,
        costs: Sequence[int],
        images: int,
        deepest: int,
        *,
        all_exits: bool = False,
    ) -> Reservation:
        """Reserve for `images` that go to exit `deepest` at most, or with `all_exits` run every exit.

        `costs` are the multiply-accumulates of each exit. The reservation is for the deepest exit that the
        client's budget can pay now, and for exit 1 if it can pay none. A client that is no longer known has
        the budget of ANONYMOUS.
        """
        bucket = self._buckets.get(client)
        if bucket is None:
            client, bucket = ANONYMOUS, self._buckets[ANONYMOUS]
        return Reservation(
            client, bucket, self._metrics, costs, images, deepest, all_exits=all_exits
        )
