"""Running a batch through the stages, letting each sample out where its policy says. No HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exports.bundle import Bundle, Manifest, stage_input
from exports.errors import PolicyError
from exports.policy import Decision, Floats, Policy, decide
from serving.sessions import open_sessions
from serving.settings import Provider

Observer = Callable[[int, int, float], None]


@dataclass(frozen=True)
class StageOutput:
    """What stage k gives for n samples: features float32 [n, C, H, W], None after the last stage,
    and logits float32 [n, classes] of exit k."""

    features: Floats | None
    logits: Floats


@dataclass(frozen=True)
class Prediction:
    """One sample's answer: probabilities float32 [classes], the best class's index, the confidence
    that the policy measured, and the exit it left at, from 1."""

    probabilities: Floats
    index: int
    confidence: float
    exit: int


def _ignore(stage: int, batch: int, seconds: float) -> None:
    """The observer of an engine that nobody watches."""


class Engine:
    """A bundle's stages, ready to run. Holds nothing that changes: any thread may call it."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int = 1,
        provider: Provider = "cpu",
        on_stage: Observer = _ignore,
    ) -> None:
        """`threads` is onnxruntime's, per stage; `on_stage(stage, batch size, seconds)` is called
        after each stage, in the thread that ran it. Raises what `open_sessions` raises.
        """
        sessions = open_sessions(bundle, threads, provider)
        self.manifest: Manifest = bundle.manifest
        self.provider = sessions.provider
        self._stages = sessions.stages
        self._scaling = bundle.manifest.scaling
        self._on_stage = on_stage

    @property
    def exits(self) -> int:
        """The number of exits, K."""
        return len(self._stages)

    def run_stage(self, stage: int, inputs: NDArray[Any]) -> StageOutput:
        """Run stage `stage` (1-based) on images uint8 [n, H, W, 3], for stage 1, or on the features
        float32 [n, C, H, W] that the stage before gave."""
        started = time.perf_counter()
        output = self._run(stage, inputs)
        self._on_stage(stage, len(inputs), time.perf_counter() - started)
        return output

    def decide(self, policies: Sequence[Policy], stage: int, logits: Sequence[Floats]) -> Decision:
        """Judge n samples at exit `stage`, each by its own policy, from `stage` arrays of logits
        [n, classes]."""
        groups: dict[Policy, list[int]] = {}
        for row, policy in enumerate(policies):
            groups.setdefault(policy, []).append(row)
        if len(groups) == 1:
            return decide(policies[0], stage, logits, self._scaling)
        probabilities = np.empty_like(logits[0])
        confidence = np.empty(len(policies), dtype=np.float32)
        leaves = np.empty(len(policies), dtype=np.bool_)
        for policy, rows in groups.items():
            own = decide(policy, stage, [values[rows] for values in logits], self._scaling)
            probabilities[rows], confidence[rows] = own.probabilities, own.confidence
            leaves[rows] = own.leaves
        return Decision(probabilities, confidence, leaves)

    def classify(
        self, images: NDArray[np.uint8], policy: Policy | Sequence[Policy]
    ) -> list[Prediction]:
        """Classify images uint8 [N, height, width, 3] under one policy, or under one each.

        Samples leave separately; the rest goes on as a smaller batch. Raises PolicyError if a
        policy is for another number of exits, ValueError if shapes or counts do not fit.
        """
        policies = [policy] * len(images) if isinstance(policy, Policy) else list(policy)
        self._check(images, policies)
        found: list[Prediction | None] = [None] * len(images)
        waiting = np.arange(len(images))
        inputs: NDArray[Any] = images
        logits: list[Floats] = []
        for stage in range(1, self.exits + 1):
            if len(waiting) == 0:
                break
            output = self.run_stage(stage, inputs)
            logits.append(output.logits)
            decision = self.decide([policies[i] for i in waiting], stage, logits)
            for row in np.flatnonzero(decision.leaves):
                found[int(waiting[row])] = _prediction(decision, int(row), stage)
            stays = ~decision.leaves
            if output.features is not None:
                whole = bool(stays.all())
                inputs = output.features if whole else output.features[stays]
                logits = logits if whole else [values[stays] for values in logits]
            waiting = waiting[stays]
        return [prediction for prediction in found if prediction is not None]

    def warm_up(self) -> None:
        """Run every stage once on one sample, so that no request pays for first-run work."""
        spec = self.manifest.input
        inputs: NDArray[Any] = np.zeros((1, spec.height, spec.width, 3), dtype=np.uint8)
        for stage in range(1, self.exits + 1):
            output = self._run(stage, inputs)
            inputs = inputs if output.features is None else output.features

    def _run(self, stage: int, inputs: NDArray[Any]) -> StageOutput:
        outputs = self._stages[stage - 1].run(None, {stage_input(stage): inputs})
        return StageOutput(outputs[0] if len(outputs) == 2 else None, outputs[-1])

    def _check(self, images: NDArray[np.uint8], policies: Sequence[Policy]) -> None:
        spec = self.manifest.input
        if images.dtype != np.uint8 or images.shape[1:] != (spec.height, spec.width, 3):
            raise ValueError(
                f"images must be uint8 [N, {spec.height}, {spec.width}, 3], "
                f"not {images.dtype} {list(images.shape)}"
            )
        if len(policies) != len(images):
            raise ValueError(f"there are {len(images)} images, but {len(policies)} policies")
        for policy in set(policies):
            if policy.exits != self.exits:
                raise PolicyError(
                    f"The policy is for {policy.exits} exits, but the network has {self.exits}."
                )


def _prediction(decision: Decision, row: int, stage: int) -> Prediction:
    probabilities = decision.probabilities[row]
    return Prediction(
        probabilities, int(probabilities.argmax()), float(decision.confidence[row]), stage
    )
