"""Buckets with a clock of the test, reservations, and the file of clients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from serving.budgets.bucket import Bucket
from serving.budgets.budgets import Budgets, Reservation
from serving.budgets.clients import ANONYMOUS, read_clients
from serving.budgets.metrics import BudgetMetrics
from serving.errors import SettingsError
from serving.inference.engine import Prediction
from tests.serving.budgets.conftest import KEY, UNLIMITED

COSTS = (1000, 2000, 3000)


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def predictions(*exits: int) -> list[Prediction]:
    """Answers at `exits`, with nothing else in them."""
    results = []
    for exit_ in exits:
        found = object.__new__(Prediction)
        object.__setattr__(found, "exit", exit_)
        results.append(found)
    return results


@pytest.fixture
def metrics() -> BudgetMetrics:
    return BudgetMetrics(CollectorRegistry())


def reserve(
    bucket: Bucket, images: int = 1, deepest: int = 3, *, all_exits: bool = False
) -> Reservation:
    metrics = cast(Any, SimpleNamespace(reserved=lambda *_: None, spent=lambda *_: None))
    return Reservation("a", bucket, metrics, COSTS, images, deepest, all_exits=all_exits)


def test_a_bucket_fills_at_its_rate_up_to_its_burst() -> None:
    clock = Clock()
    bucket = Bucket(10, 100, clock)
    assert bucket.take(80) == 80
    clock.now = 3
    assert bucket.level == 50
    assert bucket.take(60) == 50
    clock.now = 1000
    assert bucket.level == 100
    bucket.take(30)
    bucket.give_back(50)
    assert bucket.level == 100


def test_a_bucket_without_a_limit_is_always_full() -> None:
    bucket = Bucket(float("inf"), float("inf"), Clock())
    assert bucket.take(1e30) == 1e30
    assert bucket.level == float("inf")


@pytest.mark.parametrize(
    ("level", "images", "exit_", "limited"),
    [
        *((3000, 1, 3, False), (2999, 1, 2, True), (1000, 1, 1, True), (0, 1, 1, True)),
        *((9000, 3, 3, False), (8999, 3, 2, True), (3000, 3, 1, True), (10, 3, 1, True)),
    ],
)
def test_a_request_goes_as_deep_as_the_bucket_pays_for(
    level: float, images: int, exit_: int, limited: bool
) -> None:
    found = reserve(Bucket(0, level, Clock()), images)
    assert (found.exit, found.limited) == (exit_, limited)


def test_what_was_not_spent_is_returned() -> None:
    bucket = Bucket(0, 10_000, Clock())
    first, second = reserve(bucket), reserve(bucket, 2)
    assert bucket.level == 1000
    first.settle(COSTS, predictions(1))
    assert bucket.level == 3000
    second.settle(COSTS, predictions(3, 2))
    assert bucket.level == 4000
    failed = reserve(bucket)
    failed.refund()
    assert bucket.level == 4000


def test_stages_that_were_left_out_are_not_charged() -> None:
    bucket = Bucket(0, 10_000, Clock())
    found = reserve(bucket)
    (answer,) = predictions(3)
    answer.first_stage = 3
    found.settle(COSTS, [answer])
    assert bucket.level == 10_000 - (COSTS[2] - COSTS[1])


def test_a_request_whose_client_has_gone_is_charged_for_its_deepest_exit() -> None:
    bucket = Bucket(0, 10_000, Clock())
    reserve(bucket)
    assert bucket.level == 7000


def test_exits_after_the_answer_are_the_first_to_go() -> None:
    paid = reserve(Bucket(0, 3000, Clock()), deepest=2, all_exits=True)
    assert (paid.exit, paid.all_exits, paid.limited) == (2, True, False)
    bucket = Bucket(0, 2500, Clock())
    unpaid = reserve(bucket, deepest=2, all_exits=True)
    assert (unpaid.exit, unpaid.all_exits, unpaid.limited) == (2, False, True)
    unpaid.settle(COSTS, predictions(1))
    assert bucket.level == 1500


def test_a_request_for_the_first_exit_alone_is_never_limited() -> None:
    assert not reserve(Bucket(0, 0, Clock()), deepest=1).limited


REQUESTS = st.lists(
    st.tuples(
        st.floats(0, 5),  # seconds until the request
        st.integers(1, 4),  # images
        st.integers(1, 3),  # the deepest exit that it asks for
        st.lists(st.integers(1, 3), min_size=4, max_size=4),  # where images would leave
        st.booleans(),  # whether it is still running when the next one comes
    ),
    max_size=40,
)


@given(REQUESTS, st.floats(0, 5000), st.floats(0, 20_000))
def test_a_client_spends_its_budget_and_the_first_exits_at_most(
    requests: Sequence[tuple[float, int, int, list[int], bool]], rate: float, burst: float
) -> None:
    """Spent is at most burst + rate x seconds, and besides that exit 1 for images of limited requests."""
    clock, spent, free = Clock(), 0, 0
    bucket = Bucket(rate, burst, clock)
    running: list[tuple[Reservation, list[int]]] = []
    for pause, images, deepest, leaves, waits in requests:
        clock.now += pause
        found = reserve(bucket, images, deepest)
        exits = [min(exit_, found.exit) for exit_ in leaves[:images]]
        spent += sum(COSTS[exit_ - 1] for exit_ in exits)
        if found.exit == 1:
            free += images * COSTS[0]
        running.append((found, exits))
        if not waits:
            for reservation, ended in running:
                reservation.settle(COSTS, predictions(*ended))
            running.clear()
        assert spent <= burst + rate * clock.now + free + 1e-6


def scope(*headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"headers": [(b"host", b"a"), *headers]}


def test_clients_are_found_by_their_key(budgets: Path, metrics: BudgetMetrics) -> None:
    found = Budgets(budgets, metrics, Clock())
    assert found.client_of(scope()) == ANONYMOUS
    assert found.client_of(scope((b"x-api-key", KEY.encode()))) == "mobile"
    assert found.client_of(scope((b"authorization", f"bearer {UNLIMITED}".encode()))) == "office"
    assert found.client_of(scope((b"authorization", KEY.encode()))) == ANONYMOUS
    assert found.client_of(scope((b"x-api-key", b"\xff" * 20))) == ANONYMOUS


def test_a_client_that_is_gone_has_the_budget_of_the_others(
    budgets: Path, metrics: BudgetMetrics
) -> None:
    found = Budgets(budgets, metrics, Clock())
    assert found.reserve("mobile", COSTS, 1, 3).exit == 3
    assert found.reserve("gone", COSTS, 1, 3).exit == 2
    assert found.reserve(ANONYMOUS, COSTS, 1, 3).exit == 1
    assert not found.reserve("office", COSTS, 1000, 3).limited


def test_levels_survive_a_reload_unless_the_budget_changes(budgets: Path) -> None:
    registry = CollectorRegistry()
    found = Budgets(budgets, BudgetMetrics(registry), Clock())
    found.reserve("mobile", COSTS, 4, 3)
    budgets.write_text(budgets.read_text().replace("0.000002", "0.000009"))
    found.reload()
    text = generate_latest(registry).decode()
    assert 'offramp_budget_available_macs{client="mobile"} 3000.0' in text
    assert 'offramp_budget_available_macs{client="anonymous"} 9000.0' in text
    assert 'available_macs{client="office"}' not in text
    assert 'offramp_budget_requests_total{client="mobile",limited="false"} 1.0' in text
    budgets.write_text("[anonymous]\n")
    found.reload()
    assert "available_macs{" not in generate_latest(registry).decode()
    budgets.write_text("nonsense")
    with pytest.raises(SettingsError):
        found.reload()
    assert not found.reserve(ANONYMOUS, COSTS, 1000, 3).limited


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[clients", "is not TOML"),
        ("", "anonymous: Field required"),
        ('[anonymous]\n[clients.a]\nkey = "short"', "clients.a.key"),
        ('[anonymous]\n[clients."a b"]\nkey = "0123456789abcdef"', "clients.a b"),
        ("[anonymous]\nburst_gmacs = 1", "burst_gmacs needs gmacs_per_second"),
        ("[anonymous]\ngmacs_per_second = -1", "anonymous.gmacs_per_second"),
        ("[anonymous]\ngmacs_per_second = inf", "anonymous.gmacs_per_second"),
        ('[anonymous]\n[clients.anonymous]\nkey = "0123456789abcdef"', "cannot be called"),
        (
            '[anonymous]\n[clients.a]\nkey = "0123456789abcdef"\n[clients.b]\nkey = "0123456789abcdef"',
            "the same key",
        ),
    ],
)
def test_a_wrong_file_is_refused_in_a_sentence(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "budgets.toml"
    path.write_text(content)
    with pytest.raises(SettingsError) as error:
        read_clients(path)
    assert says in str(error.value)
    assert "0123456789abcdef" not in str(error.value)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        read_clients(tmp_path / "none.toml")


def test_a_burst_is_ten_seconds_by_default(tmp_path: Path) -> None:
    path = tmp_path / "budgets.toml"
    path.write_text("[anonymous]\ngmacs_per_second = 2.5")
    budget = read_clients(path).anonymous
    assert (budget.macs_per_second, budget.burst_macs) == (2.5e9, 25e9)
