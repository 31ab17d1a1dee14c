"""The expected effect of a proposal as a table on the terminal and as JSON."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from exports.bundle.certificate import Target
from exports.tuning.goal import INTERVAL_CONFIDENCE, Unit
from exports.tuning.proposal.effect import Effect, Interval, interval_of

SCALES: dict[Unit, tuple[str, float, int]] = {"macs": ("M MACs", 1e-6, 1), "ms": ("ms", 1.0, 3)}


def effect_table(effect: Effect, target: Target) -> Table:
    """The policy in force beside the proposed one, and the change."""
    table = Table(
        box=None,
        pad_edge=False,
        title=f"Expected effect on {effect.proposed.samples:,} samples, with "
        f"{100 * INTERVAL_CONFIDENCE:g} % intervals",
        title_justify="left",
        title_style="",
    )
    table.add_column("")
    for name in ("in force", "proposed", "change"):
        table.add_column(name, justify="right", no_wrap=True)
    pair = (effect.in_force, effect.proposed)
    change = _signed(effect.accuracy_change, effect.accuracy_interval)
    name = "accuracy %" if target == "labels" else "agreement %"
    table.add_row(name, *(_share(s.accuracy, interval_of(s)) for s in pair), f"{change} points")
    for unit, (ratio, interval) in effect.cost_changes.items():
        name, scale, digits = SCALES[unit]
        means = (f"{scale * mean:.{digits}f}" for mean in effect.mean_costs[unit])
        table.add_row(f"mean {name}", *means, f"{_signed(ratio, interval, 1)} %")
    shares = (" ".join(f"{100 * share:.1f}" for share in stats.exit_shares) for stats in pair)
    table.add_row("leave at each exit, %", *shares, "")
    return table


def effect_json(effect: Effect) -> dict[str, Any]:
    """Accuracies and their change in percent and points, costs in their unit, changes of costs as shares."""
    return {
        "samples": effect.proposed.samples,
        "in_force": _stats(effect, proposed=False),
        "proposed": _stats(effect, proposed=True),
        "accuracy_change": round(100 * effect.accuracy_change, 4),
        "accuracy_change_interval": _points(effect.accuracy_interval),
        "cost_changes": {
            unit: {"change": round(ratio, 6), "interval": [round(limit, 6) for limit in interval]}
            for unit, (ratio, interval) in effect.cost_changes.items()
        },
    }


def _stats(effect: Effect, *, proposed: bool) -> dict[str, Any]:
    stats = effect.proposed if proposed else effect.in_force
    return {
        "accuracy": round(100 * stats.accuracy, 4),
        "accuracy_interval": _points(interval_of(stats)),
        "exit_shares": [round(share, 6) for share in stats.exit_shares],
        **{f"mean_{unit}": round(means[proposed], 6) for unit, means in effect.mean_costs.items()},
    }


def _points(interval: Interval) -> list[float]:
    return [round(100 * limit, 4) for limit in interval]


def _share(value: float, interval: Interval) -> str:
    low, high = interval
    return f"{100 * value:.2f} ({100 * low:.2f} to {100 * high:.2f})"


def _signed(value: float, interval: Interval, digits: int = 2) -> str:
    low, high = interval
    return f"{100 * value:+.{digits}f} ({100 * low:+.{digits}f} to {100 * high:+.{digits}f})"
