"""Whether labelled images are like the others: feedback often comes for mistakes only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exports.bundle.policy import Floats, Scaling, calibrated

# Fewer images on either side show no difference.
MIN_COMPARED = 30
# Means are different if they are further apart than so many standard errors: by chance 3 in 1,000 times.
STANDARD_ERRORS = 3.0


@dataclass(frozen=True)
class Comparison:
    """The result in a sentence; `alike` is false if the labelled images differ by more than noise."""

    alike: bool
    sentence: str


def compare(labelled: Sequence[Floats], others: Sequence[Floats], scaling: Scaling) -> Comparison:
    """Compare how often the early exits of `labelled` images agree with the ensemble with how often those of
    `others` do; each has the logits [K, C] of one image.

    Welch's statistic of two means. Raises nothing: too few images are alike, and the sentence says so.
    """
    if min(len(labelled), len(others)) < MIN_COMPARED or len(labelled[0]) < 2:
        return Comparison(True, "Too few images without a label are known to check that.")
    first, second = (_agreement(np.stack(each, axis=1), scaling) for each in (labelled, others))
    error = (first.var() / len(first) + second.var() / len(second)) ** 0.5
    apart = abs(float(first.mean() - second.mean()))
    shares = (
        f"early exits agree with the ensemble on {100 * first.mean():.1f} % of them, and on "
        f"{100 * second.mean():.1f} % of {len(second):,} others"
    )
    if apart <= STANDARD_ERRORS * error:
        return Comparison(True, f"No difference was found: {shares}.")
    return Comparison(
        False,
        f"WARNING: they are not a random selection, since {shares}. If feedback comes mostly for mistakes, "
        "the network looks worse than it is. Label images that are chosen at random.",
    )


def _agreement(logits: Floats, scaling: Scaling) -> NDArray[np.float64]:
    """For each of N samples with the logits [K, N, C] the share of the running ensembles before the last
    whose class is the last one's, float64 [N]."""
    rows, exits = list(logits), range(1, len(logits) + 1)
    answers = [calibrated(rows, k, "running", scaling).argmax(axis=-1) for k in exits]
    early = np.stack(answers[:-1]) == answers[-1]
    share: NDArray[np.float64] = early.mean(axis=0, dtype=np.float64)
    return share
