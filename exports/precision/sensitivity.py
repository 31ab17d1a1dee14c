"""Which nodes lose accuracy in int8, and are better left in float32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from exports.bundle.policy import Floats, running_ensemble
from exports.precision.boundaries import connected
from exports.precision.quantize import Prepared, Scheme, quantize
from exports.stage_runner import StageRunner
from exports.tuning.scaling import fit_weights
from training.data.dataset import Split

Kept = tuple[frozenset[str], ...]
WANTED = 0.1  # points of the ensemble's accuracy that may go without a search
MAX_LOST_POINTS = 0.5  # points that may go without a flag
RANKING_IMAGES = 200
TRIALS = 80


@dataclass(frozen=True)
class Trial:
    """A network of float32 `stages` to be quantised, with this or that left out."""

    stages: tuple[bytes, ...]
    prepared: tuple[Prepared, ...]
    scheme: Scheme
    reduced: bool
    built: dict[tuple[int, frozenset[str]], bytes] = field(default_factory=dict)

    def build(self, kept: Kept) -> tuple[bytes, ...]:
        """The int8 stages with the nodes `kept`, per stage, in float32."""
        return connected([self.stage(k, nodes) for k, nodes in enumerate(kept)])

    def stage(self, k: int, nodes: frozenset[str]) -> bytes:
        """Stage k (0-based); one with every weight in float32 is the float32 stage."""
        if nodes.issuperset(self.prepared[k].weighted):
            return self.stages[k]
        if (k, nodes) not in self.built:
            quantised = quantize(self.prepared[k], self.scheme, nodes, self.reduced)
            self.built[k, nodes] = quantised
        return self.built[k, nodes]


@dataclass(frozen=True)
class Loss:
    """Samples that the ensemble answered rightly before and wrongly now, the other way round, and all."""

    lost: int
    won: int
    samples: int

    @property
    def points(self) -> float:
        """The accuracy lost, in percent points."""
        return 100 * (self.lost - self.won) / self.samples

    @property
    def acceptable(self) -> bool:
        """At most WANTED points, or no more than chance makes of so many changes and at most MAX_LOST_POINTS
        (one-sided sign test at 5 %: McNemar 1947)."""
        chance = 1.645 * (self.lost + self.won) ** 0.5
        return self.points <= WANTED or (
            self.points <= MAX_LOST_POINTS and self.lost - self.won <= chance
        )


def none_kept(stages: Sequence[bytes]) -> Kept:
    """Nothing stays in float32."""
    return (frozenset(),) * len(stages)


def keep_sensitive(
    trial: Trial, held_out: Split, exact: Floats, say: Callable[[str], None]
) -> Kept:
    """The nodes to leave in float32 so that the ensemble's loss on `held_out` is acceptable.

    `exact` are the float32 logits [K, N, C] of `held_out`. None if nothing needs to be kept. Otherwise
    stages, and in them nodes, are tried in the order of how much nearer the logits come when they alone
    stay in float32; the best choice seen is taken once TRIALS nodes have been tried.
    """
    kept = best = none_kept(trial.stages)
    least = _loss(trial.build(best), held_out, exact)
    if least.acceptable:
        return best
    say(f"all of it in int8 costs the ensemble {least.points:.2f} points; looking for what to keep")
    tried = 0
    sample = slice(None, None, max(1, len(held_out) // RANKING_IMAGES))
    images, meant = held_out.images[sample], exact[:, sample]
    for k in _stages_by_gain(trial, images, meant):
        ranked = _nodes_by_gain(trial, kept, k, images, meant)
        tried += len(ranked)
        for count in _doubling(len(ranked)):
            kept = _with(kept, k, frozenset(ranked[:count]))
            loss = _loss(trial.build(kept), held_out, exact)
            if loss.points < least.points:
                best, least = kept, loss
            if least.acceptable:
                break
        if least.acceptable or tried >= TRIALS:
            break
    nodes = sum(len(names) for names in best)
    say(f"with {nodes} nodes left in float32 the ensemble loses {least.points:.2f} points")
    return best


def _stages_by_gain(trial: Trial, images: NDArray[np.uint8], meant: Floats) -> list[int]:
    """Stages (0-based), the one first that matters most when it alone stays in float32."""
    count = len(trial.stages)
    whole = [frozenset(prepared.weighted) for prepared in trial.prepared]
    none = none_kept(trial.stages)
    errors = [_error(trial, _with(none, k, whole[k]), images, meant) for k in range(count)]
    return sorted(range(count), key=lambda k: errors[k])


def _nodes_by_gain(
    trial: Trial, kept: Kept, k: int, images: NDArray[np.uint8], meant: Floats
) -> list[str]:
    """The nodes of stage k (0-based) that hold weights, the one first that matters most."""
    nodes = trial.prepared[k].weighted
    errors = {n: _error(trial, _with(kept, k, frozenset({n})), images, meant) for n in nodes}
    return sorted(nodes, key=lambda node: errors[node])


def _error(trial: Trial, kept: Kept, images: NDArray[np.uint8], meant: Floats) -> float:
    """Mean squared difference of all exits' logits from the float32 network's `meant`."""
    return float(np.square(StageRunner(trial.build(kept)).logits(images) - meant).mean())


def _loss(stages: Sequence[bytes], split: Split, exact: Floats) -> Loss:
    """What the ensemble of `stages` loses against float32 logits `exact`, each with its own weights."""
    before = _right(exact, split)
    now = _right(StageRunner(stages).logits(split.images), split)
    return Loss(int((before & ~now).sum()), int((now & ~before).sum()), len(split))


def _right(logits: Floats, split: Split) -> NDArray[np.bool_]:
    """Whose class the ensemble finds, with weights fitted on the same samples, as exported."""
    mixed = running_ensemble(list(logits), len(logits), fit_weights(logits, split.labels))
    right: NDArray[np.bool_] = mixed.argmax(axis=1) == split.labels
    return right


def _with(kept: Kept, k: int, nodes: frozenset[str]) -> Kept:
    return (*kept[:k], nodes, *kept[k + 1 :])


def _doubling(most: int) -> list[int]:
    counts = [1 << power for power in range(most.bit_length()) if 1 << power < most]
    return [*counts, most]
