"""Requests for images of a set, in random order, and the shadow checks of a server that answers them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exports.bundle.policy import Decision, Floats, Policy, Scaling
from exports.tuning.search import full_depth
from exports.tuning.simulation import simulate
from serving.scheduling.options import ShadowResult
from serving.shadow.checks import PolicyCheck, Raise

# Requests between two looks of the guard: half a second at a hundred requests a second.
LOOK = 50
BLOCK = 20 * LOOK


@dataclass(frozen=True)
class Exits:
    """What each exit says of N images: the policy's measure float32 [K, N], and whether its class is that of
    the ensemble of all exits, bool [K, N]."""

    measured: Floats
    agrees: NDArray[np.bool_]

    @classmethod
    def of_logits(cls, logits: Floats, policy: Policy, scaling: Scaling) -> Exits:
        """Those of `logits` [K, N, C]."""
        deepest = simulate(full_depth(policy.exits), logits, scaling).predictions
        measured, agrees = [], []
        for exit_ in range(1, policy.exits + 1):
            decision = Decision(policy, exit_, list(logits[:exit_]), scaling)
            measured.append(decision.measured)
            agrees.append(decision.probabilities.argmax(axis=-1) == deepest)
        return cls(np.stack(measured), np.stack(agrees))

    def left_at(self, index: NDArray[np.int64], thresholds: list[float]) -> NDArray[np.int64]:
        """The exits, from 1, where the images at `index` leave; `thresholds` are of all but the last."""
        found = np.full(len(index), len(thresholds) + 1)
        for exit_ in range(len(thresholds), 0, -1):
            leaves = self.measured[exit_ - 1, index] >= np.float32(thresholds[exit_ - 1])
            found[leaves] = exit_
        return found


def raises_of(
    exits: Exits,
    check: PolicyCheck,
    thresholds: list[float],
    share: float,
    requests: int,
    seed: int,
) -> Iterator[tuple[int, list[Raise]]]:
    """The raises of a server under `thresholds` that gets `requests` requests, with their number until each.

    The share `share` of the images that leave early are shadows. `thresholds` are raised in place.
    """
    rng = np.random.default_rng(seed)
    images = exits.measured.shape[1]
    for before in range(0, requests, BLOCK):
        index = rng.integers(0, images, BLOCK)
        chosen = rng.random(BLOCK) < share
        start = 0
        while start < BLOCK:
            left = exits.left_at(index, thresholds)
            early = np.flatnonzero(chosen & (left <= len(thresholds)))
            shadows = early[early >= start].tolist()
            start = BLOCK
            for place, following in zip(shadows, [*shadows[1:], BLOCK], strict=False):
                at = left[place] - 1, index[place]
                measured, agrees = float(exits.measured[at]), bool(exits.agrees[at])
                check.add(ShadowResult(int(left[place]), measured, agrees))
                if following // LOOK == place // LOOK:
                    continue
                raises = check.needed_raises()
                if raises:
                    check.apply(raises)
                    for one in raises:
                        thresholds[one.exit_ - 1] = one.after
                    start = (place // LOOK + 1) * LOOK
                    yield before + start, raises
                    break


def replayed(
    parts: Sequence[tuple[Exits, NDArray[np.int64]]], check: PolicyCheck, thresholds: list[float]
) -> int | None:
    """The requests until the first raise if the images of `parts` come in this order, and every early answer
    is checked; None if there is none."""
    done = 0
    for exits, index in parts:
        left = exits.left_at(index, thresholds)
        for image, exit_ in zip(index.tolist(), left.tolist(), strict=True):
            done += 1
            if exit_ <= len(thresholds):
                at = exit_ - 1, image
                measured, agrees = float(exits.measured[at]), bool(exits.agrees[at])
                check.add(ShadowResult(exit_, measured, agrees))
            if check.needed_raises():
                return done
    return None
