"""`offramp tune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from offramp.errors import MissingExtraError
from offramp.extras import needs_extra

# That of exports.tuning.goal, which imports what the other commands need not wait for.
Unit = Literal["macs", "ms"]


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
        Unit | None,
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
    from exports.bundle.errors import TuningError
    from exports.bundle.reader import read_manifest
    from exports.tuning.command.goals import stated_bounds, stated_goal, stated_precision
    from exports.tuning.command.outcome import Targets, write_outcome
    from exports.tuning.gears.choose import plan_gears
    from exports.tuning.gears.report import print_gears
    from exports.tuning.report import print_report
    from exports.tuning.run import run_tuning
    from exports.tuning.timing import exit_milliseconds
    from offramp.files import check_target

    if gears and requests is not None:
        raise TuningError(
            "--gears uses the bundle's calibration table, so it does not go with --from."
        )
    writes = write if requests is not None else not dry_run
    bounds = stated_bounds(requests, write, apply, within, dry_run)
    bundle = _bundle(source, change=writes or (gears and not dry_run))
    precision = None if min_precision is None else stated_precision(min_precision, confidence)
    if precision is not None and max_accuracy_drop is None:
        confidence = None  # the promise is about the precision
    goal = stated_goal(max_accuracy_drop, confidence, min_accuracy, budget, cost)
    unit = (cost or "macs") if goal is None else goal.unit
    if json_file is not None:
        check_target(json_file)
    if picture is not None:
        with needs_extra("train"):
            from exports.tuning.picture import picture_tradeoff
            from offramp.figures import check_picture
        check_picture(picture)
    in_force = None
    if apply is not None:
        with needs_extra("client"):
            from exports.tuning.proposal.server import read_in_force
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
    if requests is not None and not writes and apply is None:
        typer.echo("Nothing is changed: --write writes the policy, --apply URL puts it in force.")
    plan = plan_gears(tuning.data, tuning.manifest) if gears else None
    if plan is not None:
        print_gears(plan)
    targets = Targets(bundle, writes, in_force, None if dry_run else plan, json_file)
    write_outcome(tuning, bounds, targets)


def _bundle(source: str, *, change: bool) -> Path:
    """The directory of a bundle; raises TuningError if it would `change` and must not."""
    from exports.bundle.cache import refuse_cached
    from exports.bundle.errors import TuningError
    from exports.bundle.resolve import EMBEDDED, resolve_bundle

    bundle = resolve_bundle(source)
    if change:
        refuse_cached(bundle)
        if bundle == EMBEDDED.get(source):
            raise TuningError(
                f"{source} is part of Offramp and stays as it is; copy {bundle} to change its policy."
            )
    return bundle
