"""The result of a tuning as tables on the terminal and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import orjson
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from exports.tuning.goal import INTERVAL_CONFIDENCE
from exports.tuning.path import FOLDS, REPEATS
from exports.tuning.proposal.report import effect_json, effect_table
from exports.tuning.reliability import BINS, ConfidenceQuality
from exports.tuning.run import Row, Tuning
from exports.tuning.statistics.policy_stats import PolicyStats

MAX_FRONTIER_ROWS = 8
DEFAULT_WIDTH = 118  # columns, if the output is not a terminal


def print_report(tuning: Tuning, console: Console | None = None) -> None:
    """Print the tables of `tuning`."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(width=DEFAULT_WIDTH)
    console.print(Group(*_parts(tuning)), highlight=False)


def as_json(tuning: Tuning, written: bool, applied: str | None = None) -> bytes:
    """`tuning` as JSON; accuracies in percent, drops and their intervals in points, coverage, precision, ECE
    and AUROC in 0..1. `applied` is the address of the server where the policy is in force now."""
    data = tuning.data
    content = {
        "bundle": tuning.manifest.name,
        "version": tuning.manifest.version,
        "source": {
            "what": tuning.source,
            "sha256": tuning.source_sha256,
            "samples": data.whole.samples,
            "chosen_on": chosen_on(tuning),
            "measured_on": tuning.chosen.stats.samples,
            "cross_validated": not tuning.certified,
            "split_sha256": data.split_sha256,
            "target": data.target,
        },
        "goal": asdict(tuning.goal),
        "precision": _precision(tuning),
        "notes": tuning.choice.notes,
        "written": written,
        "applied": applied,
        **_proposal(tuning),
        "costs": tuning.costs,
        "chosen": _row(tuning, tuning.chosen),
        "others": {row.name: _row(tuning, row) for row in tuning.others},
        "frontier": [_row(tuning, row) for row in tuning.frontier],
        "calibration": {
            "bins": BINS,
            "single": _quality(tuning.single),
            "running": _quality(tuning.running),
        },
    }
    return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def chosen_on(tuning: Tuning) -> int:
    """The number of samples the policy was chosen on."""
    data = tuning.data
    return data.selection.samples if tuning.certified else data.whole.samples


def _parts(tuning: Tuning) -> list[Table | Text]:
    data, manifest = tuning.data, tuning.manifest
    heading = f"{manifest.name} {manifest.version}, {tuning.source}: "
    if tuning.certified:
        heading += (
            f"chosen on {data.selection.samples:,} samples; all figures are of the "
            f"{data.certification.samples:,} others."
        )
    else:
        heading += (
            f"chosen on {data.whole.samples:,} samples.\nIts figures and the alternatives' are "
            f"cross-validated ({FOLDS} folds, {REPEATS} times): each sample is judged by a choice made "
            "without it."
        )
    heading += f"\nGoal: {tuning.goal.phrase}"
    heading += "." if tuning.precision is None else f"; {tuning.precision.phrase}."
    proposal = tuning.proposal
    if proposal is not None and proposal.remarks:
        heading += "\n" + "\n".join(proposal.remarks)
    elif data.target == "agreement":
        heading += "\nThere are no labels: accuracy is the agreement with the ensemble."
    parts: list[Table | Text] = [
        Text(heading),
        _policies(tuning),
        Text("\n".join((tuning.choice.promise, *tuning.choice.rejection, *tuning.choice.notes))),
    ]
    if proposal is not None:
        parts.append(effect_table(proposal.effect, data.target))
    if tuning.single is not None and tuning.running is not None:
        parts.append(_confidence(tuning.single, tuning.running, data.certification.samples))
    return parts


def _policies(tuning: Tuning) -> Table:
    measured = "agreement" if tuning.data.target == "agreement" else "accuracy"
    table = Table(box=None, pad_edge=False)
    table.add_column("policy")
    interval = f"{100 * INTERVAL_CONFIDENCE:g} % interval"
    for name in (
        f"{measured} %",
        "drop",
        interval,
        "M MACs",
        *(["ms"] if "ms" in tuning.costs else []),
    ):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("speed-up", justify="right", no_wrap=True)
    table.add_column("leave at each exit, %", justify="right", no_wrap=True)
    for row in (tuning.chosen, *tuning.others):
        table.add_row(*_cells(tuning, row), style="bold" if row is tuning.chosen else None)
    table.add_section()
    table.add_row("alternatives, not certified:")
    for row in _evenly(tuning.frontier):
        table.add_row(*_cells(tuning, row))
    return table


