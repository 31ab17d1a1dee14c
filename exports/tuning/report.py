"""A tuning as tables for people and as JSON for programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import orjson
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from exports.tuning.reliability import BINS, Quality
from exports.tuning.run import Row, Tuning
from exports.tuning.search import PolicyStats

SHOWN = 8
WIDTH = 118  # where the terminal does not say


def show(tuning: Tuning, console: Console | None = None) -> None:
    """Print the tables of `tuning`."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    console.print(Group(*_parts(tuning)), highlight=False)


def as_json(tuning: Tuning, written: bool) -> bytes:
    """Everything about `tuning`; accuracies and drops in percent and points, ECE and AUROC in 0..1."""
    data = tuning.data
    content = {
        "bundle": tuning.manifest.name,
        "version": tuning.manifest.version,
        "source": {
            "what": tuning.source,
            "sha256": tuning.source_sha256,
            "samples": data.whole.samples,
            "chosen_on": data.first.samples,
            "measured_on": data.second.samples,
            "split_sha256": data.split_sha256,
            "target": data.target,
        },
        "goal": asdict(tuning.goal),
        "written": written,
        "costs": tuning.costs,
        "chosen": _row(tuning, tuning.chosen),
        "others": {row.name: _row(tuning, row) for row in tuning.others},
        "frontier": [_row(tuning, row) for row in tuning.frontier],
        "calibration": {
            "bins": BINS,
            "single": _qualities(tuning.single),
            "running": _qualities(tuning.running),
        },
    }
    return orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _parts(tuning: Tuning) -> list[Table | Text]:
    data, manifest = tuning.data, tuning.manifest
    head = (
        f"{manifest.name} {manifest.version}, {tuning.source}: chosen on {data.first.samples:,} samples; "
        f"all stats are of the {data.second.samples:,} others.\nGoal: {tuning.goal.phrase}."
    )
    if data.target == "agreement":
        head += "\nWithout labels: agreement with the ensemble stands where accuracy would."
    certificate = tuning.chosen.policy.certificate
    promise = certificate.sentence if certificate else "Nothing is promised for other samples."
    parts: list[Table | Text] = [Text(head), _policies(tuning), Text(promise)]
    if tuning.single is not None and tuning.running is not None:
        parts.append(_calibration(tuning.single, tuning.running))
    return parts


def _policies(tuning: Tuning) -> Table:
    right = "agreement" if tuning.data.target == "agreement" else "accuracy"
    table = Table(box=None, pad_edge=False)
    table.add_column("policy")
    for name in (f"{right} %", "drop", "M MACs", *(["ms"] if "ms" in tuning.costs else [])):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("speed-up", justify="right", no_wrap=True)
    table.add_column("leave at each exit, %", justify="right", no_wrap=True)
    for row in (tuning.chosen, *tuning.others):
        table.add_row(*_cells(tuning, row), style="bold" if row is tuning.chosen else None)
    table.add_section()
    table.add_row("alternatives, not certified:")
    for row in _spread(tuning.frontier):
        table.add_row(*_cells(tuning, row))
    return table


def _cells(tuning: Tuning, row: Row) -> list[str]:
    stats, policy = row.stats, row.policy
    how = ""
    if policy.mode == "early_exit":
        thresholds = " ".join(f"{t:.3g}" for t in policy.thresholds)
        how = f"{policy.measure} {policy.combine} {thresholds}"
    costs = [f"{stats.mean_cost(tuning.costs['macs']) / 1e6:.1f}"]
    if "ms" in tuning.costs:
        costs.append(f"{stats.mean_cost(tuning.costs['ms']):.3f}")
    return [
        f"{row.name}: {how}" if row.name and how else row.name or how,
        f"{100 * stats.accuracy:.2f}",
        f"{100 * stats.drop:.2f}",
        *costs,
        f"{tuning.speed_up(row):.2f} x",
        " ".join(f"{100 * share:4.1f}" for share in stats.shares),
    ]


def _spread(rows: tuple[Row, ...]) -> list[Row]:
    """At most SHOWN of `rows`, evenly, with both ends."""
    if len(rows) <= SHOWN:
        return list(rows)
    return [rows[round(i * (len(rows) - 1) / (SHOWN - 1))] for i in range(SHOWN)]


def _calibration(single: tuple[Quality, ...], running: tuple[Quality, ...]) -> Table:
    table = Table(
        box=None,
        pad_edge=False,
        title=f"Calibration error ({BINS} bins) and AUROC of telling right from wrong, before and after "
        "temperature",
        title_justify="left",
        title_style="",
    )
    table.add_column("exit")
    for which in ("alone", "ensemble so far"):
        for name in ("T", "ECE %", "AUROC"):
            table.add_column(f"{which}: {name}", justify="right", no_wrap=True)
    for k, pair in enumerate(zip(single, running, strict=True), 1):
        cells = []
        for each in pair:
            ece = f"{100 * each.ece_before:.1f} > {100 * each.ece_after:.1f}"
            auroc = f"{_figure(each.auroc_before)} > {_figure(each.auroc_after)}"
            cells += [f"{each.temperature:.2f}", ece, auroc]
        table.add_row(str(k), *cells)
    return table


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _row(tuning: Tuning, row: Row) -> dict[str, Any]:
    return {
        "policy": row.policy.model_dump(),
        **_stats(row.stats),
        **{
            f"mean_{unit}": round(row.stats.mean_cost(costs), 6)
            for unit, costs in tuning.costs.items()
        },
        "speed_up": round(tuning.speed_up(row), 4),
    }


def _stats(stats: PolicyStats) -> dict[str, Any]:
    return {
        "accuracy": round(100 * stats.accuracy, 4),
        "drop": round(100 * stats.drop, 4),
        "losses": stats.losses,
        "gains": stats.gains,
        "exit_shares": [round(share, 6) for share in stats.shares],
    }


def _qualities(found: tuple[Quality, ...] | None) -> list[dict[str, Any]] | None:
    return None if found is None else [asdict(each) for each in found]
