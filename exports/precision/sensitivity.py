"""Finds the nodes that lose accuracy in int8 and should stay in float32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from exports.bundle.policy import Floats, running_ensemble
from exports.precision.boundaries import connect_stages
from exports.precision.quantize import Prepared, Scheme, quantize
from exports.stage_runner import StageRunner
from exports.tuning.scaling import fit_weights
from training.data.dataset import Split

Kept = tuple[frozenset[str], ...]
TARGET_LOST_POINTS = 0.1  # loss of the ensemble's accuracy below which no search is needed
MAX_LOST_POINTS = 0.5  # loss above which an export needs --allow-loss
# Fewer answers lost than this are chance: on 60 samples a single one is 1.7 points.
MIN_LOST_ANSWERS = 3
RANKING_IMAGES = 500
MAX_NODES_TRIED = 80


@dataclass(frozen=True)
class StageQuantizer:
    """Quantises the float32 `stages` of a network, except for chosen nodes; caches every result."""

    stages: tuple[bytes, ...]
    prepared: tuple[Prepared, ...]
    scheme: Scheme
    cache: dict[tuple[int, frozenset[str]], bytes] = field(default_factory=dict)

    def build(self, kept: Kept) -> tuple[bytes, ...]:
        """The int8 stages, with the nodes `kept` of every stage in float32."""
        return connect_stages([self.stage(k, nodes) for k, nodes in enumerate(kept)])

    def stage(self, k: int, nodes: frozenset[str]) -> bytes:
        """Stage k (0-based) with `nodes` in float32; if these are all with weights, the float32 stage."""
        if nodes.issuperset(self.prepared[k].weighted):
            return self.stages[k]
        if (k, nodes) not in self.cache:
            quantised = quantize(self.prepared[k], self.scheme, nodes)
            self.cache[k, nodes] = quantised
        return self.cache[k, nodes]


@dataclass(frozen=True)
class Loss:
    """The samples that the ensemble classified correctly only before (`lost`) or only after (`won`), and
    the number of all samples."""

    lost: int
    won: int
    samples: int

    @property
    def points(self) -> float:
        """The accuracy lost, in percentage points."""
        return 100 * (self.lost - self.won) / self.samples

    @property
    def acceptable(self) -> bool:
        """Whether the loss is below MIN_LOST_ANSWERS, at most TARGET_LOST_POINTS, or at most MAX_LOST_POINTS
        and not significant (one-sided sign test at 5 %: McNemar 1947)."""
        net, limit = self.lost - self.won, 1.645 * (self.lost + self.won) ** 0.5
        return (
            net < MIN_LOST_ANSWERS
            or self.points <= TARGET_LOST_POINTS
            or (self.points <= MAX_LOST_POINTS and net <= limit)
        )


def none_kept(stages: Sequence[bytes]) -> Kept:
    """No node stays in float32."""
    return (frozenset(),) * len(stages)


def keep_sensitive(
    quantizer: StageQuantizer, held_out: Split, float_logits: Floats, say: Callable[[str], None]
) -> Kept:
    """The nodes to keep in float32 so that the ensemble's loss on `held_out` is acceptable.

    `float_logits` [K, N, C] are the float32 logits of `held_out`. No node is kept if that is
    acceptable. Otherwise stages, and the nodes in them, are tried in order of the error that remains
    if they alone stay in float32, the smallest first. After MAX_NODES_TRIED nodes the best choice so
    far is returned.
    """
    kept = best = none_kept(quantizer.stages)
    best_loss = _loss(quantizer.build(best), held_out, float_logits)
    if best_loss.acceptable:
        return best
    say(
        f"int8 costs the ensemble {best_loss.points:.2f} points; searching for nodes to keep in float32"
    )
    tried = 0
    sample = slice(None, None, max(1, len(held_out) // RANKING_IMAGES))
    images, expected = held_out.images[sample], float_logits[:, sample]
    for k in _ranked_stages(quantizer, images, expected):
        nodes = _ranked_nodes(quantizer, kept, k, images, expected)
        tried += len(nodes)
        for count in _doubling(len(nodes)):
            kept = _with(kept, k, frozenset(nodes[:count]))
            loss = _loss(quantizer.build(kept), held_out, float_logits)
            if loss.points < best_loss.points:
                best, best_loss = kept, loss
            if best_loss.acceptable:
                break
        if best_loss.acceptable or tried >= MAX_NODES_TRIED:
            break
    count = sum(len(names) for names in best)
    say(f"with {count} nodes left in float32 the ensemble loses {best_loss.points:.2f} points")
    return best


def _ranked_stages(
    quantizer: StageQuantizer, images: NDArray[np.uint8], expected: Floats
) -> list[int]:
    """The stages (0-based) by the error that remains if one alone stays in float32, smallest first."""
    stages = range(len(quantizer.stages))
    none = none_kept(quantizer.stages)

    def error(k: int) -> float:
        kept = _with(none, k, frozenset(quantizer.prepared[k].weighted))
        return _error(quantizer, kept, images, expected)

    return sorted(stages, key=error)


def _ranked_nodes(
    quantizer: StageQuantizer, kept: Kept, k: int, images: NDArray[np.uint8], expected: Floats
) -> list[str]:
    """The nodes with weights of stage k (0-based), in the same order."""

    def error(node: str) -> float:
        return _error(quantizer, _with(kept, k, frozenset({node})), images, expected)

    return sorted(quantizer.prepared[k].weighted, key=error)


def _error(
    quantizer: StageQuantizer, kept: Kept, images: NDArray[np.uint8], expected: Floats
) -> float:
    """The mean squared difference of all exits' logits from the float32 logits `expected`."""
    logits = StageRunner(quantizer.build(kept)).logits(images)
    return float(np.square(logits - expected).mean())


def _loss(stages: Sequence[bytes], split: Split, float_logits: Floats) -> Loss:
    """The ensemble of `stages` compared with that of the float32 logits, each with its own weights."""
    before = _ensemble_correct(float_logits, split)
    after = _ensemble_correct(StageRunner(stages).logits(split.images), split)
    return Loss(int((before & ~after).sum()), int((after & ~before).sum()), len(split))


def _ensemble_correct(logits: Floats, split: Split) -> NDArray[np.bool_]:
    """For which samples the ensemble is correct, with weights fitted on the same samples, as exported."""
    mean = running_ensemble(list(logits), len(logits), fit_weights(logits, split.labels))
    correct: NDArray[np.bool_] = mean.argmax(axis=1) == split.labels
    return correct


def _with(kept: Kept, k: int, nodes: frozenset[str]) -> Kept:
    return (*kept[:k], nodes, *kept[k + 1 :])


def _doubling(most: int) -> list[int]:
    counts = [1 << power for power in range(most.bit_length()) if 1 << power < most]
    return [*counts, most]
