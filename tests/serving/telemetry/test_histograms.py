from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import Histogram as Reference

from serving.telemetry.histograms import BULK_SIZE, Histogram

BOUNDS = (0.001, 0.25, 1.0, 2.5)


def exposed(registry: CollectorRegistry) -> list[str]:
    text = generate_latest(registry).decode()
    return [line for line in text.splitlines() if "_created" not in line]


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.integers(0, 1 << 12).map(lambda n: n / 1024)),
        min_size=1,
    )
)
def test_it_is_exposed_like_a_histogram_of_the_client_library(
    observations: list[tuple[str, float]],
) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    histogram = Histogram("seconds", "Some.", ["stage"], BOUNDS, ours)
    reference = Reference("seconds", "Some.", ["stage"], buckets=BOUNDS, registry=theirs)
    for label, value in observations:
        histogram.series(label).observe(value)
        reference.labels(label).observe(value)
    assert exposed(ours) == exposed(theirs)


@pytest.mark.parametrize("bound", BOUNDS)
def test_a_bound_counts_in_the_bucket_that_it_closes(bound: float) -> None:
    series = Histogram("seconds", "Some.", [], BOUNDS, CollectorRegistry()).series()
    series.observe(bound)
    assert series.totals()[0] == [int(bound <= other) for other in (*BOUNDS, float("inf"))]


def test_no_observation_of_any_thread_is_lost() -> None:
    histogram = Histogram("seconds", "Some.", ["stage"], BOUNDS, CollectorRegistry())
    count, threads = 5 * BULK_SIZE + 7, 4

    def observe() -> None:
        for _ in range(count):
            histogram.series(1).observe(1.0)

    workers = [threading.Thread(target=observe) for _ in range(threads)]
    for thread in workers:
        thread.start()
    while any(thread.is_alive() for thread in workers):
        histogram.series(1).totals()
    assert histogram.series(1).totals() == ([0, 0, *[threads * count] * 3], threads * count)
