"""The training commands: light to load, and every mistake is reported in one sentence."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from offramp.cli import app, main
from training.assemble import load_teacher
from training.data.load import load_dataset
from training.errors import RecipeError
from training.recipes.files import load_recipe


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table", "imagenet"], "there is no table 'imagenet'"),
        (["table", "digits", "--rows", "vgg13-vgg8/oto"], "matches 'vgg13-vgg8/oto'"),
        (["table", "cifar100", "--rows", "vgg13-vgg8/kd", "--train"], "--download"),
        (["train", "cifar100/vgg13-vgg8/oto/seed1"], "--download"),
        (["recipe", "cifar100/vgg13-vgg8/none"], "as in cifar100/vgg13-vgg8/oto"),
    ],
)
def test_a_mistake_is_reported_in_one_sentence_and_writes_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.delenv("OFFRAMP_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["offramp", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    error = capsys.readouterr().err
    assert left.value.code == 2
    assert error.startswith("offramp: ")
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_message_for_a_missing_teacher_names_its_recipe(tmp_path: Path) -> None:
    student = load_recipe("digits/resnet18-resnet10/oto/epochs2")
    with pytest.raises(RecipeError) as missing:
        load_teacher(student, load_dataset(student.data, tmp_path), tmp_path)
    (named,) = re.findall("`offramp train (.*)`", str(missing.value))
    assert load_recipe(named).name == named == "digits/resnet18/heads/epochs2/seed0"


def test_the_message_for_a_missing_teacher_names_its_file_if_that_is_there(tmp_path: Path) -> None:
    recipe = load_recipe("digits-oto")
    assert recipe.teacher is not None
    teacher = recipe.teacher.model_copy(update={"recipe": "mine"})
    student = recipe.model_copy(update={"teacher": teacher})
    data = load_dataset(student.data, tmp_path)
    with pytest.raises(RecipeError, match="train the recipe called mine first"):
        load_teacher(student, data, tmp_path)
    (tmp_path / "mine.toml").touch()
    with pytest.raises(RecipeError) as missing:
        load_teacher(student, data, tmp_path)
    assert f"`offramp train {tmp_path}/mine.toml --runs {tmp_path}`" in str(missing.value)


def test_loading_the_command_line_does_not_load_torch_or_matplotlib() -> None:
    code = "import sys, offramp.cli; print({'torch', 'tomli_w', 'matplotlib'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_width_that_no_recipe_has_is_refused() -> None:
    refused = CliRunner().invoke(app, ["table", "digits", "--width", "0"])
    assert refused.exit_code == 2
    assert "greater than or equal to 4" in refused.output


def test_a_printed_recipe_can_be_loaded(tmp_path: Path) -> None:
    printed = CliRunner().invoke(app, ["recipe", "cifar100/vgg13-vgg8/sskd/epochs24"])
    path = tmp_path / "mine.toml"
    path.write_text(printed.stdout)
    assert load_recipe(str(path)) == load_recipe("cifar100/vgg13-vgg8/sskd/epochs24")


def test_all_recipes_are_listed() -> None:
    listed = CliRunner().invoke(app, ["recipe"]).stdout.split()
    assert {"digits-oto", "tiny-imagenet/resnet34-resnet18/afd/seed0"} <= set(listed)
