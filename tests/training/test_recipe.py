"""Recipes are read whole or refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import offramp
from training.errors import RecipeError
from training.recipe_files import load_recipe, shipped_recipes

GOOD = """
name = "mine"
[data]
name = "digits"
held_out = 100
[network]
name = "resnet10"
width = 8
[objective]
method = "cross_entropy"
[train]
epochs = 1
"""


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_are_valid_and_bear_their_files_name(name: str) -> None:
    assert load_recipe(name).name == name


def test_a_recipe_file_is_read(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, GOOD))
    assert (recipe.name, recipe.network.width, recipe.train.precision) == ("mine", 8, "bf16")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("epochs = 1", "epochs = 1\nepoch = 2"), "train.epoch"),
        (("epochs = 1", "epochs = 0"), "train.epochs"),
        (("resnet10", "resnet11"), "network.name"),
        (("cross_entropy", "oto"), r"objective oto needs a \[teacher\]"),
        (("width = 8", "width = 8\nexits = [1, 3]"), "end with 4"),
        (("width = 8", "width = 8\nexits = [0, 4]"), "count from 1"),
        (("[train]", "[train"), "not valid TOML"),
        (('name = "mine"', 'name = "../mine"'), "name"),
        (("[objective]", '[teacher]\nrecipe = "t"\n[objective]'), "takes no"),
        (
            ('"cross_entropy"', '"kd"\n[teacher]\nrecipe = "t"'),
            r"set network.exits = \[4\]",
        ),
    ],
)
def test_a_mistake_is_named_in_one_sentence(
    tmp_path: Path, change: tuple[str, str], says: str
) -> None:
    with pytest.raises(RecipeError, match=says) as caught:
        load_recipe(written(tmp_path, GOOD.replace(*change)))
    assert "\n" not in str(caught.value)


def test_an_unknown_name_lists_what_there_is() -> None:
    with pytest.raises(RecipeError, match="digits-oto"):
        load_recipe("nothing-like-it")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "missing.toml"], "cannot be read"),
        (["train", "digits-oto"], "offramp train digits-teacher"),
        (["train", "cifar100-teacher"], "--download"),
        (["export", "nowhere", "-o", "bundle"], "no finished checkpoint"),
    ],
)
def test_the_command_line_says_one_sentence_and_leaves_with_2(
    tmp_path: Path, arguments: list[str], says: str
) -> None:
    done = offramp(*arguments, *(["--data", "data"]), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("offramp: ")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
