"""The certificate in a policy: what it promises, and from which samples the promise follows."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from exports.bundle.schema_types import Percent, Sha256, Share

Target = Literal["labels", "agreement"]
# Whose answers stand for labels under the target `agreement`, with the words for them.
Reference = Literal["last", "ensemble"]
REFERENCE_NAMES: dict[Reference, str] = {"last": "last network", "ensemble": "ensemble"}
CertificateMethod = Literal["exact-score", "exact-trinomial", "clopper-pearson"]
Confidence = Annotated[float, Field(gt=0.5, lt=1)]
Count = Annotated[int, Field(ge=1)]


class Certificate(BaseModel):
    """What a policy promises: with probability `confidence` over the samples drawn, its accuracy on new
    samples is at most `permitted_drop` percentage points below that of `against`.

    The policy was chosen on `chosen_on` samples and certified on `samples` others, which
    `split_sha256` identifies (`exports.tuning.certificate.split_sha256`). `bound` is the upper
    confidence limit of this policy's drop in points, at most `permitted_drop`; the promise is
    `permitted_drop`. Under the target `agreement` the samples had no labels, and the drop is the share
    of answers that are not the ensemble's. docs/guide/tuning.md describes the method.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: CertificateMethod
    against: Literal["ensemble"] = "ensemble"
    permitted_drop: Percent
    confidence: Confidence
    bound: Percent
    chosen_on: Count
    samples: Count
    split_sha256: Sha256
    target: Target

    @property
    def sentence(self) -> str:
        """The promise in words."""
        drop = f"{self.permitted_drop:g}"
        if self.target == "labels":
            promise = f"the accuracy is at most {drop} points below the {self.against}'s"
        else:
            promise = f"at most {drop} % of the answers are not the {self.against}'s"
        return (
            f"With probability {100 * self.confidence:g} %, {promise} on new images of the kind it was "
            f"certified on (chosen on {self.chosen_on:,} samples, certified on {self.samples:,} others by "
            f"{self.method}, upper limit {self.bound:.2f}). It says nothing about the accuracy of the "
            f"{self.against} itself, which can be lower on other images."
        )


class PrecisionCertificate(BaseModel):
    """What a policy with `reject_below` promises: with probability `confidence` over the samples drawn, at
    least the share `min_precision` of the answers that it gives on new samples is right.

    Policy and `reject_below` were chosen on `chosen_on` samples and certified on `samples` others, which
    `split_sha256` identifies, as in Certificate; `answered` of these reach `reject_below`. `bound` is the
    lower confidence limit of the policy's precision, at least `min_precision`, which is the promise.
    Shares are between 0 and 1.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Literal["clopper-pearson"] = "clopper-pearson"
    min_precision: Share
    reject_below: Share
    confidence: Confidence
    bound: Share
    answered: Count
    chosen_on: Count
    samples: Count
    split_sha256: Sha256

    @property
    def sentence(self) -> str:
        """The promise in words."""
        return (
            f"With probability {100 * self.confidence:g} %, at least {100 * self.min_precision:g} % of the "
            f"answers with a confidence from {self.reject_below:g} are right on new images of the kind it "
            f"was certified on (chosen on {self.chosen_on:,} samples, certified on {self.answered:,} answers "
            f"to {self.samples:,} others by {self.method}, lower limit {100 * self.bound:.2f} %)."
        )
