"""Candidates for a bundle: one network, or one before another, judged under a certified policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any, Literal

import numpy as np

from exports.bundle.errors import TuningError
from exports.bundle.policy import Policy, Scaling
from exports.bundle.reader import Table
from exports.tuning.certificate import divide
from exports.tuning.goal import DEFAULT_CONFIDENCE, DEFAULT_DROP, Goal, TuningData
from exports.tuning.scaling import fit_scaling
from exports.tuning.search import full_depth
from exports.tuning.select import choose
from exports.tuning.simulation import simulate

Training = Literal["short", "long", "mixed"]

PERMITTED_DROP = DEFAULT_DROP
NO_FILE = "0" * 64  # the tables of pairs are in no file


@dataclass(frozen=True)
class Candidate:
    """One network, or two of which the second takes the image after the first one's last exit.

    `macs` and `milliseconds` [K] are the costs of leaving at each exit; `sides` are the networks' input
    sides in pixels, None where a network does not resize the image.
    """

    networks: tuple[str, ...]
    sides: tuple[int | None, ...]
    training: Training
    held_out: Table
    test: Table
    macs: tuple[int, ...]
    milliseconds: tuple[float, ...]

    def before(self, deep: Candidate) -> Candidate:
        """This candidate, then `deep`. Leaving at an exit of `deep` costs all of this one too."""
        return Candidate(
            networks=self.networks + deep.networks,
            sides=self.sides + deep.sides,
            training=self.training if self.training == deep.training else "mixed",
            held_out=_joined(self.held_out, deep.held_out),
            test=_joined(self.test, deep.test),
            macs=(*self.macs, *(self.macs[-1] + more for more in deep.macs)),
            milliseconds=(
                *self.milliseconds,
                *(self.milliseconds[-1] + more for more in deep.milliseconds),
            ),
        )


def pairs(networks: Sequence[Candidate]) -> list[Candidate]:
    """Every network before every other one that costs more multiply-accumulates and has another side."""
    return [
        front.before(deep)
        for front, deep in permutations(networks, 2)
        if front.macs[-1] < deep.macs[-1] and front.sides != deep.sides
    ]


def certified_policy(candidate: Candidate, scaling: Scaling) -> Policy:
    """The cheapest policy of early exits that is certified at PERMITTED_DROP on the held-out split.

    `scaling` is fitted on the samples on which nothing is certified. Costs are multiply-accumulates, as in an
    export, so that timing does not change the choice. Raises TuningError if none is certified.
    """
    data = TuningData.from_table(candidate.held_out, scaling, NO_FILE)
    goal = Goal(value=PERMITTED_DROP, confidence=DEFAULT_CONFIDENCE)
    return choose(data, candidate.macs, goal).policy


def row(candidate: Candidate) -> dict[str, Any]:
    """The figures of `candidate` on the test split: its exits, full depth (the ensemble of all exits), and
    the certified policy, None where there is none, with the reason in `note`."""
    chosen_on, _ = divide(len(candidate.held_out.labels))
    scaling = fit_scaling(candidate.held_out.take(chosen_on))
    certified, note = None, ""
    try:
        certified = _under(candidate, scaling, certified_policy(candidate, scaling))
    except TuningError as error:
        note = str(error)
    exits = [
        100 * float((logits.argmax(axis=-1) == candidate.test.labels).mean())
        for logits in candidate.test.logits
    ]
    return {
        "networks": list(candidate.networks),
        "training": candidate.training,
        "exits": [round(accuracy, 2) for accuracy in exits],
        "exit_ms": [round(ms, 3) for ms in candidate.milliseconds],
        "exit_mmacs": [round(macs / 1e6, 2) for macs in candidate.macs],
        "full_depth": _under(candidate, scaling, full_depth(len(exits))),
        "certified": certified,
        "note": note,
    }


def _under(candidate: Candidate, scaling: Scaling, policy: Policy) -> dict[str, Any]:
    outcome = simulate(policy, candidate.test.logits, scaling)
    macs = outcome.mean_cost(candidate.macs)
    return {
        "accuracy": round(100 * outcome.accuracy(candidate.test.labels), 2),
        "ms": round(outcome.mean_cost(candidate.milliseconds), 3),
        "of_full_depth": round(macs / candidate.macs[-1], 3),
        "exit_shares": [round(share, 4) for share in outcome.shares(len(candidate.macs))],
    }


def _joined(first: Table, second: Table) -> Table:
    """The exits of both; raises ValueError if the samples differ."""
    if not np.array_equal(first.labels, second.labels):
        raise ValueError("the networks were run on different samples")
    return Table(np.concatenate([first.logits, second.logits]), first.labels)
