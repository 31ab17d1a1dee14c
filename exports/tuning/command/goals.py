"""What the options of `offramp tune` state: goals and bounds."""

from __future__ import annotations

import re
from pathlib import Path

from exports.bundle.errors import TuningError
from exports.tuning.goal import DEFAULT_DROP, Goal, PrecisionGoal, Unit
from exports.tuning.proposal.bounds import Bounds, parse_bounds

SCALES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}


def stated_bounds(
    requests: Path | None, write: bool, apply: str | None, within: str | None, dry_run: bool
) -> Bounds | None:
    """The bounds of --within, None without it; raises TuningError if options do not go together."""
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


def stated_goal(
    max_drop: float | None,
    confidence: float | None,
    min_accuracy: float | None,
    budget: str | None,
    cost: Unit | None,
) -> Goal | None:
    """The goal of the options, None if they state none; raises TuningError if they contradict each other."""
    unit = cost or "macs"
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
        if cost is not None and cost != budget_unit:
            raise TuningError(f"--budget {budget} is not in {cost}, as --cost is.")
        return Goal("budget", amount, unit=budget_unit)
    if min_accuracy is not None:
        return Goal("min_accuracy", min_accuracy / 100, unit=unit)
    if max_drop is None and confidence is None:
        return None
    permitted = DEFAULT_DROP if max_drop is None else max_drop / 100
    return Goal("max_drop", permitted, confidence, unit)


def stated_precision(min_precision: float, confidence: float | None) -> PrecisionGoal:
    """The goal of --min-precision; raises TuningError if it cannot be one."""
    _check_confidence(confidence)
    if not 0 < min_precision < 1:
        percent = f"; for {min_precision:g} % give {min_precision / 100:g}"
        raise TuningError(
            f"--min-precision must lie between 0 and 1, not {min_precision:g}"
            f"{percent if 1 < min_precision < 100 else ''}."
        )
    return PrecisionGoal(min_precision, confidence)


def _check_confidence(confidence: float | None) -> None:
    if confidence is not None and not 0.5 < confidence < 1:
        raise TuningError(f"--confidence must lie between 0.5 and 1, not {confidence:g}.")


def _parse_budget(text: str) -> tuple[float, Unit]:
    """`2.5ms` -> (2.5, ms); `90M`, `90M MACs`, `90000000` -> (9e7, macs)."""
    ms = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*ms", text)
    macs = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([kMG]?)(?:\s*MACs)?", text)
    amount = float(ms[1]) if ms else float(macs[1]) * SCALES[macs[2]] if macs else 0.0
    if amount <= 0:
        raise TuningError(
            f"--budget must be as in 90M (multiply-accumulates) or 2.5ms, not {text}."
        )
    return amount, "ms" if ms else "macs"
