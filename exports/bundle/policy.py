"""Policies: when a sample leaves the network, and what the answer is there.

The class `Decision` holds the rule. The engine applies it after each stage to the samples that are
still in the network, exports/tuning/simulation.py to a calibration table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from exports.bundle.certificate import Certificate, PrecisionCertificate
from exports.bundle.errors import PolicyError

Mode = Literal["early_exit", "ensemble", "exit"]
Measure = Literal["max_prob", "margin", "entropy"]
Combine = Literal["running", "single"]
Threshold = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Floats = NDArray[np.float32]
# A measure is at most 1. A threshold above this is above 1 in float32 as well.
SURELY_NEVER = 1.000001


class Policy(BaseModel):
    """When to leave. `thresholds` has one entry for every exit but the last; exits count from 1.

    early_exit: leave at the first exit whose measure reaches its threshold, and at `max_exit` at the
    latest; ensemble: run exits 1..max_exit and answer from their ensemble; exit: answer from exit
    `max_exit` alone. At a threshold of 0 every sample leaves, at one above 1 none does.

    With `reject_below` an answer whose confidence is lower has no label: the network is unsure. It does
    not change where samples leave, and the certificate is about the likeliest class of every sample. The
    precision certificate is about the answers that are left.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Mode = "early_exit"
    measure: Measure = "max_prob"
    combine: Combine = "single"
    thresholds: tuple[Threshold, ...]
    max_exit: Annotated[int, Field(ge=1)]
    reject_below: Probability | None = None
    certificate: Certificate | None = None
    precision_certificate: PrecisionCertificate | None = None

    def __hash__(self) -> int:
        # The engine groups the samples of a batch by policy. Equality still compares the certificates.
        rule = (self.mode, self.measure, self.combine, self.thresholds, self.max_exit)
        return hash((rule, self.reject_below))

    @model_validator(mode="after")
    def _max_exit_exists(self) -> Self:
        if self.max_exit > self.exits:
            raise ValueError(f"max_exit is {self.max_exit}, but there are {self.exits} exits")
        return self

    @model_validator(mode="after")
    def _precision_is_certified_for_this_limit(self) -> Self:
        certificate = self.precision_certificate
        if certificate is not None and certificate.reject_below != self.reject_below:
            raise ValueError(
                f"precision_certificate is for reject_below {certificate.reject_below:g}, "
                f"not {'none' if self.reject_below is None else f'{self.reject_below:g}'}"
            )
        return self

    @property
    def exits(self) -> int:
        """The number of exits of the network this policy is for, K."""
        return len(self.thresholds) + 1

    def may_leave(self, exit_: int) -> bool:
        """Whether a sample can leave at exit `exit_`, from 1, whatever its logits."""
        if exit_ >= self.max_exit:
            return True
        return self.mode == "early_exit" and self.thresholds[exit_ - 1] <= SURELY_NEVER

    @property
    def answers_alone_from(self) -> int:
        """The first exit that can answer a sample, if each answers from its own logits; 1 if a running
        ensemble may answer."""
        if combination(self) == "running":
            return 1
        return next(exit_ for exit_ in range(1, self.max_exit + 1) if self.may_leave(exit_))

    def first_stage(self, inputs: Sequence[str]) -> int:
        """The stage at which a sample may begin if only its answer is wanted: the last that takes the image
        and does not lie behind the first exit that can answer. `inputs` are those of a manifest."""
        answering = inputs[: self.answers_alone_from]
        return max(k for k, taken in enumerate(answering, 1) if taken == "image")

    def costs(self, inputs: Sequence[str], costs: Sequence[float]) -> list[float]:
        """`costs` of leaving at each exit, which add up, without those of stages before `first_stage`."""
        before = (0, *costs)[self.first_stage(inputs) - 1]
        return [max(cost - before, 0) for cost in costs]

    @property
    def without_rejection(self) -> Policy:
        """This policy with a label for every answer; its certificate is that of the labels."""
        return self.model_copy(update={"reject_below": None, "precision_certificate": None})

    def override(
        self,
        mode: Mode | None = None,
        threshold: float | None = None,
        max_exit: int | None = None,
        reject_below: float | None = None,
    ) -> Policy:
        """This policy with the overrides of one request; `threshold` replaces that of every exit.

        Any override drops the certificates, which are only valid for the policy as it was certified.
        Raises PolicyError if a value is out of range.
        """
        if (mode, threshold, max_exit, reject_below) == (None, None, None, None):
            return self
        if max_exit is not None and not 1 <= max_exit <= self.exits:
            raise PolicyError(f"max_exit must be between 1 and {self.exits}, not {max_exit}.")
        if threshold is not None and not (np.isfinite(threshold) and threshold >= 0):
            raise PolicyError(f"threshold must be a number from 0 up, not {threshold}.")
        if reject_below is not None and not 0 <= reject_below <= 1:
            raise PolicyError(f"reject_below must be between 0 and 1, not {reject_below}.")
        thresholds = self.thresholds if threshold is None else (threshold,) * (self.exits - 1)
        return Policy(
            mode=self.mode if mode is None else mode,
            measure=self.measure,
            combine=self.combine,
            thresholds=thresholds,
            max_exit=self.max_exit if max_exit is None else max_exit,
            reject_below=self.reject_below if reject_below is None else reject_below,
        )

    def raised(self, least: Mapping[int, float]) -> Policy:
        """This policy with thresholds of at least `least`, by exit from 1. It has no certificates, which are
        of the thresholds before."""
        thresholds = tuple(
            max(threshold, least.get(exit_, 0.0))
            for exit_, threshold in enumerate(self.thresholds, 1)
        )
        without = {"certificate": None, "precision_certificate": None}
        return self.model_copy(update={"thresholds": thresholds, **without})


