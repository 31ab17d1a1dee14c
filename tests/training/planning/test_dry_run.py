"""The recipes that ship with Offramp take two steps with finite losses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from offramp.cli import app
from tests.training.runs import contents
from tests.training.teachers.recipes import run, student, teacher, view_files
from training.data.dataset import DatasetInfo
from training.errors import DivergedError, RecipeError
from training.planning.dry_run import dry_run
from training.recipes.files import load_recipe, recipe_file_names, write_recipe
from training.recipes.schema import DataRecipe
from training.recipes.table_recipes import table_recipe_names
from training.recipes.teacher import TeacherRecipe

# The size of the folder of the recipes whose data set is one.
GROCERY = DatasetInfo(224, 81, 2640)


def sampled_recipes() -> list[str]:
    """Every recipe file, a tenth of the recipes of each pair of the tables, those whose methods are the
    rarest among the pairs before it, and one recipe of every other method."""
    pairs: dict[str, list[str]] = {}
    for name in table_recipe_names():
        pairs.setdefault(_pair_and_method(name)[0], []).append(name)
    sampled: list[str] = []
    times_sampled: Counter[str] = Counter()
    for names in pairs.values():
        rarest_first = sorted(names, key=lambda name: times_sampled[_pair_and_method(name)[1]])
        chosen = rarest_first[: -(-len(names) // 10)]
        times_sampled.update(_pair_and_method(name)[1] for name in chosen)
        sampled += chosen
    by_method = {_pair_and_method(name)[1]: name for name in table_recipe_names()}
    sampled += [name for method, name in by_method.items() if not times_sampled[method]]
    return [*recipe_file_names(), *sampled]


def _pair_and_method(name: str) -> tuple[str, str]:
    data, pair, method, _ = name.split("/")
    return f"{data}/{pair}", method


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Such small networks are slower on several threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", sampled_recipes())
def test_a_recipe_passes_a_two_step_run(name: str) -> None:
    recipe = load_recipe(name)
    info = GROCERY if recipe.data.name == "folder" else None
    dry_run(recipe, device="cpu", shrink=8, batch_size=4, info=info)


def test_every_pair_and_every_method_is_among_the_recipes_that_are_run() -> None:
    sampled = {_pair_and_method(name) for name in sampled_recipes() if name.count("/") == 3}
    every = {_pair_and_method(name) for name in table_recipe_names()}
    assert {pair for pair, _ in sampled} == {pair for pair, _ in every}
    assert {method for _, method in sampled} == {method for _, method in every}


def test_a_dry_run_prints_what_the_run_needs_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["train", "digits-oto", "--dry-run"])
    assert result.exit_code == 0
    assert "resnet10 of width 4, 4 exits, " in result.stdout
    assert "peak memory: not measured on a CPU" in result.stdout
    assert "6 epochs of 17 steps: about " in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_says_how_large_the_teachers_views_are_and_whether_they_are_there(
    tmp_path: Path,
) -> None:
    recipe, runs = student(epochs=4), tmp_path / "runs"
    assert "teacher's views: 3, none are there: teacher is not trained yet" in str(
        dry_run(recipe, runs=runs, device="cpu")
    )
    run(runs, teacher())
    untouched = contents(runs)
    empty = str(dry_run(recipe, runs=runs, device="cpu"))
    assert "teacher's views: 3 of 0.02 MiB each, 0.06 MiB in " in empty
    assert "0 of them filled already" in empty
    assert "without evaluation and filling views" in empty
    assert contents(runs) == untouched
    run(runs, recipe)
    filled = str(dry_run(recipe, runs=runs, device="cpu"))
    assert f"{view_files(runs)[0].parent}, 3 of them filled already" in filled
    assert " 0 of the teacher" in filled


def test_a_dry_run_at_full_width_counts_parameters_and_macs() -> None:
    seen = dry_run(load_recipe("cifar100/resnet50-resnet18/sp"), device="cpu", batch_size=2)
    assert (seen.parameters, seen.macs) == (11_220_132, 555_468_800)
    assert seen.teacher_parameters == 23_705_252
    assert seen.steps_per_epoch == 24_500
    assert seen.seconds == pytest.approx(240 * 24_500 * seen.step_s)


@pytest.mark.parametrize("cell", ["vgg13-vgg8/oto", "wrn-40-2-wrn-16-2/crd", "wrn-40-2/heads"])
def test_a_recipe_passes_at_full_width(cell: str) -> None:
    dry_run(load_recipe(f"cifar100/{cell}"), device="cpu", batch_size=2)


def test_a_dry_run_includes_the_preparation() -> None:
    recipe = load_recipe("cifar100/vgg13-vgg8/sskd")
    seen = dry_run(recipe, device="cpu", shrink=8, batch_size=4)
    assert seen.preparation_epochs == 60
    assert seen.preparation_step_s > 0
    assert "60 epochs of preparation at " in str(seen)


def test_a_loss_that_is_not_finite_fails_the_dry_run() -> None:
    recipe = load_recipe("digits-teacher")
    wild = recipe.train.model_copy(update={"learning_rate": 1e30, "warmup_epochs": 0.0})
    with pytest.raises(DivergedError, match="the loss of a dry run"):
        dry_run(recipe.model_copy(update={"train": wild}), device="cpu")


def test_an_image_folder_has_no_dry_run() -> None:
    recipe = load_recipe("digits-teacher")
    images = DataRecipe(name="folder", path="photos", side=32, held_out=10)
    folder = recipe.model_copy(update={"data": images})
    with pytest.raises(RecipeError, match="is unknown before"):
        dry_run(folder, device="cpu")


@pytest.mark.parametrize(
    ("held_out", "batch_size", "message"),
    [
        (1397, 8, "data.held_out 1397 leaves none of the 1397 training images"),
        (0, 2000, "train.batch_size 2000 is larger than the 1397 training images"),
    ],
)
def test_a_recipe_that_cannot_be_run_has_no_dry_run(
    held_out: int, batch_size: int, message: str
) -> None:
    recipe = teacher()
    changes = {
        "data": recipe.data.model_copy(update={"held_out": held_out}),
        "train": recipe.train.model_copy(update={"batch_size": batch_size}),
    }
    with pytest.raises(RecipeError, match=message):
        dry_run(recipe.model_copy(update=changes), device="cpu")


def test_earlier_runs_are_found_among_the_finished_ones_and_the_recipe_files(
    tmp_path: Path,
) -> None:
    own = teacher().model_copy(update={"name": "own"})
    online = TeacherRecipe(recipe="own")
    recipe = student(epochs=1).model_copy(update={"teacher": online})
    with pytest.raises(RecipeError, match="there is no recipe 'own'"):
        dry_run(recipe, runs=tmp_path, device="cpu")
    write_recipe(own, tmp_path / "own.toml")
    from_file = dry_run(recipe, runs=tmp_path, device="cpu").teacher_parameters
    run(tmp_path, own)
    (tmp_path / "own.toml").unlink()
    assert dry_run(recipe, runs=tmp_path, device="cpu").teacher_parameters == from_file > 0


def test_of_images_it_is_not_said_how_many_views_are_filled(tmp_path: Path) -> None:
    recipe = student(epochs=4)
    run(tmp_path, teacher())
    images = DataRecipe(name="folder", path="photos", side=32, held_out=10)
    seen = dry_run(
        recipe.model_copy(update={"data": images}),
        runs=tmp_path,
        device="cpu",
        info=DatasetInfo(32, 10, 1397),
    )
    assert seen.views is not None
    assert seen.views.endswith("filled already is known when the images are read")
