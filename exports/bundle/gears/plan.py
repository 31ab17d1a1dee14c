"""gears.json: policies along the tuned frontier, from full depth to the first exit, with what each is worth.

The file is optional. A server with a latency target shifts between these policies.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from exports.bundle.cache import refuse_cached
from exports.bundle.certificate import Target
from exports.bundle.errors import BundleError
from exports.bundle.manifest import GEARS, Manifest
from exports.bundle.policy import Policy
from exports.bundle.schema_types import PAIR
from exports.bundle.untrusted.safe_files import MAX_POLICY_BYTES, one_line, parse_json, read_plain
from offramp.files import write_whole
from offramp.validation import first_problem

FORMAT = 1
MAX_GEARS = 32

Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Gear(_Model):
    """A policy and its results on the calibration table.

    `accuracy` in percent is estimated on samples that the policy was not chosen on. `accuracy_interval` is
    its 95 % interval: that of the drop below the ensemble, whose own accuracy on the table is taken as it is.
    `mean_macs` is the mean cost of a sample in multiply-accumulates, `exit_shares` [K] the share of samples
    that leaves at each exit. Under the target `agreement`, accuracy is agreement with the ensemble.
    """

    policy: Policy
    accuracy: Percent
    accuracy_interval: Annotated[tuple[Percent, Percent], PAIR]
    mean_macs: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    exit_shares: tuple[Share, ...]

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        low, high = self.accuracy_interval
        if not low <= self.accuracy <= high:
            raise ValueError("accuracy is not within its interval")
        if len(self.exit_shares) != self.policy.exits:
            raise ValueError("exit_shares must have one entry per exit")
        return self


class GearPlan(_Model):
    """gears.json: gears without certificates, the dearest first. They were chosen on the `samples` of the
    calibration table whose file has the SHA-256 `calibration_sha256`."""

    format: Literal[1]
    calibration_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    samples: Annotated[int, Field(ge=1)]
    target: Target
    gears: Annotated[tuple[Gear, ...], Field(min_length=1, max_length=MAX_GEARS)]

    @model_validator(mode="after")
    def _is_ordered(self) -> Self:
        if len({gear.policy.exits for gear in self.gears}) != 1:
            raise ValueError("the gears are for different numbers of exits")
        if any(g.policy.certificate or g.policy.precision_certificate for g in self.gears):
            raise ValueError("a gear has a certificate")
        for dearer, cheaper in pairwise(self.gears):
            if cheaper.mean_macs >= dearer.mean_macs or cheaper.accuracy > dearer.accuracy:
                raise ValueError("a gear must be cheaper than the one before, and no more accurate")
        return self


def read_gears(path: Path, manifest: Manifest) -> GearPlan | None:
    """The gears of the bundle in `path`, None if it has none; raises BundleError if they do not fit it."""
    file = path / GEARS
    if not file.is_symlink() and not file.exists():
        return None
    content = parse_json(read_plain(path, GEARS, MAX_POLICY_BYTES), file)
    if isinstance(content, dict) and content.get("format") != FORMAT:
        format_ = one_line(str(content.get("format"))[:100])
        raise BundleError(f"{file}: format {format_} is not one this version reads ({FORMAT}).")
    try:
        plan = GearPlan.model_validate(content)
    except ValidationError as error:
        raise BundleError(f"{file} is not valid: {one_line(str(first_problem(error)))}.") from error
    exits = len(manifest.exits)
    if plan.gears[0].policy.exits != exits:
        raise BundleError(
            f"{file} is for {plan.gears[0].policy.exits} exits, but the bundle has {exits}."
        )
    if plan.calibration_sha256 != manifest.calibration.sha256:
        raise BundleError(
            f"{file} was made from another calibration table; run `offramp tune --gears` again."
        )
    return plan


def write_gears(bundle: Path, plan: GearPlan) -> None:
    """Make `plan` the gears of the bundle in directory `bundle`, atomically.

    Raises WriteError. Raises BundleError for a bundle in the cache, which must stay as its hash says.
    """
    refuse_cached(bundle)
    later = {"certificate", "precision_certificate", "reject_below"}
    unset = {"gears": {"__all__": {"policy": later}}}
    content = plan.model_dump_json(indent=2, exclude=unset) + "\n"
    write_whole(bundle / GEARS, content.encode())