@dataclass(frozen=True)
class Scaling:
    """The parameters that calibrate logits, one value of each per exit.

    `temperatures` divide an exit's own logits, `running_temperatures` those of the running ensemble at
    that exit. `weights` are the exits' weights in an ensemble; a running ensemble renormalises them.
    """

    temperatures: tuple[float, ...]
    running_temperatures: tuple[float, ...]
    weights: tuple[float, ...]


class Decision:
    """Applies a policy to n samples at exit k: which leave, their measure, probabilities and confidence,
    and for which the network is unsure. Each sample depends on its own logits alone.

    Values are computed on first use. Samples that stay need no probabilities, and a policy that answers
    from a deeper exit needs nothing here.

    The rule is implemented a second time in two places, which tests hold equal to this class:
    `exports.tuning.search.PolicyEvaluator.evaluate`, vectorised over prepared confidences
    (`test_a_policy_is_evaluated_exactly_as_it_is_simulated` in tests/exports/tuning/test_search.py),
    and `exports.graphs.routed.routed_graph`, as ONNX nodes
    (`test_every_kind_of_policy_answers_as_the_engine` and
    `test_any_thresholds_and_any_batch_even_an_empty_one` in tests/exports/graphs/test_routed.py).
    """

    def __init__(
        self, policy: Policy, exit_: int, logits: Sequence[Floats], scaling: Scaling
    ) -> None:
        """`logits` holds `exit_` arrays [n, C], those of the exits 1..`exit_`."""
        self._policy = policy
        self._exit = exit_
        self._logits = logits
        self._scaling = scaling
        # `functools.cached_property` takes a lock for each before Python 3.12.
        self._exponentials: tuple[Floats, Floats] | None = None
        self._probabilities: Floats | None = None
        self._confidence: Floats | None = None
        self._measured: Floats | None = None

    @property
    def leaves(self) -> NDArray[np.bool_]:
        """Which samples leave here, bool [n]."""
        policy, count = self._policy, len(self._logits[0])
        if self._exit >= policy.max_exit:
            return np.ones(count, dtype=np.bool_)
        if policy.mode != "early_exit":
            return np.zeros(count, dtype=np.bool_)
        # A measure is at most 1, so every larger threshold means never; float32 could overflow.
        threshold = np.float32(min(policy.thresholds[self._exit - 1], 2.0))
        leaves: NDArray[np.bool_] = self.measured >= threshold
        return leaves

    @property
    def measured(self) -> Floats:
        """The policy's measure, which thresholds are compared with, float32 [n] in [0, 1]."""
        if self._policy.measure == "max_prob":
            return self.confidence
        if self._measured is None:
            self._measured = measure_confidence(self.probabilities, self._policy.measure)
        return self._measured

    @property
    def confidence(self) -> Floats:
        """The calibrated probability of the likeliest class, float32 [n]."""
        if self._confidence is None:
            # The numerator of the likeliest class is exp(0).
            self._confidence = np.float32(1) / self._softmax()[1][:, 0]
        return self._confidence

    @property
    def unsure(self) -> NDArray[np.bool_]:
        """Which samples get no label if they are answered here, bool [n]."""
        reject_below = self._policy.reject_below
        if reject_below is None:
            return np.zeros(len(self._logits[0]), dtype=np.bool_)
        unsure: NDArray[np.bool_] = self.confidence < np.float32(reject_below)
        return unsure

    @property
    def probabilities(self) -> Floats:
        """The calibrated probabilities, float32 [n, C]."""
        if self._probabilities is None:
            exponentials, total = self._softmax()
            self._probabilities = exponentials / total
        return self._probabilities

    def _softmax(self) -> tuple[Floats, Floats]:
        if self._exponentials is None:
            combine = combination(self._policy)
            logits = calibrated(self._logits, self._exit, combine, self._scaling)
            self._exponentials = _exponentials(logits)
        return self._exponentials


