"""`offramp tune`."""

from __future__ import annotations

import enum
import re
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from offramp.errors import MissingExtraError
from offramp.extras import needs_extra
from offramp.files import replacing

if TYPE_CHECKING:
    from exports.tuning.goal import Goal, PrecisionGoal, Unit
    from exports.tuning.proposal.bounds import Bounds

SCALES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}


class CostUnit(enum.StrEnum):
    """The unit of the cost that is minimised."""

    MACS = "macs"
    MS = "ms"


def tune(
    source: Annotated[
        str,
        typer.Argument(
            metavar="BUNDLE", help="A directory; with --dry-run also a packed file or an address."
        ),
    ],
    max_accuracy_drop: Annotated[
        float | None,
        typer.Option(help="Most percentage points below the ensemble (default goal: 0.5)."),
    ] = None,
    confidence: Annotated[
        float | None,
        typer.Option(
            help="Probability that drop and precision hold on new samples; 0.95 is tried without a goal."
        ),
    ] = None,
    min_accuracy: Annotated[float | None, typer.Option(help="Least accuracy, percent.")] = None,
    min_precision: Annotated[
        float | None,
        typer.Option(
            help="Least share of the answers that is right, as 0.95; sets reject_below. Goes with any goal."
        ),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Most a sample may cost on average: 90M (MACs) or 2.5ms.")
    ] = None,
    cost: Annotated[
        CostUnit | None,
        typer.Option(
            help="What to minimise: macs, or ms measured here (default: the budget's unit)."
        ),
    ] = None,
    requests: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Logged requests, or the directory of serve --record, instead of the bundle's table.",
        ),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="A JSON file to write.")] = None,
    picture: Annotated[
        Path | None, typer.Option(help="A PNG of the trade-off to write; needs the extra train.")
    ] = None,
    write: Annotated[
        bool,
        typer.Option("--write", help="With --from: write the proposed policy into the bundle."),
    ] = False,
    apply: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="With --from: compare with the policy in force on this server, and replace it; the key is "
            "OFFRAMP_API_KEY or in OFFRAMP_API_KEY_FILE.",
        ),
    ] = None,
    within: Annotated[
        str | None,
        typer.Option(
            metavar="BOUNDS",
            help="With --write or --apply: only if the expected effect is within bounds, as "
            "accuracy-drop=0.5,cost-change=0.2; else exit code 3.",
        ),
    ] = None,
    gears: Annotated[
        bool,
        typer.Option("--gears", help="Also write gears.json, for serve --target-p99-ms."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Leave the policy as it is.")] = False,
) -> None:
    """Choose a bundle's thresholds for a goal, and write them into it as its policy. With --from they are
    proposed, and nothing is written without --write or --apply."""
    from exports.bundle.cache import refuse_cached
    from exports.bundle.errors import TuningError
    from exports.bundle.gears.plan import write_gears
    from exports.bundle.reader import read_manifest
    from exports.bundle.resolve import EMBEDDED, resolve_bundle
    from exports.bundle.routed_rule import routed_remarks
    from exports.bundle.writing import write_policy
    from exports.tuning.gears.choose import plan_gears
    from exports.tuning.gears.report import print_gears
    from exports.tuning.proposal.bounds import OutOfBoundsError, out_of_bounds
    from exports.tuning.report import as_json, print_report
    from exports.tuning.run import run_tuning
    from exports.tuning.timing import exit_milliseconds

    if gears and requests is not None:
        raise TuningError(
            "--gears uses the bundle's calibration table, so it does not go with --from."
        )
    writes = write if requests is not None else not dry_run
    bounds = _bounds(requests, write, apply, within, dry_run)
    bundle = resolve_bundle(source)
    if writes or (gears and not dry_run):
        refuse_cached(bundle)
        if bundle == EMBEDDED.get(source):
            raise TuningError(
                f"{source} is part of Offramp and stays as it is; copy {bundle} to change its policy."
            )
    precision = None if min_precision is None else _precision_goal(min_precision, confidence)
    if precision is not None and max_accuracy_drop is None:
        confidence = None  # the promise is about the precision
    goal = _goal(max_accuracy_drop, confidence, min_accuracy, budget, cost)
    unit: Unit = ("macs" if cost is None else cost.value) if goal is None else goal.unit
    if json_file is not None:
        _check_target(json_file)
    if picture is not None:
        with needs_extra("train"):
            from exports.tuning.picture import picture_tradeoff
            from offramp.figures import check_target
        check_target(picture)
    in_force = None
    if apply is not None:
        with needs_extra("client"):
            from exports.tuning.proposal.server import read_in_force, replace_in_force
        in_force = read_in_force(apply, read_manifest(bundle))
    milliseconds = None
    try:
        if unit == "ms" or requests is not None:
            milliseconds = exit_milliseconds(bundle)
    except MissingExtraError:
        if unit == "ms":
            raise
    current = None if in_force is None else in_force.policy
    tuning = run_tuning(
        bundle, goal, milliseconds, requests, precision, unit=unit, in_force=current
    )
    print_report(tuning)
    if picture is not None:
        picture_tradeoff(tuning, picture)
    refusal = None
    if bounds is not None and tuning.proposal is not None:
        effect, representative = tuning.proposal.effect, tuning.proposal.representative
        refusal = out_of_bounds(bounds, effect, tuning.goal.unit, representative=representative)
    if requests is not None and not writes and apply is None:
        typer.echo("Nothing is changed: --write writes the policy, --apply URL puts it in force.")
    plan = plan_gears(tuning.data, tuning.manifest) if gears else None
    if plan is not None:
        print_gears(plan)
    # If the JSON file cannot be written, nothing else is changed.
    with nullcontext() if json_file is None else replacing(json_file) as part:
        if part is not None:
            applied = apply if refusal is None else None
            part.write_bytes(as_json(tuning, writes and refusal is None, applied))
        if in_force is not None and refusal is None:
            replace_in_force(in_force, tuning.manifest, tuning.chosen.policy)
            typer.echo(f"In force on {apply}.")
        if writes and refusal is None:
            write_policy(bundle, tuning.chosen.policy)
            typer.echo(f"Written to {bundle / 'policy.json'}.")
            for remark in routed_remarks(bundle, tuning.manifest, tuning.chosen.policy):
                typer.echo(remark)
        if plan is not None and not dry_run:
            write_gears(bundle, plan)
            typer.echo(f"Written to {bundle / 'gears.json'}.")
    if refusal is not None:
        raise OutOfBoundsError(refusal)


def _bounds(
    requests: Path | None, write: bool, apply: str | None, within: str | None, dry_run: bool
) -> Bounds | None:
    """The bounds of --within, None without it; raises TuningError if options do not go together."""
    from exports.bundle.errors import TuningError
    from exports.tuning.proposal.bounds import parse_bounds

    applies = write or apply is not None
    if applies and requests is None:
        raise TuningError("--write and --apply go with --from; without it the policy is written.")
    if applies and dry_run:
        raise TuningError("--dry-run does not go with --write and --apply.")
    if within is None:
        return None
    if not applies:
        raise TuningError("--within goes with --write or --apply.")
    return parse_bounds(within)


def _goal(
    max_drop: float | None,
    confidence: float | None,
    min_accuracy: float | None,
    budget: str | None,
    cost: CostUnit | None,
) -> Goal | None:
    """The goal of the options; None if there is none."""
    from exports.bundle.errors import TuningError
    from exports.tuning.goal import DEFAULT_DROP, Goal

    unit: Unit = "macs" if cost is None else cost.value
    if sum(value is not None for value in (max_drop, min_accuracy, budget)) > 1:
        raise TuningError("Give one of --max-accuracy-drop, --min-accuracy and --budget.")
    if confidence is not None and (min_accuracy is not None or budget is not None):
        raise TuningError(
            "--confidence goes with --max-accuracy-drop alone, or with --min-precision."
        )
    _check_confidence(confidence)
    for name, percent in (("--max-accuracy-drop", max_drop), ("--min-accuracy", min_accuracy)):
        if percent is not None and not 0 <= percent <= 100:
            raise TuningError(f"{name} must lie between 0 and 100, not {percent:g}.")
    if budget is not None:
        amount, budget_unit = _parse_budget(budget)
        if cost is not None and cost.value != budget_unit:
            raise TuningError(f"--budget {budget} is not in {cost.value}, as --cost is.")
        return Goal("budget", amount, unit=budget_unit)
    if min_accuracy is not None:
        return Goal("min_accuracy", min_accuracy / 100, unit=unit)
    if max_drop is None and confidence is None:
        return None
    permitted = DEFAULT_DROP if max_drop is None else max_drop / 100
    return Goal("max_drop", permitted, confidence, unit)


def _precision_goal(min_precision: float, confidence: float | None) -> PrecisionGoal:
    from exports.bundle.errors import TuningError
    from exports.tuning.goal import PrecisionGoal

    _check_confidence(confidence)
    if not 0 < min_precision < 1:
        percent = f"; for {min_precision:g} % give {min_precision / 100:g}"
        raise TuningError(
            f"--min-precision must lie between 0 and 1, not {min_precision:g}"
            f"{percent if 1 < min_precision < 100 else ''}."
        )
    return PrecisionGoal(min_precision, confidence)


def _check_confidence(confidence: float | None) -> None:
    from exports.bundle.errors import TuningError

    if confidence is not None and not 0.5 < confidence < 1:
        raise TuningError(f"--confidence must lie between 0.5 and 1, not {confidence:g}.")


def _parse_budget(text: str) -> tuple[float, Unit]:
    """`2.5ms` -> (2.5, ms); `90M`, `90M MACs`, `90000000` -> (9e7, macs)."""
    from exports.bundle.errors import TuningError

    ms = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*ms", text)
    macs = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([kMG]?)(?:\s*MACs)?", text)
    amount = float(ms[1]) if ms else float(macs[1]) * SCALES[macs[2]] if macs else 0.0
    if amount <= 0:
        raise TuningError(
            f"--budget must be as in 90M (multiply-accumulates) or 2.5ms, not {text}."
        )
    return amount, "ms" if ms else "macs"


def _check_target(path: Path) -> None:
    from exports.bundle.errors import TuningError

    if not path.parent.is_dir():
        raise TuningError(f"{path} cannot be written: there is no directory {path.parent}.")
    if path.is_dir():
        raise TuningError(f"{path} cannot be written: it is a directory.")
