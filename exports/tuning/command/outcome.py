"""What `offramp tune` writes, once a policy is chosen."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from exports.bundle.gears.plan import GearPlan, write_gears
from exports.bundle.routed_rule import routed_remarks
from exports.bundle.writing import write_policy
from exports.tuning.proposal.bounds import Bounds, OutOfBoundsError, out_of_bounds
from exports.tuning.report import as_json
from exports.tuning.run import Tuning
from offramp.files import replacing

if TYPE_CHECKING:
    from exports.tuning.proposal.server import PolicyInForce  # needs the extra client


@dataclass(frozen=True)
class Targets:
    """Where a tuning of the bundle in the directory `bundle` goes: its policy into the bundle (`write`), into
    the place of `in_force` on a server, `gears` into the bundle, and the report into `json_file`."""

    bundle: Path
    write: bool
    in_force: PolicyInForce | None
    gears: GearPlan | None
    json_file: Path | None


def write_outcome(tuning: Tuning, bounds: Bounds | None, targets: Targets) -> None:
    """Write `tuning` to its targets and say so.

    If the JSON file cannot be written, nothing else is. Raises WriteError, ClientError, and OutOfBoundsError
    if its expected effect is not within `bounds`: then only the gears and the JSON file are written.
    """
    refusal = _refusal(tuning, bounds)
    write = targets.write and refusal is None
    in_force = targets.in_force if refusal is None else None
    bundle, policy = targets.bundle, tuning.chosen.policy
    with nullcontext() if targets.json_file is None else replacing(targets.json_file) as part:
        if part is not None:
            part.write_bytes(as_json(tuning, write, None if in_force is None else in_force.url))
        if in_force is not None:
            from exports.tuning.proposal.server import replace_in_force

            replace_in_force(in_force, tuning.manifest, policy)
            typer.echo(f"In force on {in_force.url}.")
        if write:
            write_policy(bundle, policy)
            typer.echo(f"Written to {bundle / 'policy.json'}.")
            for remark in routed_remarks(bundle, tuning.manifest, policy):
                typer.echo(remark)
        if targets.gears is not None:
            write_gears(bundle, targets.gears)
            typer.echo(f"Written to {bundle / 'gears.json'}.")
    if refusal is not None:
        raise OutOfBoundsError(refusal)


def _refusal(tuning: Tuning, bounds: Bounds | None) -> str | None:
    """Why the proposed policy may not be put in force, None if it may."""
    proposal = tuning.proposal
    if bounds is None or proposal is None:
        return None
    return out_of_bounds(
        bounds, proposal.effect, tuning.goal.unit, representative=proposal.representative
    )
