"""Options of the commands that write a bundle are checked before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from exports.bundle.schema_types import is_file_name
from exports.source import bundle_name
from tests.commands import call

COMMANDS = {
    "export": ("export", "no-run"),
    "cascade": ("cascade", "a.onnx", "b.onnx", "--calibrate", "no-photos"),
    "front": ("front", "a.onnx", "--data", "no-photos"),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("option", ["--name", "--version"])
@pytest.mark.parametrize("value", ["my model", "a" * 101, "-a", "a/b", "a\n", ""])
def test_a_name_that_a_bundle_cannot_have_is_refused_first(
    tmp_path: Path, command: str, option: str, value: str
) -> None:
    done = call(*COMMANDS[command], "-o", tmp_path / "out", f"{option}={value}")
    assert done.refused_in_one_sentence
    assert f"{option} takes at most 100 letters, digits" in done.err


@pytest.mark.parametrize("text", ["resnet18/cifar100", "a" * 150, "my photos", "..", "été"])
def test_the_name_of_a_recipe_or_a_file_becomes_one_that_a_bundle_can_have(text: str) -> None:
    assert is_file_name(bundle_name(text))