def combination(policy: Policy) -> Combine:
    """The logits that `policy` answers from; only the mode early_exit has a choice."""
    if policy.mode == "early_exit":
        return policy.combine
    return "running" if policy.mode == "ensemble" else "single"


def calibrated(logits: Sequence[Floats], exit_: int, combine: Combine, scaling: Scaling) -> Floats:
    """The temperature-scaled logits [n, C] at exit `exit_`, its own or the running ensemble's."""
    if combine == "single":
        return logits[exit_ - 1] / np.float32(scaling.temperatures[exit_ - 1])
    mean = running_ensemble(logits, exit_, scaling.weights)
    return mean / np.float32(scaling.running_temperatures[exit_ - 1])


def running_ensemble(logits: Sequence[Floats], exit_: int, weights: Sequence[float]) -> Floats:
    """Weighted mean of the logits of exits 1..exit_: arrays [n, C] -> [n, C]."""
    total: Floats = np.float32(weights[0]) * logits[0]
    for values, weight in zip(logits[1:exit_], weights[1:exit_], strict=True):
        total += np.float32(weight) * values
    total /= np.float32(sum(weights[:exit_]))
    return total


def softmax(logits: Floats) -> Floats:
    """Probabilities over the last axis, float32."""
    exponentials, total = _exponentials(logits)
    probabilities: Floats = exponentials / total
    return probabilities


def _exponentials(logits: Floats) -> tuple[Floats, Floats]:
    """Softmax's numerators [..., C], the largest 1, and denominators [..., 1]."""
    exponentials: Floats = logits - np.maximum.reduce(logits, axis=-1, keepdims=True)
    np.exp(exponentials, out=exponentials)
    return exponentials, np.add.reduce(exponentials, axis=-1, keepdims=True)


def measure_confidence(probabilities: Floats, measure: Measure) -> Floats:
    """A measure of confidence in [0, 1] from probabilities [n, C].

    max_prob: the largest; margin: the largest minus the second; entropy: 1 - H / log C.
    """
    if measure == "max_prob":
        confidence = probabilities.max(axis=-1)
    elif measure == "margin":
        top = np.partition(probabilities, -2, axis=-1)
        confidence = top[..., -1] - top[..., -2]
    else:
        logs = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
        entropy = -(probabilities * logs).sum(axis=-1)
        confidence = 1 - entropy / np.float32(np.log(probabilities.shape[-1]))
    clipped: Floats = np.clip(confidence, 0.0, 1.0).astype(np.float32)
    return clipped
