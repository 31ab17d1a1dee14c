"""Recipes are read completely or refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import call
from training.data.cifar import FILE_MD5, FOLDER
from training.errors import RecipeError
from training.recipes.files import load_recipe, recipe_file_names

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

OTO = '"oto"\n[teacher]\nrecipe = "digits-teacher"'


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", recipe_file_names())
def test_shipped_recipes_are_valid_and_named_after_their_file(name: str) -> None:
    assert load_recipe(name).name == name


def test_a_recipe_file_is_read(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, GOOD))
    assert (recipe.name, recipe.network.width, recipe.train.precision) == ("mine", 8, "bf16")


@pytest.mark.parametrize(
    ("name", "width", "exits"),
    [
        ("resnet50", 64, (1, 2, 3, 4)),
        ("vgg8", 64, (1, 2, 3, 4)),
        ("wrn-16-2", 32, (1, 2, 3)),
        ("wrn-40-2", 32, (1, 2, 3)),
    ],
)
def test_a_network_is_by_default_the_published_one_with_all_exits(
    tmp_path: Path, name: str, width: int, exits: tuple[int, ...]
) -> None:
    text = GOOD.replace('"resnet10"\nwidth = 8', f'"{name}"')
    network = load_recipe(written(tmp_path, text)).network
    assert (network.width, network.exits, network.heads) == (width, exits, "sepconv")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("epochs = 1", "epochs = 1\nepoch = 2"), "train.epoch"),
        (("epochs = 1", "epochs = 0"), "train.epochs"),
        (("resnet10", "resnet11"), "network.name"),
        (("cross_entropy", "oto"), r"objective oto needs a \[teacher\]"),
        (("width = 8", "width = 8\nexits = [1, 3]"), "end with 4"),
        (("width = 8", "width = 8\nexits = [0, 4]"), "count from 1"),
        (('"cross_entropy"', '"cross_entropy"\nexit_weights = [1, 2]'), "4 exits but 2"),
        (("epochs = 1", "epochs = 3\nmilestones = [2, 3]"), "before the last epoch"),
        (('"cross_entropy"', '"boosting"'), "objective"),
        (('"cross_entropy"', '"sp"\nalhpa = 1'), "alhpa"),
        (("[train]", "[train"), "not valid TOML"),
        (('name = "mine"', 'name = "../mine"'), "name"),
        (("[objective]", '[teacher]\nrecipe = "t"\n[objective]'), "takes no"),
        (
            ('"cross_entropy"', '"kd"\n[teacher]\nrecipe = "t"'),
            r"set network.exits = \[4\]",
        ),
        (('"resnet10"', '"wrn-16-2"\nexits = [2, 4]'), "end with 3"),
        (
            (
                '"resnet10"\nwidth = 8\n[objective]\nmethod = "cross_entropy"',
                '"wrn-16-2"\n[objective]\nmethod = "kd"\n[teacher]\nrecipe = "t"',
            ),
            r"set network.exits = \[3\]",
        ),
        (("width = 8", 'width = 8\nheads = "none"'), "network.heads"),
    ],
)
def test_a_mistake_is_named_in_one_sentence(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(written(tmp_path, GOOD.replace(*change)))
    assert "\n" not in str(caught.value)


def test_the_message_for_an_unknown_name_lists_the_recipes() -> None:
    with pytest.raises(RecipeError, match="digits-oto"):
        load_recipe("nothing-like-it")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "missing.toml"], "cannot be read"),
        (["train", "digits-oto"], "offramp train digits-teacher"),
        (["train", "cifar100-teacher"], "--download"),
        (["export", "nowhere", "-o", "bundle"], "no finished checkpoint"),
    ],
)
def test_the_command_line_prints_one_sentence_and_exits_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = call(*arguments, "--data", "data")
    assert done.refused_in_one_sentence
    assert message in done.err
    assert list(tmp_path.iterdir()) == []


def cut_short(place: Path) -> list[str]:
    """CIFAR-100 with only the first byte of each file."""
    (place / FOLDER).mkdir()
    for name in FILE_MD5:
        (place / FOLDER / name).write_bytes(b"\x80")
    return ["train", "cifar100-teacher"]


def unknown_key(place: Path) -> list[str]:
    return ["train", written(place, GOOD.replace("epochs = 1", "epochs = 1\nepoch = 2"))]


def impossible_pair(place: Path) -> list[str]:
    student = GOOD.replace("width = 8", "exits = [4]").replace("held_out = 100", "held_out = 300")
    return ["train", written(place, student.replace('"cross_entropy"', OTO))]


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (cut_short, "md5"),
        (unknown_key, "train.epoch: Extra inputs are not permitted"),
        (impossible_pair, "teacher digits-teacher has 4 exits and mine 1"),
    ],
)
def test_an_impossible_training_is_refused_in_one_sentence_and_writes_nothing(
    workplace: Path, tmp_path: Path, mistake: Callable[[Path], list[str]], message: str
) -> None:
    arguments = mistake(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    done = call(*arguments, "--data", tmp_path, "--runs", workplace / "runs")
    assert done.refused_in_one_sentence
    assert message in done.err
    assert sorted(tmp_path.rglob("*")) == before
    runs = {path.name for path in (workplace / "runs").iterdir()}
    assert runs == {"digits-teacher", "digits-oto"}
