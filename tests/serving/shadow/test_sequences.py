"""Confidence sequences: their error rates over many streams with a look at every sample, and their power."""

from __future__ import annotations

import numpy as np
import pytest

from serving.shadow.sequences import BLOCK, MAX_SAMPLES, AgreementSequences

ERROR = 0.1
STREAMS = 150
SAMPLES = 500


def first_below(sequences: AgreementSequences, stream: np.ndarray) -> int | None:
    """After how many samples of `stream` the limit was first below what is promised; None if it never was."""
    for count, agrees in enumerate(stream.tolist(), 1):
        sequences.add(agrees)
        if sequences.is_below:
            return count
    return None


@pytest.mark.parametrize("agreement", [0.5, 0.9, 0.98])
def test_an_exit_that_keeps_its_promise_is_seldom_found_below_it(agreement: float) -> None:
    rng = np.random.default_rng(1)
    streams = rng.random((STREAMS, SAMPLES)) < agreement
    false = sum(first_below(AgreementSequences(agreement, ERROR), s) is not None for s in streams)
    assert false <= ERROR * STREAMS


def test_nor_is_one_whose_agreement_varies_with_its_past_above_what_it_promises() -> None:
    """Not independent: above its promise after a sample that differed, at it otherwise."""
    rng = np.random.default_rng(2)
    false = 0
    for _ in range(STREAMS):
        before, stream = True, []
        for draw in rng.random(SAMPLES):
            before = bool(draw < (0.9 if before else 0.99))
            stream.append(before)
        false += first_below(AgreementSequences(0.9, ERROR), np.array(stream)) is not None
    assert false <= ERROR * STREAMS


@pytest.mark.parametrize("before", [0, 150, 3_000])
def test_an_agreement_ten_points_below_is_found_within_600_samples_whatever_came_before(
    before: int,
) -> None:
    rng = np.random.default_rng(3)
    for _ in range(12):
        sequences = AgreementSequences(0.96, 0.001)
        for agrees in (rng.random(before) < 0.98).tolist():
            sequences.add(agrees)
        found = first_below(sequences, rng.random(600) < 0.86)
        assert found is not None


def test_one_long_sequence_would_hide_what_begins_now(monkeypatch: pytest.MonkeyPatch) -> None:
    def shadows_needed() -> float:
        rng = np.random.default_rng(6)
        needed = []
        for _ in range(5):
            sequences = AgreementSequences(0.96, 0.001)
            for agrees in (rng.random(3_000) < 0.98).tolist():
                sequences.add(agrees)
            needed.append(first_below(sequences, rng.random(3_000) < 0.86) or 3_000)
        return float(np.median(needed))

    several = shadows_needed()
    monkeypatch.setattr("serving.shadow.sequences.BLOCK", MAX_SAMPLES)
    one = shadows_needed()
    assert several < 300
    assert one > 700


def test_the_limits_hold_the_agreement_at_every_look() -> None:
    rng = np.random.default_rng(4)
    missed = 0
    for _ in range(40):
        sequences = AgreementSequences(0.5, ERROR)
        for count, agrees in enumerate((rng.random(300) < 0.9).tolist(), 1):
            sequences.add(agrees)
            span = sequences.lowest() if count % 10 == 0 else None
            if span is not None and not span.low <= 0.9 <= span.high:
                missed += 1
                break
    assert missed <= ERROR * 40


def test_it_is_below_exactly_if_the_upper_limit_is() -> None:
    rng = np.random.default_rng(5)
    sequences = AgreementSequences(0.9, ERROR)
    looks = []
    for agrees in (rng.random(250) < 0.8).tolist():
        sequences.add(agrees)
        span = sequences.lowest()
        assert span is not None
        looks.append(sequences.is_below)
        assert sequences.is_below == (span.high < 0.9)
    assert set(looks) == {True, False}


def test_the_levels_of_all_sequences_add_up_to_the_error_also_over_restarts() -> None:
    sequences, levels = AgreementSequences(0.9, ERROR), set()
    for _ in range(30):
        for _ in range(2 * BLOCK):
            sequences.add(True)
        levels.update(one.level for one in sequences._running)
        sequences.restart()
    assert len(levels) == 60
    assert sum(levels) < ERROR


def test_memory_is_bounded() -> None:
    sequences = AgreementSequences(0.0, ERROR)
    for _ in range(MAX_SAMPLES + 5 * BLOCK):
        sequences.add(True)
    assert len(sequences._running) == MAX_SAMPLES // BLOCK


def test_without_samples_nothing_is_known_and_nothing_below_0() -> None:
    sequences = AgreementSequences(0.0, ERROR)
    assert sequences.lowest() is None
    for _ in range(200):
        sequences.add(False)
    assert not sequences.is_below
