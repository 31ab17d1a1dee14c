"""Conversion of float32 stages to int8 or float16, and its cost in accuracy."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from exports.bundle.manifest import Conversion
from exports.evaluation_data import EvaluationData
from exports.measure import Measurement, measure
from exports.options import Int8Target, Precision
from exports.precision.boundaries import connect_stages
from exports.precision.quantize import (
    Prepared,
    Scheme,
    prepare_all,
    quantize,
    to_float16,
)
from exports.precision.sensitivity import (
    MAX_LOST_POINTS,
    MIN_LOST_ANSWERS,
    StageQuantizer,
    keep_sensitive,
    none_kept,
)
from exports.spread import evenly_spread
from exports.stage_runner import StageRunner
from exports.tuning.certificate import divide

CALIBRATION_IMAGES = 256
# onnxruntime's kernels are fastest with u8s8 on nearly every machine. The other scheme must win by more
# than the noise of a measurement, or two exports on one machine could differ.
MIN_SPEED_UP = 1.15
TIMED_ROUNDS = 30


@dataclass(frozen=True)
class Converted:
    """Stages below float32 to serve, the record of the conversion for the manifest, and their
    measurement."""

    stages: tuple[bytes, ...]
    conversion: Conversion
    measurement: Measurement


def convert(
    stages: Sequence[bytes],
    before: Measurement,
    data: EvaluationData,
    precision: Precision,
    target: Int8Target,
    say: Callable[[str], None],
    served: Sequence[bytes] | None = None,
) -> Converted:
    """Convert the float32 `stages`, measured as `before`, to int8 or fp16.

    For int8, the images of the held-out split that are chosen on determine the activations' ranges. Nodes
    stay in float32 if the ensemble's accuracy on them requires it. If others are `served`, stages of
    the same networks trained on the held-out split too, these are converted in the same way.
    """
    scheme: Scheme | None = None
    images, kept = 0, none_kept(stages)
    converted_served: tuple[bytes, ...] | None = None
    if precision == "fp16":
        converted = tuple(to_float16(stage) for stage in stages)
        if served is not None:
            converted_served = tuple(to_float16(stage) for stage in served)
    else:
        # Not the others: a policy will be certified on them.
        first, _ = divide(len(data.held_out))
        held_out, float_logits = data.held_out.take(first), before.held_out.take(first).logits
        calibration = held_out.images[evenly_spread(len(held_out), CALIBRATION_IMAGES)]
        images = len(calibration)
        say(f"calibrating {len(stages)} stages on {images} held-out images")
        prepared = prepare_all(stages, calibration)
        scheme = _faster(prepared, calibration[0], say) if target == "auto" else target
        quantizer = StageQuantizer(tuple(stages), prepared, scheme)
        kept = keep_sensitive(quantizer, held_out, float_logits, say)
        converted = quantizer.build(kept)
        if served is not None:
            alike = StageQuantizer(tuple(served), prepare_all(served, calibration), scheme)
            converted_served = alike.build(kept)
    after = measure(converted, data, converted_served)
    same = before.test.logits.argmax(axis=2) == after.test.logits.argmax(axis=2)
    conversion = Conversion(
        scheme=scheme,
        images=images,
        kept=tuple(f"stage{k}/{node}" for k, nodes in enumerate(kept, 1) for node in sorted(nodes)),
        held_out=before.accuracies(before.held_out),
        test=before.accuracies(before.test),
        agreement=tuple(round(100 * float(share), 2) for share in same.mean(axis=1)),
    )
    return Converted(converted_served or converted, conversion, after)


def loss(precision: Precision, converted: Converted) -> str | None:
    """What is lost in words, if the ensemble lost more than MAX_LOST_POINTS points on the held-out split,
    and at least MIN_LOST_ANSWERS answers."""
    after = converted.measurement
    lost = converted.conversion.held_out[-1].running - after.accuracies(after.held_out)[-1].running
    answers = round(lost / 100 * len(after.held_out.labels))
    if lost <= MAX_LOST_POINTS or answers < MIN_LOST_ANSWERS:
        return None
    return (
        f"{precision} costs the ensemble {lost:.2f} points of accuracy on the held-out split, more "
        f"than {MAX_LOST_POINTS}"
    )


def comparison(precision: Precision, converted: Converted) -> str:
    """The accuracy of every exit on the test split before and after, as a text table."""
    before = converted.conversion.test
    after = converted.measurement.accuracies(converted.measurement.test)
    rows = [f"{'test accuracy, %':18}{'fp32':>8}{precision:>8}{'same class':>12}"]
    for k, same in enumerate(converted.conversion.agreement):
        rows.append(
            f"{f'exit {k + 1}':18}{before[k].single:8.2f}{after[k].single:8.2f}{same:12.2f}"
        )
    rows.append(f"{'ensemble':18}{before[-1].running:8.2f}{after[-1].running:8.2f}")
    return "\n".join(rows)


def _faster(
    prepared: Sequence[Prepared],
    image: NDArray[np.uint8],
    say: Callable[[str], None],
) -> Scheme:
    """The scheme whose stages are faster on this machine, for one image on one thread, timed
    alternately."""
    runners = {
        scheme: StageRunner(connect_stages([quantize(stage, scheme) for stage in prepared]), 1)
        for scheme in get_args(Scheme)
    }
    times: dict[Scheme, list[float]] = {scheme: [] for scheme in runners}
    for _ in range(TIMED_ROUNDS):
        for scheme, runner in runners.items():
            runner.logits(image[None])
            start = time.perf_counter()
            runner.logits(image[None])
            times[scheme].append(1e3 * (time.perf_counter() - start))
    medians = {scheme: statistics.median(values) for scheme, values in times.items()}
    faster: Scheme = "s8s8" if medians["s8s8"] * MIN_SPEED_UP < medians["u8s8"] else "u8s8"
    measured = ", ".join(f"{scheme} {ms:.2f} ms" for scheme, ms in medians.items())
    say(f"time of one image on one thread of this machine: {measured}; using {faster}")
    return faster
