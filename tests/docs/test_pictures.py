"""Commands, options and pictures of docs/guide/pictures.md exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import typer

from offramp.cli import app

DOCUMENT = Path(__file__).parents[2] / "docs" / "guide" / "pictures.md"


def test_every_command_of_the_document_exists_with_its_options() -> None:
    blocks = re.findall(
        r"^```bash\n(.*?)^```", DOCUMENT.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    lines = [line for block in blocks for line in block.splitlines()]
    root: Any = typer.main.get_command(app)
    drawn = set()
    for line in lines:
        program, group, name, *arguments = shlex.split(line)
        assert (program, group) == ("offramp", "picture")
        command = root.commands[group].commands[name]
        command.make_context(name, list(arguments))  # raises on an option that is not there
        drawn.add(name)
    assert drawn == set(root.commands["picture"].commands)


def test_the_example_pictures_are_shown_and_small() -> None:
    shown = re.findall(
        r"!\[[^\]]+\]\(\.\./images/(picture-\w+\.\w+)\)", DOCUMENT.read_text("utf-8")
    )
    files = sorted((DOCUMENT.parents[1] / "images").glob("picture-*"))
    assert files
    assert sorted(shown) == [file.name for file in files]
    assert all(file.stat().st_size < 150_000 for file in files)
