"""The shape of the code: no circles, small folders, and no names that were replaced.

Which package may import which is held by import-linter, whose contracts are in pyproject.toml.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("offramp", "training", "exports", "serving")
FOLDERS = ("offramp", "training", "exports", "serving", "benchmarks", "tests")
MAX_FILES_PER_FOLDER = 15
MAX_LINES_PER_FILE = 300
TEXT_FILES = {".py", ".md", ".toml", ".js", ".html", ".css", ".yml"}
# Each was replaced by a term that the field uses.
RETIRED_NAMES = (
    "Arrangement",
    "Door",
    "JoiningTransport",
    "LONGEST",
    "PATIENCE",
    "PatientWork",
    "Presence",
    "REMEMBERED",
    "ShortWay",
    "Standing",
    "Turns",
    "Wishes",
    "arranged_elsewhere",
    "board_silent",
    "comparators",
    "rehearse",
    "room_for",
    "sleepers",
    "take_no_more",
    "untold",
)


def test_no_modules_import_each_other_in_a_circle() -> None:
    """import-linter compares siblings only; this includes a package and the modules in it."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    imports = {m: graph.find_modules_directly_imported_by(m) for m in graph.modules}
    TopologicalSorter(imports).prepare()  # raises CycleError, which names the modules


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_has_few_python_files(folder: str) -> None:
    folders = {file.parent for file in (ROOT / folder).rglob("*.py")}
    counts = {path.relative_to(ROOT).as_posix(): len(list(path.glob("*.py"))) for path in folders}
    crowded = {path: count for path, count in counts.items() if count > MAX_FILES_PER_FOLDER}
    assert crowded == {}


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_file_is_short(folder: str) -> None:
    lines = {f: len(f.read_text("utf-8").splitlines()) for f in (ROOT / folder).rglob("*.py")}
    long = {f.relative_to(ROOT).as_posix(): n for f, n in lines.items() if n > MAX_LINES_PER_FILE}
    assert long == {}


def test_no_retired_name_is_used() -> None:
    pattern = re.compile(rf"\b({'|'.join(RETIRED_NAMES)})\b")
    found = [
        f"{file.relative_to(ROOT)}: {match[0]}"
        for file in text_files()
        for match in pattern.finditer(file.read_text("utf-8"))
    ]
    assert found == []


def text_files() -> Iterator[Path]:
    """Code and documentation, without the changelog, which names what was replaced, and this file."""
    yield from (f for f in ROOT.iterdir() if f.suffix in TEXT_FILES and f.name != "CHANGELOG.md")
    for folder in (*FOLDERS, "docs", "examples"):
        for file in (ROOT / folder).rglob("*"):
            if file.suffix in TEXT_FILES and file != Path(__file__):
                yield file
