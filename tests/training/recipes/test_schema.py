"""Recipes are read completely or refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import call
from training.data.cifar import FILE_MD5, FOLDER
from training.errors import RecipeError
from training.recipes.files import load_recipe, recipe_file_names, to_toml
from training.recipes.schema import Recipe

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
    assert recipe.followed_by is None


def test_a_recipe_may_name_the_run_that_follows(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, 'followed_by = "group/big"' + GOOD))
    assert recipe.followed_by == "group/big"
    assert load_recipe(written(tmp_path, to_toml(recipe))) == recipe


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
        (('"mine"', '"mine"\nfollowed_by = "mine"'), "mine cannot be followed by itself"),
        (('"mine"', '"mine"\nfollowed_by = "../other"'), "followed_by"),
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
        (("width = 8", "width = 8\nchannels = [8]"), "resnet10 takes no channels"),
        (("width = 8", 'width = 8\nstem = "cifar"'), "resnet10 takes no stem"),
        (("width = 8", "width = 8\nexits_after = [4]"), "resnet10 takes no exits_after"),
        (("resnet10", "alexnet"), "network.name: .*'resnet'.*'resnet10'.*'torchvision-resnet18'"),
        (('method = "cross_entropy"', ""), "objective.method: Field required"),
        (("held_out = 100", "held_out = 100\nheld_out_seed = -1"), "data.held_out_seed"),
        (("held_out = 100", f"held_out = 100\ncutout = {10**30}"), "data.cutout"),
        (('"mine"', f'"mine"\nseed = {2**44}'), "seed"),
        (("epochs = 1", "epochs = 1\nwarmup_epochs = 1e308"), "warmup_epochs must be at most"),
        (('"cross_entropy"', '"cross_entropy"\nexit_weights = [0, 0, 0, 0]'), "must be above 0"),
        (('"mine"', '"mine"\naverage_with = "mine"'), "mine cannot be averaged with itself"),
    ],
)
def test_a_mistake_is_named_in_one_sentence(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(written(tmp_path, GOOD.replace(*change)))
    assert "\n" not in str(caught.value)


def general(*lines: str) -> str:
    """GOOD with a general resnet of these lines."""
    return GOOD.replace('"resnet10"\nwidth = 8', "\n".join(('"resnet"', *lines)))


def test_a_general_resnet_has_an_exit_after_each_group_or_wherever_it_is_asked_for(
    tmp_path: Path,
) -> None:
    groups = ("channels = [32, 64, 160, 320]", "blocks = [1, 2, 3, 2]")
    network = load_recipe(written(tmp_path, general(*groups))).network
    assert (network.exits_after, network.exits, network.stem) == (
        (1, 3, 6, 8),
        (1, 2, 3, 4),
        "cifar",
    )
    assert (network.width, network.stages) == (None, 4)
    assert network.title == "resnet of channels 32-64-160-320 and blocks 1-2-3-2"
    whole = load_recipe(
        written(tmp_path, general(*groups, "exits_after = [1, 4, 8]", 'stem = "imagenet"'))
    )
    assert (whole.network.exits_after, whole.network.exits) == ((1, 4, 8), (1, 2, 3))
    assert whole.network.stem == "imagenet"
    again = written(tmp_path, to_toml(whole))
    assert load_recipe(again) == whole
    assert Recipe.model_validate_json(whole.model_dump_json()) == whole


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (("channels = [8]",), "resnet needs blocks"),
        (("blocks = [1]",), "resnet needs channels"),
        (("channels = [8, 16]", "blocks = [1]"), "one entry a group, not 2 and 1"),
        (("channels = []", "blocks = []"), "network.channels"),
        (("channels = [2]", "blocks = [1]"), "network.channels"),
        (("channels = [8]", "blocks = [0]"), "network.blocks"),
        (("channels = [8]", "blocks = [1]", "width = 8"), "has its own width"),
        (("channels = [8]", "blocks = [3]", "exits_after = [1, 2]"), "end with 3, the last block"),
        (("channels = [8]", "blocks = [3]", "exits_after = [0, 3]"), "increase from 1"),
        (("channels = [8]", "blocks = [3]", "exits_after = [2, 1, 3]"), "increase from 1"),
        (("channels = [8]", "blocks = [3]", "exits_after = []"), "end with 3, the last block"),
        (("channels = [8]", "blocks = [3]", "exits = [2]"), "end with 1, the last stage"),
        (("channels = [8]", "blocks = [3]", 'stem = "none"'), "network.stem"),
        (
            ("channels = [8]", "blocks = [33]", f"exits_after = {list(range(1, 34))}"),
            "33 exits, and at most 32 can be served",
        ),
    ],
)
def test_a_general_resnet_that_makes_no_sense_is_refused_in_one_sentence(
    tmp_path: Path, lines: tuple[str, ...], says: str
) -> None:
    with pytest.raises(RecipeError, match=says) as caught:
        load_recipe(written(tmp_path, general(*lines)))
    assert "\n" not in str(caught.value)


def start_from(network: str, weights: str) -> str:
    text = GOOD.replace('"resnet10"\nwidth = 8', f'"{network}"')
    return text.replace("[objective]", f'[start]\nweights = "{weights}"\n[objective]')


def test_efficientnet_lite_starts_from_imagenet_or_a_file(tmp_path: Path) -> None:
    for weights in ("imagenet", "weights.pth"):
        recipe = load_recipe(written(tmp_path, start_from("efficientnet-lite0", weights)))
        assert recipe.start is not None
        assert (recipe.start.weights, recipe.network.title) == (weights, "efficientnet-lite0")
        assert (recipe.network.width, recipe.network.exits) == (None, (1, 2, 3, 4))


@pytest.mark.parametrize(
    ("network", "weights", "says"),
    [
        ("efficientnet-lite2", "torchvision", '"imagenet" or a file, not "torchvision"'),
        ("torchvision-resnet18", "imagenet", '"torchvision" or a file, not "imagenet"'),
        ("vgg8", "imagenet", "for torchvision's networks and EfficientNet-Lite, not vgg8"),
        ("efficientnet-lite1", "imagenet", "network.name"),
    ],
)
def test_weights_of_another_source_are_refused(
    tmp_path: Path, network: str, weights: str, says: str
) -> None:
    with pytest.raises(RecipeError, match=says):
        load_recipe(written(tmp_path, start_from(network, weights)))


def test_a_seed_that_no_generator_takes_is_refused_in_a_name_too() -> None:
    with pytest.raises(RecipeError, match="seed"):
        load_recipe("digits/resnet18-resnet10/oto/seed99999999999999999")


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
