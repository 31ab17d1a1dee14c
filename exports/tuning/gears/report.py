"""The gears of a plan as a table on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from exports.bundle.gears.plan import GearPlan
from exports.tuning.report import DEFAULT_WIDTH


def print_gears(plan: GearPlan, console: Console | None = None) -> None:
    """Print a row for each gear."""
    console = console or Console()
    if not console.is_terminal:
        console = Console(width=DEFAULT_WIDTH)
    measured = "agreement" if plan.target == "agreement" else "accuracy"
    table = Table(box=None, pad_edge=False)
    table.add_column("gear")
    for name in (
        f"{measured} %",
        "95 % interval",
        "M MACs",
        "of full depth",
        "leave at each exit, %",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for number, gear in enumerate(plan.gears):
        low, high = gear.accuracy_interval
        table.add_row(
            str(number),
            f"{gear.accuracy:.2f}",
            f"{low:.2f} to {high:.2f}",
            f"{gear.mean_macs / 1e6:.4g}",
            f"{gear.mean_macs / plan.gears[0].mean_macs:.0%}",
            " ".join(f"{100 * share:.1f}" for share in gear.exit_shares),
        )
    console.print(table, highlight=False)
