"""The page on reproduction shows the kept results of every table, and its commands exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from offramp.cli import app
from training.recipes.table_recipes import Variant
from training.table.filled_table import FilledTable
from training.table.markdown import markdown, markers
from training.table.table_run import TableRun

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "design" / "reproduction.md").read_text("utf-8")


def kept(table: str) -> FilledTable:
    """The results kept under benchmarks/."""
    file = ROOT / "benchmarks" / f"table-{table}.json"
    return FilledTable.model_validate_json(file.read_text("utf-8"))


@pytest.mark.parametrize("table", ["cifar100", "tiny-imagenet", "digits"])
def test_the_page_shows_the_kept_results(table: str, tmp_path: Path) -> None:
    opened = TableRun.open(table, "*", Variant(), tmp_path, ROOT / "benchmarks")
    assert opened.filled() == kept(table)
    begin, end = markers(table)
    assert f"{begin}\n{markdown(kept(table))}{end}" in PAGE


def test_every_table_also_has_a_picture() -> None:
    kept_in = {path.stem: path for path in (ROOT / "benchmarks").glob("table-*")}
    assert {path.stem for path in (ROOT / "benchmarks").glob("table-*.json")} == kept_in.keys()
    for name in kept_in:
        picture = ROOT / "benchmarks" / f"{name}.png"
        assert picture.read_bytes().startswith(b"\x89PNG"), picture


def test_the_page_says_whether_anything_was_trained() -> None:
    trained = any(
        cell.measured for table in ("cifar100", "tiny-imagenet") for cell in kept(table).cells
    )
    assert ("Nothing has been trained under the full protocol yet" in PAGE) != trained


def test_every_command_on_the_page_exists() -> None:
    commands = vars(typer.main.get_command(app))["commands"]
    (block,) = re.findall(r"^```\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    lines = [line.split("#")[0].split(">")[0] for line in block.splitlines()]
    assert len(lines) == 6
    for line in lines:
        program, name, *arguments = shlex.split(line)
        assert program == "offramp"
        commands[name].make_context(name, arguments)
