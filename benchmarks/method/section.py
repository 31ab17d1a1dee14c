"""The analysis as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from benchmarks.harness import docs
from benchmarks.method.compare import Difference, Row, best_exit, budgets_met, difference
from benchmarks.method.measure import BUDGETS
from training.table.render import NONE

PLAIN, AUGMENTED, OTO, MSKD = "multi-exit", "multi-exit-autoaugment", "oto", "mskd"
EARLY = (0.6, 0.8)  # of BUDGETS, named in sentences
# Pairs of rows whose difference is shown, and what it says.
COMPARED = (
    ("kd", "baseline", "a teacher teaches a single exit (KD - cross-entropy)"),
    (OTO, PLAIN, "a teacher's exits teach the student's (OtO - cross-entropy)"),
    (MSKD, PLAIN, "a teacher's last exit teaches all (MSKD - cross-entropy)"),
    ("self-distillation", PLAIN, "the own last exit teaches (self-distillation - cross-entropy)"),
    (AUGMENTED, PLAIN, "AutoAugment without a teacher"),
    ("oto-autoaugment", OTO, "AutoAugment with one (OtO)"),
    (OTO, MSKD, "one-to-one instead of last-to-all (OtO - MSKD)"),
    ("oto-joint", OTO, "a teacher trained with all its exits (OtO)"),
)


def rows_of(result: Mapping[str, Any]) -> dict[str, Row]:
    """The measured rows by key, in the table's order."""
    return {
        key: Row(key, row["title"], {int(seed): run for seed, run in row["runs"].items()})
        for key, row in result["rows"].items()
        if row["runs"]
    }


def section(result: Mapping[str, Any]) -> str:
    """Tables, and an answer in a sentence to each question whose rows are measured."""
    rows = rows_of(result)
    if not rows:
        return "No row is measured yet.\n"
    exits = max(row.exits for row in rows.values())
    parts = [_accuracies(list(rows.values()), exits)]
    compared = _differences(rows, exits)
    if compared:
        parts.append(compared)
    answers = [answer for answer in (_teacher(rows), _which(rows), *_gains(rows)) if answer]
    if answers:
        parts.append("\n".join(answers))
    several = [row for row in rows.values() if row.exits == exits and exits > 1]
    if several:
        parts.append(_early(several))
    seeds = max(len(row.runs) for row in rows.values())
    parts.append(
        f"{result['protocol']}. Mean ± standard deviation of up to {seeds} seeds, test split. Differences "
        "pair equal seeds. The first interval (95 %) is over seeds, the second over test images; one seed "
        "has the second only. Differences are bold if no interval contains 0."
    )
    return "\n\n".join(parts) + "\n"


def _accuracies(rows: Sequence[Row], exits: int) -> str:
    head = ("method", "seeds", *(f"exit {k}" for k in range(1, exits + 1)), "ensemble", "fitted")
    lines = []
    for row in rows:
        cells = [_spread(row.accuracies(k)) for k in range(row.exits + 2)]
        if row.exits == 1:
            cells = _of_last_exit(cells[0], exits)
        lines.append((row.title, len(row.runs), *cells))
    return docs.table(head, lines)


def _of_last_exit(cell: str, exits: int) -> list[str]:
    """The cells of a row with the last exit only: its ensembles are that exit."""
    return [NONE] * (exits - 1) + [cell, NONE, NONE]


def _early(rows: Sequence[Row]) -> str:
    """Accuracy at equal mean cost."""
    met = budgets_met(rows)
    head = ("method, early exit at a mean cost of", *(f"{BUDGETS[k]:.0%}" for k in met))
    lines = [(row.title, *(_spread(row.early(k)) for k in met)) for row in rows]
    best = {k: max(rows, key=lambda row: fmean(row.early(k))).title for k in met}
    sentence = "; ".join(f"{BUDGETS[k]:.0%}: {title}" for k, title in best.items())
    return f"{docs.table(head, lines)}\n\n**Best at equal mean cost** (share of full depth): {sentence}."


def _differences(rows: Mapping[str, Row], exits: int) -> str | None:
    """The pairs of COMPARED that are measured, at every exit and ensemble."""
    lines = []
    for better, other, title in COMPARED:
        found = _at_every_exit(rows, better, other)
        if found:
            cells = [_points(one) for one in found]
            single = rows[other].exits == 1
            lines.append((title, *(_of_last_exit(cells[0], exits) if single else cells)))
    head = ("difference in points", *_places(exits))
    return docs.table(head, lines) if lines else None


def _teacher(rows: Mapping[str, Row]) -> str | None:
    taught, augmented = (_at_every_exit(rows, row, PLAIN) for row in (OTO, AUGMENTED))
    if not taught:
        return None
    answer = f"- **Does a teacher help each exit?** {_where(taught)}."
    if augmented:
        more = [one.mean > other.mean for one, other in zip(taught, augmented, strict=True)]
        where = [
            name for name, is_more in zip(_places(len(more) - 2), more, strict=True) if is_more
        ]
        answer += f" It adds more than AutoAugment does at: {', '.join(where) or 'no exit'}."
    return answer


def _which(rows: Mapping[str, Row]) -> str | None:
    found = _at_every_exit(rows, OTO, MSKD)
    return f"- **Does one-to-one beat last-to-all?** {_where(found)}." if found else None


def _gains(rows: Mapping[str, Row]) -> Iterator[str]:
    """How much each multi-exit row's ensemble gains over its best exit, and what is left early."""
    for row in (rows[key] for key in (PLAIN, MSKD, OTO) if key in rows):
        best = best_exit(row)
        equal, fitted = (difference(row, row, row.exits + k, best) for k in (0, 1))
        early = ", ".join(
            f"{fmean(row.early(k)) - fmean(row.accuracies(best)):+.2f} at {BUDGETS[k]:.0%} of the cost"
            for k in budgets_met([row])
            if BUDGETS[k] in EARLY
        )
        yield (
            f"- **What the ensemble gains over the best exit**, {row.title}: equal weights "
            f"{_points(equal)}, fitted {_points(fitted)}; by early exit {early or 'not measured'}."
        )


def _at_every_exit(rows: Mapping[str, Row], better: str, other: str) -> list[Difference]:
    """`better` minus `other` at every exit, then of both ensembles; empty if that is not measured."""
    if better not in rows or other not in rows:
        return []
    found = (difference(rows[better], rows[other], k) for k in range(rows[other].exits + 2))
    return [one for one in found if one is not None]


def _where(found: Sequence[Difference]) -> str:
    """Where differences are clearly positive, and where clearly negative."""
    names = _places(len(found) - 2)
    parts = []
    for word, sign in (("better", 1), ("worse", -1)):
        where = [
            n for n, one in zip(names, found, strict=True) if one.clear and one.mean * sign > 0
        ]
        if where:
            parts.append(f"{word} at {', '.join(where)}")
    text = "; ".join(parts) or "no clear difference anywhere"
    return text[0].upper() + text[1:]


def _places(exits: int) -> list[str]:
    return [*(f"exit {k}" for k in range(1, exits + 1)), "ensemble", "fitted ensemble"]


def _points(found: Difference | None) -> str:
    if found is None:
        return NONE
    widths = [width for width in (found.seeds, found.images) if width is not None]
    text = f"{found.mean:+.2f} (" + ", ".join(f"± {width:.2f}" for width in widths) + ")"
    return f"**{text}**" if found.clear else text


def _spread(values: Sequence[float]) -> str:
    mean = f"{fmean(values):.2f}"
    return f"{mean} ± {stdev(values):.2f}" if len(values) > 1 else mean
