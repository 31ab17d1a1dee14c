"""From a goal to a policy, which reaches the goal on samples that it was not chosen on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from exports.bundle.certificate import Target
from exports.bundle.errors import TuningError
from exports.bundle.policy import Policy, Scaling
from exports.bundle.reader import Table
from exports.tuning.certificate import holds, make_certificate
from exports.tuning.certified.choose import choose_certified, round_up, tested_path
from exports.tuning.goal import (
    DEFAULT_CONFIDENCE,
    DEFAULT_DROP,
    INTERVAL_CONFIDENCE,
    Choice,
    Default,
    Goal,
    TuningData,
    Unit,
)
from exports.tuning.path import CHEAPER_THAN_FULL_DEPTH, Candidate
from exports.tuning.scaling import answers_as_last
from exports.tuning.search import never_early
from exports.tuning.statistics.policy_stats import PolicyStats

# Three errors must be permitted before their absence is evidence: the limit of a rate of which nothing
# was seen in n samples is about 3/n (95 %).
MIN_PERMITTED_ERRORS = 3


def choose(
    data: TuningData,
    costs: Sequence[float],
    goal: Goal,
    command: str | None = "offramp tune BUNDLE",
) -> Choice:
    """The policy that reaches `goal` on samples that it was not chosen on.

    `costs` [K] is the cost of leaving at each exit; sentences suggest options of `command`, if there is one.
    With a confidence the policy carries a certificate. If the samples do not support the goal, the policy
    never leaves early. Raises TuningError, which says what is possible, if no policy reaches the goal.
    """
    if goal.confidence is not None:
        try:
            return choose_certified(data, tested_path(data, costs), goal, goal.confidence)
        except TuningError as error:
            option = f"--max-accuracy-drop {100 * goal.value:g}"
            raise TuningError(
                f"{str(error).removesuffix('.')}; without a promise: `{command} {option}`."
            ) from error
    candidates = data.candidates(costs)
    if goal.kind == "budget":
        return _choose_within_budget(candidates, costs, goal)
    return _choose_supported(data, candidates, costs, goal, command)


def choose_default(
    data: TuningData,
    costs: Sequence[float],
    default: Default,
    unit: Unit = "macs",
    command: str = "offramp tune BUNDLE",
) -> Choice:
    """The policy of `default`: certified if the samples support that, else by cross-validation."""
    path = tested_path(data, costs)
    try:
        return choose_certified(data, path, default.goal(unit), default.confidence)
    except TuningError as error:
        choice = uncertified_default(data, costs, default, unit, command)
        return replace(choice, notes=(f"It is not certified: {error}", *choice.notes))


def uncertified_default(
    data: TuningData, costs: Sequence[float], default: Default, unit: Unit, command: str | None
) -> Choice:
    """The policy of `default` by cross-validation."""
    choice = choose(data, costs, Goal(value=default.drop, unit=unit), command)
    if default.last_alone and choice.policy == never_early(data.whole.exits):
        return _last_unless_worse(choice, data)
    return choice


def default_policy(
    table: Table,
    scaling: Scaling,
    costs: Sequence[float],
    source_sha256: str,
    command: str = "offramp tune BUNDLE",
    target: Target = "labels",
    drop: float = DEFAULT_DROP,
    confidence: float = DEFAULT_CONFIDENCE,
    inputs: Sequence[str] = (),
) -> Choice:
    """The policy a bundle is exported with, whose stages take `inputs`. `scaling` must not have been fitted
    on the samples that certify, the second of `divide`."""
    data = TuningData.from_table(table, scaling, source_sha256, target)
    default = Default(drop, confidence, may_answer_alone(inputs, target, scaling))
    return choose_default(data, costs, default, command=command)


def may_answer_alone(inputs: Sequence[str], target: Target, scaling: Scaling) -> bool:
    """Whether the last stage of several is a network of its own, which costs less alone, and can be compared
    with the ensemble: there are labels, or the ensemble answers as the last network."""
    if len(inputs) < 2 or inputs[-1] != "image":
        return False
    return target == "labels" or answers_as_last(scaling.weights)


def verify_certificate(policy: Policy, data: TuningData) -> bool | None:
    """Whether the certificate of `policy` follows from `data`; None if it is of other samples, or if
    there is no certificate. Certificates of earlier versions are verified by their own method."""
    certificate = policy.certificate
    if certificate is None or certificate.split_sha256 != data.split_sha256:
        return None
    method = certificate.method
    if (method == "clopper-pearson") != (data.target == "agreement"):
        return False
    permitted, confidence = certificate.permitted_drop / 100, certificate.confidence
    stats = data.certification.evaluate(policy)
    return holds(stats, permitted, confidence, method) and certificate == make_certificate(
        stats, permitted, confidence, method, data.selection.samples, data.split_sha256
    )


def _last_unless_worse(choice: Choice, data: TuningData) -> Choice:
    """`choice`, of which every image is answered by the ensemble, with the last network in its place unless
    the samples show that the ensemble is better."""
    policy = choice.policy.model_copy(
        update={"mode": "exit", "combine": "single", "max_exit": data.whole.exits}
    )
    stats = data.whole.evaluate(policy)
    low, _ = stats.drop_interval(INTERVAL_CONFIDENCE)
    if low > 0:
        return choice
    note = (
        "The last network answers alone: the ensemble costs more, and is not measurably better on these "
        f"samples ({100 * stats.ensemble_accuracy:.2f} and {100 * stats.accuracy:.2f} %)."
    )
    return replace(choice, policy=policy, stats=stats, notes=(*choice.notes, note))


def _choose_within_budget(
    candidates: tuple[Candidate, ...], costs: Sequence[float], goal: Goal
) -> Choice:
    affordable = [
        candidate
        for candidate in candidates
        if candidate.stats.mean_cost(costs) <= goal.value * (1 + 1e-9)
    ]
    if not affordable:
        cheapest = min(candidate.stats.mean_cost(costs) for candidate in candidates)
        raise TuningError(
            f"No policy costs {goal.format_cost(goal.value)} a sample or less; "
            f"the cheapest costs {goal.format_cost(cheapest)}."
        )
    return Choice(goal, affordable[-1].policy, affordable[-1].stats, candidates)


def _choose_supported(
    data: TuningData,
    candidates: tuple[Candidate, ...],
    costs: Sequence[float],
    goal: Goal,
    command: str | None,
) -> Choice:
    ensemble = float(data.whole.ensemble_correct.mean())
    permitted = goal.value if goal.kind == "max_drop" else ensemble - goal.value
    if permitted < 0:
        raise TuningError(
            f"No policy is right on {100 * goal.value:g} % of the samples; "
            f"the best is on {100 * ensemble:.2f} %."
        )
    cheaper = [
        candidate
        for candidate in candidates
        if candidate.stats.mean_cost(costs) < CHEAPER_THAN_FULL_DEPTH * costs[-1]
    ]
    supported = _cheapest_supported(cheaper, permitted)
    if supported is not None:
        return Choice(goal, supported.policy, supported.stats, candidates)
    policy = never_early(data.whole.exits)
    notes = (_why_not_supported(data, cheaper, permitted, goal, command),)
    return Choice(goal, policy, data.whole.evaluate(policy), candidates, notes)


def _cheapest_supported(candidates: Sequence[Candidate], permitted: float) -> Candidate | None:
    """The last policy, from the dearest to the cheapest, before the first that needs a larger drop.

    The mean drop on new samples is then at most `permitted`, as in conformal risk control.
    """
    chosen = None
    for candidate in reversed(candidates):
        if _needed_drop(candidate.stats) > permitted + 1e-12:
            break
        chosen = candidate
    return chosen


def _needed_drop(stats: PolicyStats) -> float:
    """The least drop that `stats`, of samples left out, support. Gains over the ensemble permit no
    further losses: on few samples they are luck."""
    return max(stats.drop, MIN_PERMITTED_ERRORS / stats.samples)


def _why_not_supported(
    data: TuningData,
    cheaper: Sequence[Candidate],
    permitted: float,
    goal: Goal,
    command: str | None,
) -> str:
    if not cheaper:
        return "The network has no exit before the last, so every policy is the ensemble."
    samples = data.whole.samples
    least = _needed_drop(cheaper[-1].stats)
    what = f"a drop of {100 * permitted:.2g} points"
    reason = f"{samples:,} samples do not support {what}, so no image leaves early"
    if 0 < samples * permitted < MIN_PERMITTED_ERRORS:
        needed = math.ceil(MIN_PERMITTED_ERRORS / permitted - 1e-9)
        reason += f"; {what} takes at least {round_up(needed):,} samples"
    if command is None or least > 1:
        return f"{reason}."
    if goal.kind == "max_drop":
        option = f"--max-accuracy-drop {min(math.ceil(1e3 * least + 1e-9) / 10, 100):g}"
    else:
        ensemble = float(data.whole.ensemble_correct.mean())
        option = f"--min-accuracy {max(math.floor(1e3 * (ensemble - least)) / 10, 0):g}"
    return f"{reason}; these support `{command} {option}`."
