"""A name like cifar100/vgg13-vgg8/oto determines a recipe."""

from __future__ import annotations

import pytest

from training.errors import RecipeError
from training.recipes.files import load_recipe
from training.recipes.table_definition import load_table
from training.recipes.table_recipes import (
    Cell,
    Variant,
    cell_recipe,
    find_table_recipe,
    prerequisites,
    table_recipe_names,
    with_prerequisites,
)
from training.table.selection import parse_seeds, select_cells


@pytest.mark.parametrize("name", table_recipe_names())
def test_every_name_and_its_prerequisites_can_be_loaded(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    for needed in prerequisites(recipe):
        theirs, ours = load_recipe(needed).data, recipe.data
        assert (theirs.name, theirs.held_out) == (ours.name, ours.held_out)


def test_the_tables_have_every_method_for_every_pair() -> None:
    names = table_recipe_names()
    assert len(names) == len(set(names))
    for table in map(load_table, ("cifar100", "tiny-imagenet")):
        for pair in table.pairs:
            for row in table.listed:
                assert cell_recipe(table, Cell(pair, row), Variant(), 0).name in names


def test_without_a_seed_seed_zero_is_used() -> None:
    assert load_recipe("cifar100/vgg13-vgg8/oto") == load_recipe("cifar100/vgg13-vgg8/oto/seed0")
    assert load_recipe("cifar100/vgg13-vgg8/oto/seed2").seed == 2


def test_a_network_alone_is_one_run_for_all_its_pairs() -> None:
    names = {
        load_recipe(f"cifar100/{pair}/baseline").name
        for pair in ("resnet152-resnet18", "resnet50-resnet18")
    }
    assert names == {"cifar100/resnet18/baseline/seed0"}


def test_otos_teacher_has_heads_on_the_frozen_single_exit_that_teaches_mskd() -> None:
    oto, mskd = (load_recipe(f"cifar100/vgg13-vgg8/{row}") for row in ("oto", "mskd"))
    assert oto.teacher is not None
    assert mskd.teacher is not None
    heads = load_recipe(oto.teacher.recipe)
    assert heads.start is not None
    assert heads.start.frozen
    assert heads.start.recipe == mskd.teacher.recipe == "cifar100/vgg13/baseline/seed0"
    assert (heads.network.exits, heads.train.epochs) == ((1, 2, 3, 4), 100)


def test_the_two_readings_of_the_star_differ_from_oto_in_one_value_each() -> None:
    oto, augmented, joint = (
        load_recipe(f"cifar100/vgg13-vgg8/{row}") for row in ("oto", "oto-autoaugment", "oto-joint")
    )
    assert augmented.teacher == oto.teacher
    assert (oto.data.autoaugment, augmented.data.autoaugment) == (None, "cifar10")
    assert joint.data == oto.data
    assert joint.teacher is not None
    assert load_recipe(joint.teacher.recipe).start is None
    assert load_recipe(joint.teacher.recipe).network.exits == (1, 2, 3, 4)


def test_students_of_all_seeds_have_the_same_teacher() -> None:
    teachers = {load_recipe(f"cifar100/vgg13-vgg8/kd/seed{seed}").teacher for seed in (0, 1, 2)}
    assert len(teachers) == 1


def test_wide_residual_networks_have_three_exits() -> None:
    recipe = load_recipe("cifar100/wrn-40-2-wrn-16-2/oto")
    assert recipe.network.exits == (1, 2, 3)


def test_prerequisites_come_first_and_once() -> None:
    table = load_table("cifar100")
    cells = select_cells(table, "vgg13-vgg8/oto,vgg13-vgg8/mskd,resnet50-vgg8/baseline")
    names = [r.name for r in with_prerequisites(cell_recipe(table, c, Variant(), 0) for c in cells)]
    assert names == [
        "cifar100/vgg8/baseline/seed0",
        "cifar100/vgg13/baseline/seed0",
        "cifar100/vgg13-vgg8/mskd/seed0",
        "cifar100/vgg13/heads/seed0",
        "cifar100/vgg13-vgg8/oto/seed0",
    ]


def test_fewer_epochs_scale_the_milestones_and_appear_in_every_name() -> None:
    recipe = load_recipe("cifar100/vgg13-vgg8/oto/epochs24/seed1")
    assert (recipe.train.epochs, recipe.train.milestones) == (24, (15, 18, 21))
    assert recipe.teacher is not None
    assert recipe.teacher.recipe == "cifar100/vgg13/heads/epochs24/seed0"
    heads = load_recipe(recipe.teacher.recipe)
    assert (heads.train.epochs, heads.train.milestones) == (10, (3, 6, 9))
    assert heads.start is not None
    assert heads.start.recipe == "cifar100/vgg13/baseline/epochs24/seed0"


def test_fewer_epochs_shorten_a_methods_preparation_too() -> None:
    objective = load_recipe("cifar100/vgg13-vgg8/sskd/epochs24").objective
    assert getattr(objective, "preparation", None) == 6


def test_equal_milestones_and_those_past_the_end_are_dropped() -> None:
    assert load_recipe("cifar100/vgg8/baseline/epochs2").train.milestones == (1,)
    assert load_recipe("cifar100/vgg8/baseline/epochs1").train.milestones == ()


def test_another_width_applies_to_teacher_and_student() -> None:
    recipe = load_recipe("cifar100/vgg13-vgg8/kd/epochs24-width16")
    assert recipe.network.width == 16
    assert recipe.teacher is not None
    assert load_recipe(recipe.teacher.recipe).network.width == 16


@pytest.mark.parametrize("row", ["kd", "mskd", "oto", "oto-autoaugment"])
def test_views_are_for_rows_that_need_nothing_but_the_teachers_logits(row: str) -> None:
    recipe = load_recipe(f"cifar100/vgg13-vgg8/{row}/epochs24-width32-views24/seed1")
    online = load_recipe(f"cifar100/vgg13-vgg8/{row}/epochs24-width32/seed1")
    assert recipe.teacher is not None
    assert online.teacher is not None
    assert (recipe.teacher.views, online.teacher.views) == (24, None)
    assert recipe.teacher.recipe == online.teacher.recipe
    same = {"name": recipe.name, "teacher": recipe.teacher}
    assert online.model_copy(update=same) == recipe


@pytest.mark.parametrize("row", ["baseline", "self-distillation", "fitnet", "tskd"])
def test_other_rows_are_the_same_runs_with_views_and_without(row: str) -> None:
    table = load_table("cifar100")
    (cell,) = select_cells(table, f"vgg13-vgg8/{row}")
    with_views, without = (Variant(24, 32, views=views) for views in (24, None))
    assert with_views.name == "epochs24-width32-views24"
    assert cell_recipe(table, cell, with_views, 0) == cell_recipe(table, cell, without, 0)


def test_teachers_may_be_trained_for_longer_than_their_students() -> None:
    name = "cifar100/vgg13-vgg8/oto/epochs12-width32-teacher36-views12/seed1"
    recipe = load_recipe(name)
    assert (recipe.name, recipe.train.epochs) == (name, 12)
    assert recipe.teacher is not None
    assert recipe.teacher.recipe == "cifar100/vgg13/heads/epochs36-width32/seed0"
    heads = load_recipe(recipe.teacher.recipe)
    assert (heads.train.epochs, heads.network.width) == (15, 32)
    assert heads.start is not None
    assert heads.start.recipe == "cifar100/vgg13/baseline/epochs36-width32/seed0"
    assert load_recipe(heads.start.recipe).train.epochs == 36


def test_a_teachers_epochs_concern_the_rows_that_have_one() -> None:
    table = load_table("cifar100")
    longer, same = Variant(12, 32, 36, views=12), Variant(12, 32)
    names = {
        cell.row.key: cell_recipe(table, cell, longer, 0).name.split("/")[3]
        for cell in select_cells(table, "vgg13-vgg8/*")
    }
    assert {names[row] for row in ("kd", "mskd", "oto")} == {longer.name}
    assert {names[row] for row in ("fitnet", "tskd")} == {"epochs12-width32-teacher36"}
    assert {names[row] for row in ("baseline", "self-distillation")} == {same.name}


@pytest.mark.parametrize(
    "name",
    [
        "cifar100/vgg13-vgg8/multi-exit/epochs12-teacher36",
        "cifar100/vgg13/baseline/teacher36",
        "cifar100/vgg13-vgg8/oto/epochs36-teacher36",
        "cifar100/vgg13-vgg8/oto/teacher240",
        "cifar100/vgg13-vgg8/oto/views24-teacher36",
        "cifar100/vgg13-vgg8/baseline/epochs24-views24",
        "cifar100/vgg13-vgg8/fitnet/views24",
        "cifar100/vgg13-vgg8/oto/views24-epochs24",
        "cifar100/vgg13-vgg8/oto/views0",
        "cifar100/vgg13-vgg8/nothing",
        "cifar100/vgg8-vgg13/oto",
        "cifar100/vgg13/oto",
        "cifar100/vgg13-vgg8/oto/seed01",
        "cifar100/vgg13-vgg8/oto/epochs240",
        "cifar100/vgg13-vgg8/oto/width16-epochs24",
        "cifar100/vgg13-vgg8/oto/seed0/epochs24",
        "cifar100/vgg13-vgg8",
        "imagenet/vgg13-vgg8/oto",
    ],
)
def test_other_names_are_refused(name: str) -> None:
    assert find_table_recipe(name) is None
    with pytest.raises(RecipeError, match="as in cifar100/vgg13-vgg8/oto"):
        load_recipe(name)


def test_an_impossible_width_is_refused_in_one_sentence() -> None:
    with pytest.raises(RecipeError, match=r"network\.width") as caught:
        load_recipe("cifar100/vgg13-vgg8/oto/width2")
    assert "\n" not in str(caught.value)


def test_patterns_select_rows_in_the_tables_order() -> None:
    table = load_table("cifar100")
    chosen = [cell.name for cell in select_cells(table, "wrn*/oto, vgg13-vgg8/?skd")]
    assert chosen == [
        "vgg13-vgg8/sskd",
        "vgg13-vgg8/tskd",
        "vgg13-vgg8/mskd",
        "wrn-40-2-wrn-16-2/oto",
    ]
    assert len(select_cells(table, "*")) == 7 * 26
    assert len(select_cells(table, "vgg13-vgg8")) == 26


def test_a_pattern_that_matches_nothing_is_refused_with_the_possible_names() -> None:
    with pytest.raises(RecipeError, match=r"matches 'vgg13-vgg8/heads'.*resnet50-vgg8.*oto") as e:
        select_cells(load_table("cifar100"), "vgg13-vgg8/oto,vgg13-vgg8/heads")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("text", ["", "0,", "a", "-1", "0.5"])
def test_invalid_seeds_are_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="--seeds takes whole numbers"):
        parse_seeds(text)


def test_seeds_are_counted_once() -> None:
    assert parse_seeds("2, 0,2") == [2, 0]
