"""From float32 stages to int8 or float16 ones, and what that cost in accuracy."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from exports.bundle.errors import ExportError
from exports.bundle.manifest import Conversion, Precision
from exports.measure import Measured, measure
from exports.precision.boundaries import connected
from exports.precision.quantize import Prepared, Scheme, halve, prepare_all, quantize, saturates
from exports.precision.sensitivity import MAX_LOST_POINTS, Trial, keep_sensitive, none_kept
from exports.source import Data
from exports.stage_runner import StageRunner
from exports.tuning.certificate import halves

Target = Literal["auto", "u8s8", "s8s8"]
CALIBRATION_IMAGES = 256
# u8s8 is what onnxruntime's kernels are best at nearly everywhere; a scheme that is no faster than the
# machine's noise must not make two exports differ.
CLEARLY_FASTER = 1.15
REPEATS = 30


@dataclass(frozen=True)
class Converted:
    """Stages below float32, how they were made (as the manifest's Conversion), what they answer."""

    stages: tuple[bytes, ...]
    record: Conversion
    measured: Measured


def convert(
    stages: Sequence[bytes],
    before: Measured,
    data: Data,
    precision: Precision,
    target: Target,
    say: Callable[[str], None],
) -> Converted:
    """The float32 `stages`, which were `measured`, in int8 or fp16.

    For int8, images of the held-out split's first half set the activations' ranges, and nodes stay in
    float32 where that is what the ensemble's accuracy there needs.
    """
    scheme: Scheme | None = None
    images, kept = 0, none_kept(stages)
    if precision == "fp16":
        made = tuple(halve(stage) for stage in stages)
    else:
        # What a policy will be certified on has no part in how the network is quantised.
        first, _ = halves(len(data.held_out))
        held_out, exact = data.held_out.take(first), before.held_out.take(first).logits
        chosen = held_out.images[_spread(len(held_out), CALIBRATION_IMAGES)]
        images = len(chosen)
        say(f"calibrating {len(stages)} stages on {images} held-out images")
        prepared = prepare_all(stages, chosen)
        reduced = saturates()
        scheme = _faster(prepared, reduced, chosen[0], say) if target == "auto" else target
        trial = Trial(tuple(stages), prepared, scheme, reduced)
        kept = keep_sensitive(trial, held_out, exact, say)
        made = trial.build(kept)
    after = measure(made, data)
    same = before.test.logits.argmax(axis=2) == after.test.logits.argmax(axis=2)
    record = Conversion(
        scheme=scheme,
        images=images,
        kept=tuple(f"stage{k}/{node}" for k, nodes in enumerate(kept, 1) for node in sorted(nodes)),
        held_out=before.accuracies(before.held_out),
        test=before.accuracies(before.test),
        agreement=tuple(round(100 * float(share), 2) for share in same.mean(axis=1)),
    )
    return Converted(made, record, after)


def check_loss(precision: Precision, converted: Converted) -> None:
    """Raise ExportError if the ensemble lost more than MAX_LOST_POINTS points on the held-out split."""
    after = converted.measured
    lost = converted.record.held_out[-1].running - after.accuracies(after.held_out)[-1].running
    if lost > MAX_LOST_POINTS:
        raise ExportError(
            f"{precision} costs the ensemble {lost:.2f} points of accuracy on the held-out split, more "
            f"than {MAX_LOST_POINTS}; no bundle was written (--allow-loss writes it all the same)."
        )


def comparison(precision: Precision, converted: Converted) -> str:
    """Accuracy of every exit on the test split before and after, as a table of text."""
    before, after = converted.record.test, converted.measured
    now = after.accuracies(after.test)
    rows = [f"{'test accuracy, %':18}{'fp32':>8}{precision:>8}{'same class':>12}"]
    for k, same in enumerate(converted.record.agreement):
        rows.append(f"{f'exit {k + 1}':18}{before[k].single:8.2f}{now[k].single:8.2f}{same:12.2f}")
    rows.append(f"{'ensemble':18}{before[-1].running:8.2f}{now[-1].running:8.2f}")
    return "\n".join(rows)


def _spread(samples: int, wanted: int) -> NDArray[np.int64]:
    """At most `wanted` of the indices 0..samples-1, evenly spread."""
    return np.unique(np.linspace(0, samples - 1, min(samples, wanted)).astype(np.int64))


def _faster(
    prepared: Sequence[Prepared],
    reduced: bool,
    image: NDArray[np.uint8],
    say: Callable[[str], None],
) -> Scheme:
    """The scheme whose stages take less time on this machine: one image, one thread, in turns."""
    runners = {
        scheme: StageRunner(
            connected([quantize(stage, scheme, reduced=reduced) for stage in prepared]), 1
        )
        for scheme in get_args(Scheme)
    }
    seen: dict[Scheme, list[float]] = {scheme: [] for scheme in runners}
    for _ in range(REPEATS):
        for scheme, runner in runners.items():
            runner.logits(image[None])
            began = time.perf_counter()
            runner.logits(image[None])
            seen[scheme].append(1e3 * (time.perf_counter() - began))
    took = {scheme: statistics.median(times) for scheme, times in seen.items()}
    chosen: Scheme = "s8s8" if took["s8s8"] * CLEARLY_FASTER < took["u8s8"] else "u8s8"
    figures = ", ".join(f"{scheme} {ms:.2f} ms" for scheme, ms in took.items())
    say(f"an image takes, here, on one thread: {figures}; {chosen} it is")
    return chosen
