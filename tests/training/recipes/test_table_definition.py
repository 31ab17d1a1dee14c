"""The tables have the rows, pairs and published figures of the paper."""

from __future__ import annotations

import pytest

from training.errors import RecipeError
from training.recipes.table_definition import Table, load_table, table_names


def published(table: Table, cell: str) -> float | None:
    pair, row = table.pair(cell.partition("/")[0]), table.row(cell.partition("/")[2])
    assert pair is not None
    assert row is not None
    return table.published(pair, row)


def test_there_are_seven_cifar100_pairs_and_two_of_tiny_imagenet() -> None:
    assert [len(load_table(name).pairs) for name in ("cifar100", "tiny-imagenet")] == [7, 2]


def test_every_row_of_the_papers_tables_is_there() -> None:
    cifar = [row.key for row in load_table("cifar100").listed if row.published]
    assert " ".join(cifar) == (
        "kd fitnet at sp cc vid rkd pkt ab ft crd sskd hsakd tskd mskd oto oto-autoaugment oto-joint"
    )
    tiny = [row.key for row in load_table("tiny-imagenet").listed if row.published]
    assert " ".join(tiny) == "kd fitnet at sp vid rkd pkt crd afd mskd oto"


@pytest.mark.parametrize("name", ["cifar100", "tiny-imagenet"])
def test_every_control_row_exists_with_and_without_autoaugment(name: str) -> None:
    table = load_table(name)
    for key in ("baseline", "multi-exit", "self-distillation", "kd"):
        plain, augmented = table.row(key), table.row(f"{key}-autoaugment")
        assert plain is not None
        assert augmented is not None
        assert (plain.autoaugment, augmented.autoaugment) == (False, True)
        assert plain.objective == augmented.objective


@pytest.mark.parametrize(
    ("name", "cell", "figure"),
    [
        ("cifar100", "resnet152-resnet50/kd", 79.69),
        ("cifar100", "resnet152-resnet18/at", 80.19),
        ("cifar100", "resnet152-resnet10/rkd", 77.90),
        ("cifar100", "resnet50-resnet18/crd", 74.58),
        ("cifar100", "resnet50-vgg8/sskd", 75.36),
        ("cifar100", "vgg13-vgg8/oto", 76.27),
        ("cifar100", "wrn-40-2-wrn-16-2/hsakd", 78.20),
        ("cifar100", "resnet152-resnet18/oto-joint", 82.63),
        ("cifar100", "resnet152-resnet18/oto-autoaugment", 82.63),
        ("cifar100", "resnet152-resnet10/baseline", 76.19),
        ("cifar100", "wrn-40-2-wrn-16-2/baseline", None),
        ("cifar100", "vgg13-vgg8/afd", None),
        ("tiny-imagenet", "resnet34-resnet18/afd", 68.56),
        ("tiny-imagenet", "resnet34-resnet34/oto", 71.38),
        ("tiny-imagenet", "resnet34-resnet18/baseline", 64.40),
        ("tiny-imagenet", "resnet34-resnet18/oto-joint", None),
    ],
)
def test_published_figures_equal_the_papers(name: str, cell: str, figure: float | None) -> None:
    assert published(load_table(name), cell) == figure


def test_published_exits_equal_the_papers() -> None:
    oto = load_table("cifar100").row("oto")
    assert oto is not None
    assert oto.published_exits["resnet50-vgg8"] == (71.20, 69.79, 70.95, 72.98)
    assert len(oto.published_exits) == 6
    tiny = load_table("tiny-imagenet").row("oto")
    assert tiny is not None
    assert tiny.published_exits["resnet34-resnet34"] == (59.52, 63.80, 68.65, 70.38)


def test_the_reasons_of_doubts_hold_for_the_published_figures() -> None:
    for name in table_names():
        table = load_table(name)
        for doubt in table.doubts:
            figures = [published(table, cell) for cell in doubt.cells]
            if doubt.why.startswith("both are"):
                assert len(set(figures)) == 1
                assert f"{figures[0]:.2f}" in doubt.why
            if doubt.why.startswith("below the student"):
                bound = float(doubt.why.rpartition(" ")[2])
                assert all(figure is not None and figure < bound for figure in figures)
                assert published(table, f"{doubt.cells[0].partition('/')[0]}/baseline") == bound


def test_all_methods_of_a_table_share_one_protocol() -> None:
    train = load_table("cifar100").train
    assert (train.epochs, train.batch_size, train.learning_rate) == (240, 64, 0.05)
    assert (train.milestones, train.weight_decay) == ((150, 180, 210), 5e-4)
    assert load_table("tiny-imagenet").train == train


def test_the_message_for_an_unknown_table_lists_all_tables() -> None:
    with pytest.raises(RecipeError, match="cifar100, digits, tiny-imagenet"):
        load_table("imagenet")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"doubts": [{"cells": ["a/b"], "why": "c"}]}, "names no cell: a/b"),
        ({"rows": []}, "names no cell"),
    ],
)
def test_an_inconsistent_table_is_refused(change: dict[str, object], message: str) -> None:
    content = load_table("cifar100").model_dump() | change
    with pytest.raises(ValueError, match=message):
        Table.model_validate(content)


def test_a_row_whose_teacher_has_a_teacher_is_refused() -> None:
    content = load_table("digits").model_dump()
    for row in content["rows"]:
        if row["key"] == "oto":
            row["teacher"] = "mskd"
    with pytest.raises(ValueError, match="row oto needs mskd"):
        Table.model_validate(content)
