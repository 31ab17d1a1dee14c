"""The limit of confidence of largest coverage for a precision."""

from __future__ import annotations

import numpy as np
import pytest

from exports.tuning.search import PolicyEvaluator, never_early
from exports.tuning.selective.rejection import find_reject_below, largest_supported, limits
from exports.tuning.statistics.answers import Answers


def drawn(samples: int, seed: int = 0) -> Answers:
    """Answers whose confidence is the probability that they are right, evenly from 0.5 to 1."""
    random = np.random.default_rng(seed)
    confidence = random.uniform(0.5, 1, samples).astype(np.float32)
    return Answers(confidence, random.random(samples) < confidence)


def test_limits_descend_to_zero_in_even_steps_of_coverage() -> None:
    answers = drawn(10_000)
    found = limits(answers)
    assert found[-1] == 0
    assert (np.diff(found) < 0).all()
    covered = [stats.coverage for stats in answers.above(found)]
    assert np.diff(covered).max() <= 0.0052
    assert covered[-1] == 1
    assert len(limits(drawn(20))) <= 21


def test_the_precision_is_reached_with_the_largest_coverage() -> None:
    # Above a limit of 0.8 the mean confidence is 0.9, and two fifths are answered.
    found = find_reject_below(drawn(20_000), 0.9)
    assert found is not None
    limit, stats = found
    assert limit == pytest.approx(0.8, abs=0.02)
    assert stats.coverage == pytest.approx(0.4, abs=0.04)
    assert stats.precision is not None
    assert 0.9 <= stats.precision < 0.905
    (counted,) = drawn(20_000).above(np.array([limit]))
    assert (stats.answered, stats.correct) == (counted.answered, counted.correct - 1)


def test_a_precision_that_all_answers_have_withholds_none() -> None:
    assert find_reject_below(drawn(2000), 0.7) is not None
    assert find_reject_below(drawn(2000), 0.7)[0] == 0  # type: ignore[index]


def test_more_precision_answers_less() -> None:
    found = [find_reject_below(drawn(20_000), goal) for goal in (0.8, 0.85, 0.9, 0.95)]
    covered = [stats.coverage for _, stats in filter(None, found)]
    assert covered == sorted(covered, reverse=True)
    assert len(set(covered)) == 4


@pytest.mark.parametrize(("samples", "goal"), [(59, 0.95), (299, 0.99), (5, 0.5)])
def test_fewer_answers_than_permit_three_errors_are_no_evidence(samples: int, goal: float) -> None:
    certain = Answers(np.ones(samples, np.float32), np.ones(samples, np.bool_))
    assert find_reject_below(certain, goal) is None
    one_more = Answers(np.ones(samples + 1, np.float32), np.ones(samples + 1, np.bool_))
    assert find_reject_below(one_more, goal) is not None


def test_a_precision_that_is_out_of_reach_has_a_nearest_one() -> None:
    answers = drawn(600)
    assert find_reject_below(answers, 0.995) is None
    nearest = largest_supported(answers, 0.995)
    assert nearest is not None
    assert 0.9 < nearest < 0.99
    assert find_reject_below(answers, nearest) is not None
    wrong = Answers(np.ones(50, np.float32), np.zeros(50, np.bool_))
    assert largest_supported(wrong, 0.9) is None


@pytest.mark.parametrize(
    ("samples", "goal", "draws"),
    [(60, 0.75, 200), (120, 0.8, 200), (600, 0.9, 200), (2500, 0.9, 100), (2500, 0.95, 100)],
)
def test_the_mean_precision_on_other_images_is_at_least_the_goal(
    cifar: tuple[PolicyEvaluator, list[float]], samples: int, goal: float, draws: int
) -> None:
    """Draws from the calibration table of the embedded bundle, at full depth."""
    whole = cifar[0].answers(never_early(4))
    random = np.random.default_rng(samples)
    precisions, covered = [], []
    for _ in range(draws):
        order = random.permutation(whole.samples)
        found = find_reject_below(taken(whole, order[:samples]), goal)
        if found is None:
            continue
        (truth,) = taken(whole, order[samples:]).above(np.array([found[0]]))
        assert truth.precision is not None
        precisions.append(truth.precision)
        covered.append(found[1].coverage - truth.coverage)
    assert len(precisions) > 0.95 * draws
    assert np.mean(precisions) >= goal - 2 * np.std(precisions) / np.sqrt(draws)
    assert np.mean(precisions) < goal + 1.5 / np.sqrt(samples) + 0.005  # the goal is used
    assert abs(np.mean(covered)) < 0.01


@pytest.mark.parametrize(("samples", "goal"), [(60, 0.9), (120, 0.95), (600, 0.98)])
def test_a_precision_beyond_the_evidence_is_seldom_supported(
    cifar: tuple[PolicyEvaluator, list[float]], samples: int, goal: float
) -> None:
    """Where nothing is supported, no answer is wrong: on average over all draws the goal holds."""
    whole = cifar[0].answers(never_early(4))
    random = np.random.default_rng(samples)
    precisions = []
    for _ in range(200):
        order = random.permutation(whole.samples)
        found = find_reject_below(taken(whole, order[:samples]), goal)
        truth = (
            None if found is None else taken(whole, order[samples:]).above(np.array([found[0]]))[0]
        )
        precisions.append(1.0 if truth is None or truth.precision is None else truth.precision)
    assert np.mean(np.array(precisions) < 1) < 0.4
    assert np.mean(precisions) >= goal


def taken(answers: Answers, index: np.ndarray) -> Answers:
    """The samples at `index`."""
    return Answers(answers.confidence[index], answers.correct[index])
