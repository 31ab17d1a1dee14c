"""A recipe's teacher is one finished run or ONNX classifiers, and fits the objective."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands import call
from training.errors import RecipeError
from training.recipes.files import load_recipe, to_toml
from training.recipes.schema import Recipe

TEXT = """
name = "mine"
[data]
name = "digits"
held_out = 100
[network]
name = "resnet10"
width = 8
EXITS
[objective]
method = "METHOD"
[teacher]
TEACHER
[train]
epochs = 1
"""
UINT8 = 'onnx = ["a.onnx", "b.onnx"]\nonnx_input = "uint8-nhwc"'
NORMALISED = 'onnx = ["a.onnx"]\nonnx_mean = [0.5, 0.5, 0.5]\nonnx_std = [0.2, 0.2, 0.2]'


def write(tmp_path: Path, teacher: str, method: str = "mskd", exits: str = "") -> str:
    text = TEXT.replace("TEACHER", teacher).replace("METHOD", method).replace("EXITS", exits)
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return str(path)


def load(tmp_path: Path, teacher: str, method: str = "mskd", exits: str = "") -> Recipe:
    return load_recipe(write(tmp_path, teacher, method, exits))


def test_a_run_teaches_online_unless_views_are_named(tmp_path: Path) -> None:
    online, cached = (
        load(tmp_path, f'recipe = "t"\n{views}').teacher for views in ("", "views = 24")
    )
    assert online is not None
    assert online.model_dump(exclude_none=True, exclude={"undamaged"}) == {"recipe": "t"}
    assert cached is not None
    assert cached.model_dump(exclude_none=True) == {"recipe": "t", "views": 24, "undamaged": False}


@pytest.mark.parametrize("teacher", [UINT8, NORMALISED])
def test_onnx_classifiers_teach_through_24_views_and_return_logits(
    tmp_path: Path, teacher: str
) -> None:
    recipe = load(tmp_path, teacher).teacher
    assert recipe is not None
    assert (recipe.views, recipe.onnx_output, recipe.recipe) == (24, "logits", None)


@pytest.mark.parametrize("teacher", [UINT8, NORMALISED, 'recipe = "t"\nviews = 3'])
def test_the_printed_recipe_has_all_values_and_is_read_back_the_same(
    tmp_path: Path, teacher: str
) -> None:
    path = write(tmp_path, teacher)
    printed = call("recipe", path).out
    assert "views = " in printed
    (tmp_path / "printed.toml").write_text(printed)
    assert load_recipe(str(tmp_path / "printed.toml")) == load_recipe(path)
    assert to_toml(load_recipe(path)) == printed


@pytest.mark.parametrize(
    ("teacher", "method", "message"),
    [
        ("", "mskd", "give either recipe or onnx"),
        (f'recipe = "t"\n{UINT8}', "mskd", "give either recipe or onnx"),
        ('recipe = "t"\nviews = 0', "mskd", "teacher.views"),
        ('recipe = "t"\nonnx_mean = [0, 0, 0]', "mskd", "need onnx"),
        ("onnx = []", "mskd", "teacher.onnx"),
        ('onnx = ["a.onnx"]', "mskd", "either onnx_input"),
        ('onnx = ["a.onnx"]\nonnx_mean = [0, 0, 0]', "mskd", "either onnx_input"),
        (f"{UINT8}\nonnx_mean = [0, 0, 0]\nonnx_std = [1, 1, 1]", "mskd", "either onnx_input"),
        (NORMALISED.replace("0.2]", "0]"), "mskd", "onnx_std"),
        (f'{UINT8}\nonnx_output = "scores"', "mskd", "onnx_output"),
        (UINT8, "oto", "teacher.onnx is for kd and mskd, not for oto"),
        ('recipe = "t"\nviews = 3', "tskd", "tskd needs more of the teacher than its logits"),
    ],
)
def test_an_impossible_teacher_is_refused_in_one_sentence(
    tmp_path: Path, teacher: str, method: str, message: str
) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        load(tmp_path, teacher, method)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ["fitnet", "crd", "sskd", "hsakd"])
def test_methods_that_need_features_refuse_views(tmp_path: Path, method: str) -> None:
    with pytest.raises(RecipeError, match=r"leave out teacher\.views"):
        load(tmp_path, 'recipe = "t"\nviews = 3', method, "exits = [4]")
    with pytest.raises(RecipeError, match=r"teacher\.onnx is for kd and mskd"):
        load(tmp_path, UINT8, method, "exits = [4]")
