"""Figures in the docs: tables, and the marks between which a benchmark writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

END = "<!-- end -->\n"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, cells)) + " |" for cells in lines)


def fill_in(page: Path, name: str, section: str) -> None:
    """Replace what stands between `<!-- benchmark: name -->` and the next end mark in `page`."""
    begin = f"<!-- benchmark: {name} -->\n"
    before, rest = page.read_text("utf-8").split(begin)
    _, after = rest.split(END, 1)
    page.write_text(before + begin + section + END + after, "utf-8")
