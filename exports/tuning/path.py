"""The order in which policies are tried, from full depth to the first exit, and what it is worth on samples
that it was not chosen on."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exports.bundle.policy import Policy
from exports.tuning.search import NEVER, FrontierPoint, PolicyEvaluator, frontier
from exports.tuning.statistics.answers import Answers
from exports.tuning.statistics.policy_stats import PolicyStats

# A policy counts as cheaper than full depth if it is so by more than rounding.
CHEAPER_THAN_FULL_DEPTH = 1 - 1e-9
# Steps from a policy of the frontier to full depth.
SAFER_STEPS = 16
# Gaps of the frontier that are filled, as a share of full depth's cost. Narrower ones cost time alone.
WIDE_GAP = 0.02
FOLDS = 5
REPEATS = 4


@dataclass(frozen=True)
class Candidate:
    """A policy with its results; its answers are judged on samples that it was not chosen on.

    `fold_policies` are those of the same mean cost that cross-validation found without each fold, in the
    order of the folds; none if the policy was not cross-validated.
    """

    policy: Policy
    stats: PolicyStats
    fold_policies: tuple[Policy, ...] = ()


def cautious_path(evaluator: PolicyEvaluator, costs: Sequence[float]) -> list[FrontierPoint]:
    """The frontier, cheapest first, with safer policies in its wide gaps and between the last and full depth.

    On few samples the frontier has such gaps, where a cheap policy was lucky, and ends far from full depth,
    at policies that no sample speaks against. Up to the cost of the next policy, ever smaller shares of the
    samples that leave at an exit are then let go.
    """
    points = frontier(evaluator, costs)
    path: list[FrontierPoint] = []
    for point, dearer in zip(points, [*(p.cost for p in points[1:]), costs[-1]], strict=True):
        path.append(point)
        limit = min(dearer, CHEAPER_THAN_FULL_DEPTH * costs[-1])
        if limit - point.cost < WIDE_GAP * costs[-1]:
            continue
        for policy in _safer(evaluator, point.policy):
            stats = evaluator.evaluate(policy)
            cost = stats.mean_cost(costs)
            if cost >= limit:
                break
            if cost > path[-1].cost:
                path.append(FrontierPoint(policy, cost, stats.drop))
    return path


def cross_validated_path(
    evaluator: PolicyEvaluator, costs: Sequence[float], repeats: int = REPEATS
) -> list[Candidate]:
    """The path of all samples, cheapest first, each policy with cross-validated results.

    The whole search is repeated on four fifths of the samples. Its policy of the same mean cost is
    applied to the fifth left out. Answers are counted over the folds and averaged over `repeats` divisions
    into folds, which depend on the number of samples alone. Exits are counted on all samples: they do not
    depend on the labels, so the search does not favour their luck.

    One loss is added to each policy: the cheapest one whose drop is permitted looks better than it is by
    about one sample. Conformal risk control adds it too (Angelopoulos et al. 2022, arXiv 2208.02814; with
    cross-validation: Cohen et al. 2024, arXiv 2401.11974).
    """
    points = cautious_path(evaluator, costs)
    levels = [point.cost for point in points]
    totals = np.zeros((len(points), 3))
    folds: list[list[Policy]] = []
    for chosen_on, left_out in _divisions(evaluator.samples, repeats):
        found = cautious_path(evaluator.take(chosen_on), costs)
        folds.append(_policies(found, levels))
        totals += _counts(folds[-1], evaluator.take(left_out))
    return [
        Candidate(point.policy, _stats(evaluator, point.policy, row), fold_policies)
        for point, row, fold_policies in zip(
            points, totals / repeats, zip(*folds, strict=True), strict=True
        )
    ]


def left_out_answers(evaluator: PolicyEvaluator, candidate: Candidate) -> Answers:
    """The answers to the samples of `evaluator`, each by policies that were chosen without it, once in every
    repetition of the cross-validation that `candidate` comes from."""
    repeats = len(candidate.fold_policies) // min(FOLDS, evaluator.samples)
    answers = [
        evaluator.take(left_out).answers(policy)
        for policy, (_, left_out) in zip(
            candidate.fold_policies, _divisions(evaluator.samples, repeats), strict=True
        )
    ]
    return Answers(
        np.concatenate([part.confidence for part in answers]),
        np.concatenate([part.correct for part in answers]),
        repeats,
    )


def _safer(evaluator: PolicyEvaluator, policy: Policy) -> Iterator[Policy]:
    """Running ensembles with ever higher thresholds: step by step a smaller share of the samples that reach
    those of `policy`. At full depth they answer as the ensemble, which policies of single exits do not."""
    shares = 1 - np.arange(1, SAFER_STEPS) / SAFER_STEPS
    per_exit = []
    for own, running, threshold in zip(
        evaluator.confidence[policy.measure, policy.combine][:-1],
        evaluator.confidence[policy.measure, "running"][:-1],
        policy.thresholds,
        strict=True,
    ):
        reached = float((own >= np.float32(min(threshold, NEVER))).mean())
        higher = (
            np.quantile(running, 1 - shares * reached) if reached else np.full(len(shares), NEVER)
        )
        per_exit.append([round(float(value), 6) for value in higher])
    for thresholds in zip(*per_exit, strict=True):
        yield policy.model_copy(update={"combine": "running", "thresholds": thresholds})


def _divisions(samples: int, repeats: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """The samples to choose on and those left out, ascending, for every fold of every repetition."""
    random = np.random.Generator(np.random.PCG64(0))
    for _ in range(repeats):
        order = random.permutation(samples)
        for fold in range(min(FOLDS, samples)):
            left_out = order[fold::FOLDS]
            yield np.setdiff1d(order, left_out), np.sort(left_out)


def _policies(points: Sequence[FrontierPoint], levels: Sequence[float]) -> list[Policy]:
    """For each mean cost of `levels` the dearest policy of `points` up to it."""
    costs = [point.cost for point in points]
    places = [max(bisect.bisect_right(costs, level * (1 + 1e-9)) - 1, 0) for level in levels]
    return [points[place].policy for place in places]


def _counts(policies: Sequence[Policy], left_out: PolicyEvaluator) -> NDArray[np.float64]:
    """The correct answers, losses and gains [3] of each of `policies`."""
    rows = {}
    for policy in set(policies):
        stats = left_out.evaluate(policy)
        rows[policy] = [stats.correct, stats.losses, stats.gains]
    return np.array([rows[policy] for policy in policies], dtype=np.float64)


def _stats(evaluator: PolicyEvaluator, policy: Policy, answers: NDArray[np.float64]) -> PolicyStats:
    correct, losses, gains = answers.tolist()
    exit_counts = evaluator.evaluate(policy).exit_counts
    return PolicyStats(evaluator.samples, exit_counts, correct - 1, losses + 1, gains)
