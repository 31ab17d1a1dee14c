"""From image files to predictions: decoding, and running a batch through the stages, where each sample
leaves as its policy decides."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from exports.bundle.errors import PolicyError
from exports.bundle.manifest import InputSpec, Manifest
from exports.bundle.policy import Decision, Floats, Measure, Policy
from exports.bundle.reader import Bundle
from offramp.errors import ImageError
from offramp.images import ImageSpec, Pixels
from offramp.images import decode as decode_image
from serving.errors import InvalidImageError, OutOfMemoryError
from serving.inference.runners import Tensor
from serving.inference.sessions import Sessions, open_sessions
from serving.settings import Pool, Provider

Observer = Callable[[int, int, float], None]
# Why a sample left: its policy was satisfied, it was at the deepest exit allowed, or its deadline came. Or
# why it has no label: wherever it left, its confidence is below the policy's `reject_below`.
Reason = Literal["confident", "max_exit", "deadline", "unsure"]


class StageOutput(NamedTuple):
    """The output of stage k for n samples: features [n, C, H, W] of the manifest's `feature_type`, on the
    provider's device, None if no stage takes them; and logits float32 [n, classes] of exit k."""

    features: Tensor | None
    logits: Floats


@dataclass
class Prediction:
    """The answer for one sample: calibrated probabilities float32 [classes], the index of the likeliest
    class, its probability as `confidence`, the exit where it left, from 1, why, and the value there of the
    policy's `measure`. An answer whose reason is unsure has no label; `index` then is for its candidates.
    `logits` float32 [exits that ran, classes] are kept only by an engine that is told to. `first_stage` is
    the stage at which the sample began, from 1."""

    probabilities: Floats
    index: int
    confidence: float
    exit: int
    reason: Reason
    measure: Measure
    measured: float
    logits: Floats | None = None
    first_stage: int = 1

    @property
    def unsure(self) -> bool:
        """Whether the answer has no label."""
        return self.reason == "unsure"


# For each of n samples: whether it leaves, and its prediction if it leaves or if that was requested.
Judgement = tuple[list[bool], list[Prediction | None]]


def ignore(stage: int, batch: int, seconds: float) -> None:
    """An observer that does nothing."""


def decode(content: bytes, spec: InputSpec, max_pixels: int) -> Pixels:
    """The pixels of an image file at the network's input size; raises InvalidImageError and
    OutOfMemoryError."""
    try:
        return decode_image(content, ImageSpec(spec.height, spec.width, spec.resize), max_pixels)
    except ImageError as error:
        raise InvalidImageError(str(error)) from error
    except MemoryError as error:
        raise OutOfMemoryError from error


