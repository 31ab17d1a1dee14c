"""A table shows published and measured accuracies, and keeps them in a JSON file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from offramp.errors import WriteError
from tests.training.table.tables import SHORT, cell_result, open_table, write_finished_run
from training.errors import CheckpointError, RecipeError
from training.recipes.files import load_recipe
from training.recipes.table_recipes import Variant
from training.table.filled_table import Spread
from training.table.markdown import markdown, markers, write_into_document
from training.table.table_run import TableRun


def test_mean_and_sample_deviation_are_over_the_finished_seeds(tmp_path: Path) -> None:
    for seed, ensemble in enumerate((80.0, 81.0, 85.0)):
        recipe = load_recipe(f"digits/resnet18-resnet10/mskd/seed{seed}")
        write_finished_run(tmp_path / "runs", recipe, (70.0, 71.0, 72.0 + seed, 73.0), ensemble)
    measured = cell_result(tmp_path, "mskd").measured
    assert measured is not None
    assert measured.seeds == (0, 1, 2)
    assert measured.ensemble == Spread(mean=82.0, std=2.646, n=3)
    assert measured.exits[0] == Spread(mean=70.0, std=0.0, n=3)
    assert measured.exits[2] == Spread(mean=73.0, std=1.0, n=3)


def test_one_seed_has_no_deviation() -> None:
    assert Spread.over([71.5]) == Spread(mean=71.5, std=None, n=1)


def test_untrained_rows_show_a_dash_and_trained_rows_their_figures(tmp_path: Path) -> None:
    recipe = load_recipe("digits/resnet10/baseline")
    write_finished_run(tmp_path / "runs", recipe, (91.25,), 91.25)
    text = markdown(open_table(tmp_path).filled())
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if "|" in line}
    cells = [cell.strip() for cell in lines["single exit (baseline)"].strip("|").split("|")]
    assert cells[1:] == ["91.25", "1", "-", "-", "-", "91.25"]
    cells = [cell.strip() for cell in lines["OtO (oto)"].strip("|").split("|")]
    assert cells[1:] == ["-"] * 6
    assert "these pairs" not in text


def test_the_teachers_accuracy_is_shown(tmp_path: Path) -> None:
    recipe = load_recipe("digits/resnet18/baseline")
    write_finished_run(tmp_path / "runs", recipe, (94.5,), 94.5)
    text = markdown(open_table(tmp_path, "*/kd").filled())
    assert "teacher digits/resnet18/baseline/seed0: exits 94.50, ensemble 94.50." in text
    assert "teacher digits/resnet18/heads/seed0: not trained." in text


def cifar100_markdown(place: Path) -> str:
    return markdown(
        TableRun.open("cifar100", "*", Variant(), place / "runs", place / "out").filled()
    )


def test_published_figures_of_untrained_pairs_share_one_table(tmp_path: Path) -> None:
    text = cifar100_markdown(tmp_path)
    assert "No row and no teacher of these pairs is trained." in text
    (names,) = (line for line in text.splitlines() if line.startswith("| method"))
    assert [name.strip() for name in names.strip("|").split("|")][-2:] == [
        "vgg13-vgg8",
        "wrn-40-2-wrn-16-2",
    ]
    for k, published in enumerate(("76.27", "71.17", "70.59", "71.10", "72.65")):
        start = f"| oto, exit {k} |" if k else "| OtO (oto) |"
        row = next(line for line in text.splitlines() if line.startswith(start))
        assert row.split(" | ")[6] == published
    assert "Neither published nor trained: `baseline-autoaugment`, `multi-exit`," in text
    assert "| CRD (crd) | 80.53 | 79.81 | 78.60 ? |" in text
    assert "- ? resnet50-resnet18/kd, resnet50-resnet18/sskd: both are 79.72." in text


def test_a_pair_with_a_result_has_its_own_table_with_published_exits(tmp_path: Path) -> None:
    recipe = load_recipe("cifar100/vgg8/baseline")
    write_finished_run(tmp_path / "runs", recipe, (70.5,), 70.5)
    first, own = cifar100_markdown(tmp_path).split("### vgg13-vgg8\n")
    assert "vgg13-vgg8" not in first.split("is trained.")[1].splitlines()[2]
    row = next(line for line in own.splitlines() if line.startswith("| OtO (oto) | 76.27"))
    assert "- (71.17) | - (70.59) | - (71.10) | - (72.65)" in row
    assert "| single exit (baseline) | 70.36 | 70.50 | 1 |" in own


def test_every_student_has_its_parameters_and_macs_once(tmp_path: Path) -> None:
    text = cifar100_markdown(tmp_path)
    assert text.count("| resnet18 | 11.22 M | 555 M | 12.28 M | 582 M |") == 1
    assert text.count("| wrn-16-2 | 0.70 M | 101 M | 0.77 M | 105 M |") == 1


def test_a_run_of_another_recipe_under_the_same_name_does_not_count(tmp_path: Path) -> None:
    recipe = load_recipe("digits/resnet10/baseline")
    other = recipe.model_copy(
        update={"train": recipe.train.model_copy(update={"learning_rate": 1.0})}
    )
    write_finished_run(tmp_path / "runs", other, (91.25,), 91.25)
    assert cell_result(tmp_path, "baseline").measured is None


def test_a_changed_protocol_is_kept_apart_and_marked(tmp_path: Path) -> None:
    recipe = load_recipe(f"digits/resnet10/baseline/{SHORT.name}")
    write_finished_run(tmp_path / "runs", recipe, (60.0,), 60.0)
    assert cell_result(tmp_path, "baseline").measured is None
    changed = SHORT
    table_run = open_table(tmp_path, variant=changed)
    table_run.write()
    written = json.loads((tmp_path / "out" / f"table-digits-{SHORT.name}.json").read_text())
    assert (written["changed"], written["epochs"]) == (SHORT.name, 2)
    assert written["cells"][0]["measured"]["ensemble"]["mean"] == 60.0
    assert f"CHANGED PROTOCOL {SHORT.name}" in markdown(table_run.filled())


def finish(place: Path, name: str, accuracy: float) -> None:
    recipe = load_recipe(name)
    exits = tuple(accuracy for _ in recipe.network.exits)
    write_finished_run(place / "runs", recipe, exits, accuracy)


def measured(place: Path, variant: Variant) -> dict[str, float]:
    """The measured ensemble accuracies of the table's file by row, after it is written."""
    table_run = open_table(place, variant=variant)
    table_run.write()
    cells = table_run.filled().cells
    return {cell.row: cell.measured.ensemble.mean for cell in cells if cell.measured}


