"""Tables in the docs, between the markers of a benchmark."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"
END = "<!-- end -->\n"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, cells)) + " |" for cells in lines)


def fill_in(page: Path, name: str, section: str) -> None:
    """Replace the text between `<!-- benchmark: name -->` and the next end marker in `page`."""
    begin = f"<!-- benchmark: {name} -->\n"
    before, rest = page.read_text("utf-8").split(begin)
    _, after = rest.split(END, 1)
    page.write_text(before + begin + section + END + after, "utf-8")


def publish(
    arguments: argparse.Namespace,
    run: Callable[[argparse.Namespace], dict[str, Any]],
    section: Callable[[dict[str, Any]], str],
    page: str,
    name: str,
) -> dict[str, Any]:
    """Measure with `run`, write `arguments.json` and print the section. With `arguments.write_docs`: measure
    nothing, and write the section of that JSON to `page` of the docs under `name`. Returns the result."""
    if not arguments.write_docs:
        arguments.json.write_text(json.dumps(run(arguments), indent=2) + "\n", "utf-8")
    result: dict[str, Any] = json.loads(arguments.json.read_text("utf-8"))
    text = section(result)
    print(text)
    if arguments.write_docs:
        fill_in(DOCS / page, name, text)
    return result
