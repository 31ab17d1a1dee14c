"""The pages show what the benchmarks wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks import digits, embedded, photographs, ray, serving, threads
from benchmarks.canary import section as canary
from benchmarks.gears import section as gears
from benchmarks.grocery import section as grocery
from benchmarks.growth import section as growth
from benchmarks.guards import section as guards
from benchmarks.harness.docs import DOCS, END, fill_in
from benchmarks.method import section as method
from benchmarks.peers import section as peers
from benchmarks.promises import drift, memory, precision, proposals, shift, small_folder, tuning
from benchmarks.trials.section import section as trials

RESULTS = DOCS.parent / "benchmarks"


@pytest.mark.parametrize(
    ("page", "name", "section"),
    [
        ("design/benchmarks.md", "embedded", embedded.section),
        ("design/benchmarks.md", "serving", serving.section),
        ("design/scheduling.md", "threads", threads.section),
        ("design/growth.md", "growth", growth.section),
        ("design/peers.md", "peers", peers.section),
        (
            *("design/peers.md", "peers-photographs"),
            partial(peers.section, picture="peers-photographs.png"),
        ),
        ("design/peers.md", "peers-lite2", partial(peers.section, picture="peers-lite2.png")),
        ("design/reproduction.md", "method", method.section),
        ("guide/canary.md", "canary", canary.section),
        ("guide/gears.md", "gears", gears.section),
        ("guide/shadow.md", "guards", guards.section),
        ("guide/ray.md", "ray", ray.section),
        ("guide/your-own-images.md", "photographs", photographs.section),
        ("guide/tuning.md", "tuning", tuning.section),
        ("guide/tuning.md", "precision", precision.section),
        ("guide/tuning.md", "proposals", proposals.section),
        ("guide/tuning.md", "shift", shift.section),
        ("guide/operations.md", "drift", drift.section),
        ("guide/operations.md", "memory", memory.section),
        ("guide/training.md", "digits", digits.section),
        ("guide/training.md", "trials", trials),
        ("guide/you-have-a-model.md", "grocery-cascade", grocery.section),
        ("guide/your-own-images.md", "small-folder", small_folder.section),
    ],
)
def test_a_page_shows_what_the_benchmark_wrote(
    page: str, name: str, section: Callable[[dict[str, Any]], str]
) -> None:
    result = json.loads((RESULTS / f"{name}.json").read_text("utf-8"))
    text = (DOCS / page).read_text("utf-8")
    _, found = text.split(f"<!-- benchmark: {name} -->\n")
    assert found.split(END)[0] == section(result)


def test_the_text_between_the_markers_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"a\n<!-- benchmark: x -->\nold\n{END}b\n{END}")
    fill_in(page, "x", "new\n")
    assert page.read_text() == f"a\n<!-- benchmark: x -->\nnew\n{END}b\n{END}"
