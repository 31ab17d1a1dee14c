"""A table is filled run by run, survives kills and failures, and shows what was measured and no more."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from offramp.cli import app, main
from offramp.errors import WriteError
from training.assemble import load_teacher
from training.checkpoint import CheckpointConfig, ExitAccuracies, save_checkpoint
from training.data.load import load_dataset
from training.errors import CheckpointError, DivergedError, RecipeError
from training.files import locked
from training.recipes.files import load_recipe
from training.recipes.schema import Recipe
from training.recipes.table_recipes import Variant
from training.report import Report
from training.table import train as trainer
from training.table.measure import Filled, PolicyStats, Spread
from training.table.render import into_document, markdown, markers
from training.table.session import Session

FAST = ["--epochs", "2", "--width", "4"]
CHANGED = "epochs2-width4"


def finished(runs: Path, recipe: Recipe, exits: tuple[float, ...], ensemble: float) -> None:
    """Leave a checkpoint as a run that reached these accuracies would."""
    accuracies = ExitAccuracies(exits=exits, ensemble=ensemble)
    config = CheckpointConfig(
        recipe=recipe,
        classes=tuple("0123456789"),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        image_size=(16, 16),
        teacher_test=None,
        held_out=accuracies,
        test=accuracies,
        seconds=1.0,
        tools={},
    )
    directory = runs / recipe.name
    directory.mkdir(parents=True)
    save_checkpoint(directory, config.build(), config)


def session(place: Path, rows: str = "*", variant: Variant | None = None) -> Session:
    return Session.open("digits", rows, variant or Variant(), place / "runs", place / "out")


def figures(place: Path, row: str, variant: Variant | None = None) -> PolicyStats:
    opened = session(place, f"*/{row}", variant)
    opened.write()
    cells = Filled.model_validate_json(next(iter((place / "out").glob("*.json"))).read_text()).cells
    return next(cell for cell in cells if cell.row == row)


def test_mean_and_sample_deviation_are_over_the_finished_seeds(tmp_path: Path) -> None:
    for seed, ensemble in enumerate((80.0, 81.0, 85.0)):
        recipe = load_recipe(f"digits/resnet18-resnet10/mskd/seed{seed}")
        finished(tmp_path / "runs", recipe, (70.0, 71.0, 72.0 + seed, 73.0), ensemble)
    measured = figures(tmp_path, "mskd").measured
    assert measured is not None
    assert measured.seeds == (0, 1, 2)
    assert measured.ensemble == Spread(mean=82.0, std=2.646, n=3)
    assert measured.exits[0] == Spread(mean=70.0, std=0.0, n=3)
    assert measured.exits[2] == Spread(mean=73.0, std=1.0, n=3)


def test_one_seed_has_no_deviation() -> None:
    assert Spread.over([71.5]) == Spread(mean=71.5, std=None, n=1)


def test_rows_not_trained_show_a_dash_and_those_trained_their_figures(tmp_path: Path) -> None:
    recipe = load_recipe("digits/resnet10/baseline")
    finished(tmp_path / "runs", recipe, (91.25,), 91.25)
    text = markdown(session(tmp_path).filled())
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if "|" in line}
    cells = [cell.strip() for cell in lines["single exit (baseline)"].strip("|").split("|")]
    assert cells[1:8] == ["-", "91.25", "1", "-", "-", "-", "91.25"]
    cells = [cell.strip() for cell in lines["OtO (oto)"].strip("|").split("|")]
    assert cells[1:8] == ["-"] * 7


def test_the_row_says_what_its_teacher_reached(tmp_path: Path) -> None:
    recipe = load_recipe("digits/resnet18/baseline")
    finished(tmp_path / "runs", recipe, (94.5,), 94.5)
    text = markdown(session(tmp_path, "*/kd").filled())
    assert "teacher digits/resnet18/baseline/seed0: exits 94.50, ensemble 94.50." in text
    assert "teacher digits/resnet18/heads/seed0: not trained." in text


def test_published_figures_stand_beside_with_their_exits_and_doubts(tmp_path: Path) -> None:
    opened = Session.open("cifar100", "*", Variant(), tmp_path / "runs", tmp_path / "out")
    text = markdown(opened.filled())
    row = next(line for line in text.splitlines() if line.startswith("| OtO (oto) | 76.27"))
    assert "- (71.17) | - (70.59) | - (71.10) | - (72.65)" in row
    assert "| CRD (crd) | 74.58 ? |" in text
    assert "- ? resnet50-resnet18/kd, resnet50-resnet18/sskd: both are 79.72." in text


def test_a_run_of_another_recipe_under_the_same_name_does_not_count(tmp_path: Path) -> None:
    recipe = load_recipe("digits/resnet10/baseline")
    other = recipe.model_copy(
        update={"train": recipe.train.model_copy(update={"learning_rate": 1.0})}
    )
    finished(tmp_path / "runs", other, (91.25,), 91.25)
    assert figures(tmp_path, "baseline").measured is None


def test_a_changed_protocol_is_kept_apart_and_marked(tmp_path: Path) -> None:
    recipe = load_recipe(f"digits/resnet10/baseline/{CHANGED}")
    finished(tmp_path / "runs", recipe, (60.0,), 60.0)
    assert figures(tmp_path, "baseline").measured is None
    changed = Variant(2, 4)
    opened = session(tmp_path, variant=changed)
    opened.write()
    written = json.loads((tmp_path / "out" / f"table-digits-{CHANGED}.json").read_text())
    assert (written["changed"], written["epochs"]) == (CHANGED, 2)
    assert written["cells"][0]["measured"]["ensemble"]["mean"] == 60.0
    assert f"CHANGED PROTOCOL {CHANGED}" in markdown(opened.filled())


def test_results_outlive_their_runs_in_the_json_file(tmp_path: Path) -> None:
    recipe = load_recipe("digits/resnet10/baseline")
    finished(tmp_path / "elsewhere", recipe, (91.25,), 91.25)
    Session.open("digits", "*", Variant(), tmp_path / "elsewhere", tmp_path / "out").write()
    measured = figures(tmp_path, "baseline").measured
    assert measured is not None
    assert measured.ensemble.mean == 91.25
    assert (tmp_path / "out" / "table-digits.png").read_bytes().startswith(b"\x89PNG")


def test_a_damaged_file_of_results_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "table-digits.json").write_text("{")
    with pytest.raises(CheckpointError, match="not a file of results"):
        session(tmp_path)


def test_a_full_disk_leaves_json_and_picture_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session(tmp_path).write()
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    for name in ("pathlib.Path.write_text", "matplotlib.figure.Figure.savefig"):
        with monkeypatch.context() as patch:
            patch.setattr(name, full)
            with pytest.raises(WriteError, match="No space left") as caught:
                session(tmp_path).write()
        assert caught.value.exit_code == 2
        assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_the_table_goes_between_its_markers_and_nothing_else_changes(tmp_path: Path) -> None:
    page, (begin, end) = tmp_path / "page.md", markers("digits")
    page.write_text(f"Before.\n{begin}\nold\n{end}\nAfter.\n")
    filled = session(tmp_path).filled()
    into_document(page, filled)
    into_document(page, filled)
    assert page.read_text() == f"Before.\n{begin}\n{markdown(filled)}{end}\nAfter.\n"
    page.write_text("No place.\n")
    with pytest.raises(RecipeError, match="no place for this table"):
        into_document(page, filled)


class Killed(BaseException):
    """Stands for a kill in the middle of an epoch."""


def train(place: Path, rows: str) -> dict[str, str]:
    opened = session(place, rows, Variant(2, 4))
    return opened.train([0], data_root=place, device="cpu", download=False, say=lambda _: None)


def test_a_killed_table_goes_on_with_the_epoch_it_was_killed_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Path, int]] = []

    def count(self: Report, done: int, steps: int) -> None:
        seen.append((self._directory, done))

    def kill_in_the_students_second_epoch(self: Report, done: int, steps: int) -> None:
        count(self, done, steps)
        if [d for d, _ in seen].count(self._directory) > steps and "/kd/" in str(self._directory):
            raise Killed

    monkeypatch.setattr(Report, "step", kill_in_the_students_second_epoch)
    with pytest.raises(Killed):
        train(tmp_path, "*/kd")
    stopped = figures(tmp_path, "kd", Variant(2, 4))
    assert (stopped.measured, stopped.stopped) == (None, {0: 1})

    seen.clear()
    monkeypatch.setattr(Report, "step", count)
    assert train(tmp_path, "*/kd") == {}
    student = tmp_path / "runs" / f"digits/resnet18-resnet10/kd/{CHANGED}/seed0"
    assert {directory for directory, _ in seen} == {student}
    assert len(seen) == max(done for _, done in seen)  # one epoch, not two
    done = figures(tmp_path, "kd", Variant(2, 4))
    assert done.measured is not None
    assert done.measured.seeds == (0,)
    assert done.stopped == {}

    seen.clear()
    assert train(tmp_path, "*/kd") == {}
    assert seen == []


def test_a_failed_run_is_reported_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def fails_for_the_joint_teacher(recipe: Recipe, *, runs: Path, **_: object) -> None:
        made.append(recipe.name)
        if recipe.name.startswith("digits/resnet18/multi-exit"):
            raise DivergedError("the loss is nan in epoch 1.")
        exits = recipe.network.exits
        finished(runs, recipe, tuple(50.0 for _ in exits), 50.0)

    monkeypatch.setattr(trainer, "run_recipe", fails_for_the_joint_teacher)
    place = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    arguments = ["table", "digits", "--train", "--rows", "*/oto*,*/kd", *FAST, *place]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    teacher, student = (
        f"digits/{cell}/{CHANGED}/seed0"
        for cell in ("resnet18/multi-exit", "resnet18-resnet10/oto-joint")
    )
    assert f"failed: {teacher}: the loss is nan in epoch 1." in result.stderr
    assert f"failed: {student}: {teacher} failed." in result.stderr
    assert student not in made
    for row in ("oto", "kd"):
        assert figures(tmp_path, row, Variant(2, 4)).measured is not None
    kept = json.loads((tmp_path / "out" / f"table-digits-{CHANGED}.json").read_text())
    assert kept["runs"][teacher]["failed"] == "the loss is nan in epoch 1."


def test_a_run_that_another_process_makes_is_left_to_it_and_not_called_failed(
    tmp_path: Path,
) -> None:
    run = f"digits/resnet10/baseline/{CHANGED}/seed0"
    with locked(tmp_path / "runs" / run):
        failures = train(tmp_path, "*/baseline")
    assert list(failures) == [run]
    assert "another process" in failures[run]
    assert figures(tmp_path, "baseline", Variant(2, 4)).failed == {}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["table", "imagenet"], "there is no table 'imagenet'"),
        (["table", "digits", "--rows", "vgg13-vgg8/oto"], "matches 'vgg13-vgg8/oto'"),
        (["table", "cifar100", "--rows", "vgg13-vgg8/kd", "--train"], "--download"),
        (["train", "cifar100/vgg13-vgg8/oto/seed1"], "--download"),
        (["recipe", "cifar100/vgg13-vgg8/none"], "as in cifar100/vgg13-vgg8/oto"),
    ],
)
def test_a_mistake_is_said_in_one_sentence_and_leaves_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    says: str,
) -> None:
    monkeypatch.delenv("OFFRAMP_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["offramp", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    error = capsys.readouterr().err
    assert left.value.code == 2
    assert error.startswith("offramp: ")
    assert says in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_missing_teacher_is_named_as_the_recipe_that_trains_it(tmp_path: Path) -> None:
    student = load_recipe("digits/resnet18-resnet10/oto/epochs2")
    with pytest.raises(RecipeError) as missing:
        load_teacher(student, load_dataset(student.data, tmp_path), tmp_path)
    (named,) = re.findall("`offramp train (.*)`", str(missing.value))
    assert load_recipe(named).name == named == "digits/resnet18/heads/epochs2/seed0"


def test_the_command_line_is_loaded_without_what_it_needs_later() -> None:
    code = "import sys, offramp.cli; print({'torch', 'tomli_w', 'matplotlib'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_a_printed_recipe_is_the_recipe(tmp_path: Path) -> None:
    printed = CliRunner().invoke(app, ["recipe", "cifar100/vgg13-vgg8/sskd/epochs24"])
    path = tmp_path / "mine.toml"
    path.write_text(printed.stdout)
    assert load_recipe(str(path)) == load_recipe("cifar100/vgg13-vgg8/sskd/epochs24")


def test_all_recipes_are_listed() -> None:
    listed = CliRunner().invoke(app, ["recipe"]).stdout.split()
    assert {"digits-oto", "tiny-imagenet/resnet34-resnet18/afd/seed0"} <= set(listed)