def _cells(tuning: Tuning, row: Row) -> list[str]:
    stats, policy = row.stats, row.policy
    settings = ""
    if policy.mode == "early_exit":
        thresholds = " ".join(f"{t:.3g}" for t in policy.thresholds)
        settings = f"{policy.measure} {policy.combine} {thresholds}"
    costs = [f"{tuning.mean_cost(row, 'macs') / 1e6:.1f}"]
    if "ms" in tuning.costs:
        costs.append(f"{tuning.mean_cost(row, 'ms'):.3f}")
    return [
        ": ".join(part for part in (row.name, settings) if part),
        f"{100 * stats.accuracy:.2f}",
        f"{100 * stats.drop:.2f}",
        _interval(row),
        *costs,
        f"{tuning.speed_up(row):.2f} x",
        " ".join(f"{100 * share:4.1f}" for share in stats.exit_shares),
    ]


def _interval(row: Row) -> str:
    low, high = row.drop_interval
    return "" if low == high else f"{100 * low:.2f} to {100 * high:.2f}"


def _evenly(rows: tuple[Row, ...]) -> list[Row]:
    """At most MAX_FRONTIER_ROWS of `rows`, evenly spread, with both ends."""
    if len(rows) <= MAX_FRONTIER_ROWS:
        return list(rows)
    step = (len(rows) - 1) / (MAX_FRONTIER_ROWS - 1)
    return [rows[round(i * step)] for i in range(MAX_FRONTIER_ROWS)]


def _confidence(
    single: tuple[ConfidenceQuality, ...], running: tuple[ConfidenceQuality, ...], samples: int
) -> Table:
    table = Table(
        box=None,
        pad_edge=False,
        title=f"Calibration error ({BINS} bins) and AUROC of correct against wrong answers, before and after "
        f"temperature, on the {samples:,} samples that no temperature was fitted on",
        title_justify="left",
        title_style="",
    )
    table.add_column("exit")
    for combination in ("alone", "ensemble so far"):
        for name in ("T", "ECE %", "AUROC"):
            table.add_column(f"{combination}: {name}", justify="right", no_wrap=True)
    for k, pair in enumerate(zip(single, running, strict=True), 1):
        cells = []
        for quality in pair:
            ece = f"{100 * quality.ece_before:.1f} > {100 * quality.ece_after:.1f}"
            auroc = f"{_auroc(quality.auroc_before)} > {_auroc(quality.auroc_after)}"
            cells += [f"{quality.temperature:.2f}", ece, auroc]
        table.add_row(str(k), *cells)
    return table


def _auroc(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _row(tuning: Tuning, row: Row) -> dict[str, Any]:
    return {
        "policy": row.policy.model_dump(),
        **_stats(row.stats),
        "drop_interval": [round(100 * limit, 4) for limit in row.drop_interval],
        **{f"mean_{unit}": round(tuning.mean_cost(row, unit), 6) for unit in tuning.costs},
        "speed_up": round(tuning.speed_up(row), 4),
    }


def _proposal(tuning: Tuning) -> dict[str, Any]:
    proposal = tuning.proposal
    if proposal is None:
        return {}
    return {
        "effect": effect_json(proposal.effect),
        "traffic": None if proposal.traffic is None else asdict(proposal.traffic),
        "remarks": proposal.remarks,
        "representative": proposal.representative,
    }


def _precision(tuning: Tuning) -> dict[str, Any] | None:
    answered = tuning.choice.answered
    if tuning.precision is None or answered is None:
        return None
    return {
        "goal": asdict(tuning.precision),
        "reject_below": tuning.choice.policy.reject_below,
        "samples": answered.samples,
        "answered": round(answered.answered, 2),
        "coverage": round(answered.coverage, 6),
        "coverage_interval": _rounded(answered.coverage_interval(INTERVAL_CONFIDENCE)),
        "precision": round(answered.precision or 0, 6),
        "precision_interval": _rounded(answered.precision_interval(INTERVAL_CONFIDENCE)),
    }


def _rounded(interval: tuple[float, float]) -> list[float]:
    return [round(limit, 6) for limit in interval]


def _stats(stats: PolicyStats) -> dict[str, Any]:
    return {
        "accuracy": round(100 * stats.accuracy, 4),
        "drop": round(100 * stats.drop, 4),
        "losses": round(stats.losses, 2),
        "gains": round(stats.gains, 2),
        "exit_shares": [round(share, 6) for share in stats.exit_shares],
    }


def _quality(exits: tuple[ConfidenceQuality, ...] | None) -> list[dict[str, Any]] | None:
    return None if exits is None else [asdict(quality) for quality in exits]