class Engine:
    """The stages of a bundle, ready to run. It is immutable: any thread may call it."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int = 1,
        provider: Provider = "cpu",
        pool: Pool = "own",
        on_stage: Observer = ignore,
        sessions: Sessions | None = None,
        keep_logits: bool = False,
    ) -> None:
        """`threads` is the number of onnxruntime's threads per stage, from `pool`. `on_stage(stage, batch
        size, seconds)` is called after each stage, in the thread that ran it. `sessions` replaces those of
        `open_sessions`. With `keep_logits` predictions have their logits. Raises what `open_sessions`
        raises.
        """
        sessions = sessions or open_sessions(bundle, threads, provider, pool)
        self.manifest: Manifest = bundle.manifest
        self.provider = sessions.provider
        self.exits = len(bundle.manifest.exits)
        # Up to this stage a sample needs its image.
        self.last_image_stage = max(
            k for k, entry in enumerate(bundle.manifest.exits, 1) if entry.input == "image"
        )
        self._runner = sessions.runner
        self.take = sessions.runner.take
        self.join = sessions.runner.join
        self._scaling = bundle.manifest.scaling
        self._on_stage = on_stage
        self._keep_logits = keep_logits

    def run_stage(self, stage: int, inputs: Tensor) -> StageOutput:
        """Run stage `stage`, from 1, on images uint8 [n, H, W, 3] or on the features [n, C, H, W] of the
        previous stage, as the manifest says."""
        started = time.perf_counter()
        output = self.compute(stage, inputs)
        self._on_stage(stage, len(output.logits), time.perf_counter() - started)
        return output

    def compute(self, stage: int, inputs: Tensor) -> StageOutput:
        """`run_stage` without calling the observer."""
        return StageOutput(*self._runner.run(stage, inputs))

    def first_stage(self, policy: Policy) -> int:
        """The stage at which a sample may begin if only its answer under `policy` is wanted."""
        if self._keep_logits or self.last_image_stage == 1:
            return 1
        return policy.first_stage(self.manifest.inputs)

    def judge(
        self,
        policies: Sequence[Policy],
        stage: int,
        logits: Sequence[Floats],
        requested_rows: Collection[int] = (),
    ) -> Judgement:
        """Decide which of n samples leave at exit `stage`, each by its own policy, from `stage` arrays of
        logits [n, classes], `left_out` for stages that did not run. Rows in `requested_rows` get a
        prediction even if they stay."""
        leaves, predictions = self._judge(policies, stage, logits, requested_rows)
        if self._keep_logits:
            predictions = [
                None if prediction is None else _with_logits(prediction, row, logits)
                for row, prediction in enumerate(predictions)
            ]
        return leaves, predictions

    def _judge(
        self,
        policies: Sequence[Policy],
        stage: int,
        logits: Sequence[Floats],
        requested_rows: Collection[int],
    ) -> Judgement:
        first = policies[0]
        # Without a Python comparison for each: almost always they are one object.
        if policies.count(first) == len(policies):
            if not requested_rows and not first.may_leave(stage):
                return [False] * len(policies), [None] * len(policies)
            return _judge(
                Decision(first, stage, logits, self._scaling), first, stage, requested_rows
            )
        groups: dict[Policy, list[int]] = {}
        for row, policy in enumerate(policies):
            groups.setdefault(policy, []).append(row)
        leaves = [False] * len(policies)
        predictions: list[Prediction | None] = [None] * len(policies)
        for policy, rows in groups.items():
            decision = Decision(policy, stage, [values[rows] for values in logits], self._scaling)
            requested = [at for at, row in enumerate(rows) if row in requested_rows]
            judgement = _judge(decision, policy, stage, requested)
            for row, leaving, prediction in zip(rows, *judgement, strict=True):
                leaves[row], predictions[row] = leaving, prediction
        return leaves, predictions

    def classify(
        self, images: NDArray[np.uint8], policy: Policy | Sequence[Policy]
    ) -> list[Prediction]:
        """Classify images uint8 [N, height, width, 3] under one policy, or under one for each.

        Samples leave separately; the others continue as a smaller batch. Raises PolicyError if a policy is
        for another number of exits, ValueError if shapes or counts do not match.
        """
        policies = [policy] * len(images) if isinstance(policy, Policy) else list(policy)
        if len(policies) != len(images):
            raise ValueError(f"there are {len(images)} images, but {len(policies)} policies")
        self.check(images, [policy] if isinstance(policy, Policy) else set(policies))
        answers: list[Prediction | None] = [None] * len(images)
        waiting = list(range(len(images)))
        inputs: Tensor = images
        first = min(map(self.first_stage, set(policies)), default=1)
        logits = self.left_out(first - 1, len(images))
        for stage in range(first, self.exits + 1):
            if not waiting:
                break
            output = self.run_stage(stage, inputs)
            logits.append(output.logits)
            leaves, predictions = self.judge(policies, stage, logits)
            features = output.features
            if True in leaves:
                for index, prediction in zip(waiting, predictions, strict=True):
                    if prediction is not None:
                        prediction.first_stage = first
                        answers[index] = prediction
                stays = [row for row, leaving in enumerate(leaves) if not leaving]
                waiting = [waiting[row] for row in stays]
                policies = [policies[row] for row in stays]
                logits = [values[stays] for values in logits]
                if waiting and features is not None:
                    features = self.take(features, np.asarray(stays, dtype=np.int64))
            if features is not None:
                inputs = features
            elif len(waiting) == len(images):
                inputs = images
            else:
                inputs = images[waiting]
        return [answer for answer in answers if answer is not None]

    def left_out(self, stages: int, rows: int) -> list[Floats]:
        """Stand-ins for the logits [rows, classes] of `stages` stages that did not run."""
        nothing = np.zeros((rows, len(self.manifest.labels)), dtype=np.float32)
        return [nothing] * stages

    def warm_up(self) -> None:
        """Run every stage once on one sample, so that no request waits for first-run work."""
        spec = self.manifest.input
        image = np.zeros((1, spec.height, spec.width, 3), dtype=np.uint8)
        inputs: Tensor = image
        for stage in range(1, self.exits + 1):
            features = self.compute(stage, inputs).features
            inputs = image if features is None else features

    def check(self, images: NDArray[np.uint8], policies: Iterable[Policy]) -> None:
        """Raise ValueError if `images` do not have the input's shape and type, PolicyError if one of
        `policies` is for another number of exits."""
        spec = self.manifest.input
        if images.dtype != np.uint8 or images.shape[1:] != (spec.height, spec.width, 3):
            raise ValueError(
                f"images must be uint8 [N, {spec.height}, {spec.width}, 3], "
                f"not {images.dtype} {list(images.shape)}"
            )
        for policy in policies:
            self.check_policy(policy)

    def check_policy(self, policy: Policy) -> None:
        """Raise PolicyError if `policy` is for another number of exits."""
        if policy.exits != self.exits:
            raise PolicyError(
                f"The policy is for {policy.exits} exits, but the network has {self.exits}."
            )


def _judge(
    decision: Decision, policy: Policy, stage: int, requested_rows: Collection[int]
) -> Judgement:
    deepest = stage >= policy.max_exit
    # At the deepest exit every sample leaves, as in `decision.leaves`.
    leaves: list[bool]
    leaves = [True] * len(decision.probabilities) if deepest else decision.leaves.tolist()
    if not requested_rows and True not in leaves:
        return leaves, [None] * len(leaves)
    probabilities = decision.probabilities
    # Of all rows at once: a call of numpy costs more than a row.
    indices: list[int] = probabilities.argmax(axis=-1).tolist()
    confidences: list[float] = decision.confidence.tolist()
    measured = confidences
    if policy.measure != "max_prob":
        measured = decision.measured.tolist()
    unsure: Sequence[bool] = () if policy.reject_below is None else decision.unsure.tolist()
    reached: Reason = "max_exit" if deepest else "confident"
    predictions = [
        Prediction(
            probabilities[row],
            indices[row],
            confidences[row],
            stage,
            "unsure" if unsure and unsure[row] else reached,
            policy.measure,
            measured[row],
        )
        if leaving or row in requested_rows
        else None
        for row, leaving in enumerate(leaves)
    ]
    return leaves, predictions


def _with_logits(prediction: Prediction, row: int, logits: Sequence[Floats]) -> Prediction:
    """`prediction` with a copy of row `row` of each of `logits`: the batch's arrays must not be kept."""
    return replace(prediction, logits=np.stack([values[row] for values in logits]))