def test_rows_without_a_logits_teacher_count_with_views_and_without(tmp_path: Path) -> None:
    cached = Variant(SHORT.epochs, SHORT.width, views=24)
    finish(tmp_path, f"digits/resnet10/baseline/{SHORT.name}", 60.0)
    finish(tmp_path, f"digits/resnet10/self-distillation/{SHORT.name}", 61.0)
    finish(tmp_path, f"digits/resnet18-resnet10/oto/{SHORT.name}", 62.0)
    finish(tmp_path, f"digits/resnet18-resnet10/oto/{cached.name}", 63.0)
    shared = {"baseline": 60.0, "self-distillation": 61.0}
    assert measured(tmp_path, SHORT) == {**shared, "oto": 62.0}
    assert measured(tmp_path, cached) == {**shared, "oto": 63.0}
    assert measured(tmp_path, Variant(SHORT.epochs, SHORT.width, views=8)) == shared


def test_rows_of_teachers_trained_for_longer_are_kept_apart_with_their_teacher(
    tmp_path: Path,
) -> None:
    longer = Variant(SHORT.epochs, SHORT.width, teacher_epochs=6)
    finish(tmp_path, f"digits/resnet10/baseline/{SHORT.name}", 60.0)
    finish(tmp_path, f"digits/resnet18-resnet10/mskd/{SHORT.name}", 61.0)
    finish(tmp_path, f"digits/resnet18-resnet10/mskd/{longer.name}", 62.0)
    finish(tmp_path, "digits/resnet18/baseline/epochs6-width4", 70.0)
    assert measured(tmp_path, SHORT) == {"baseline": 60.0, "mskd": 61.0}
    assert measured(tmp_path, longer) == {"baseline": 60.0, "mskd": 62.0}
    shutil.rmtree(tmp_path / "runs")
    (taught,) = (c for c in open_table(tmp_path, variant=longer).filled().cells if c.row == "mskd")
    assert taught.measured is not None
    assert taught.teacher is not None
    assert taught.teacher.test is not None
    assert taught.teacher.test.ensemble == 70.0


@pytest.mark.parametrize("views", [None, 24])
def test_shared_rows_are_read_from_either_file_when_their_runs_are_elsewhere(
    tmp_path: Path, views: int | None
) -> None:
    variants = [Variant(SHORT.epochs, SHORT.width, views=number) for number in (None, 24)]
    finish(tmp_path, f"digits/resnet10/baseline/{SHORT.name}", 60.0)
    measured(tmp_path, Variant(SHORT.epochs, SHORT.width, views=views))
    shutil.rmtree(tmp_path / "runs")
    assert [measured(tmp_path, variant) for variant in variants] == [{"baseline": 60.0}] * 2


def test_the_json_file_keeps_results_whose_runs_are_elsewhere(tmp_path: Path) -> None:
    recipe = load_recipe("digits/resnet10/baseline")
    write_finished_run(tmp_path / "elsewhere", recipe, (91.25,), 91.25)
    TableRun.open("digits", "*", Variant(), tmp_path / "elsewhere", tmp_path / "out").write()
    measured = cell_result(tmp_path, "baseline").measured
    assert measured is not None
    assert measured.ensemble.mean == 91.25
    assert (tmp_path / "out" / "table-digits.png").read_bytes().startswith(b"\x89PNG")


def test_a_damaged_file_of_results_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "table-digits.json").write_text("{")
    with pytest.raises(CheckpointError, match="not a file of results"):
        open_table(tmp_path)


def test_a_full_disk_keeps_the_previous_json_and_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_table(tmp_path).write()
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    for name in ("pathlib.Path.write_text", "matplotlib.figure.Figure.savefig"):
        with monkeypatch.context() as patch:
            patch.setattr(name, full)
            with pytest.raises(WriteError, match="No space left") as caught:
                open_table(tmp_path).write()
        assert caught.value.exit_code == 2
        assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_the_table_is_written_between_its_markers_and_nothing_else_changes(tmp_path: Path) -> None:
    page, (begin, end) = tmp_path / "page.md", markers("digits")
    page.write_text(f"Before.\n{begin}\nold\n{end}\nAfter.\n")
    filled = open_table(tmp_path).filled()
    write_into_document(page, filled)
    write_into_document(page, filled)
    assert page.read_text() == f"Before.\n{begin}\n{markdown(filled)}{end}\nAfter.\n"
    page.write_text("No place.\n")
    with pytest.raises(RecipeError, match="no markers for this table"):
        write_into_document(page, filled)
