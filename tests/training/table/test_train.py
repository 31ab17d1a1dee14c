"""Training a table goes on after kills and failures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from offramp.cli import app
from tests.training.runs import Killed
from tests.training.table.tables import SHORT, cell_result, train_rows, write_finished_run
from training.errors import DivergedError
from training.recipes.schema import Recipe
from training.report import Report
from training.run_lock import run_lock
from training.table import train as train_module

OPTIONS = ["--epochs", "2", "--width", "4"]


def test_a_killed_table_resumes_with_the_epoch_it_was_killed_in(
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
        train_rows(tmp_path, "*/kd")
    stopped = cell_result(tmp_path, "kd", SHORT)
    assert (stopped.measured, stopped.stopped) == (None, {0: 1})

    seen.clear()
    monkeypatch.setattr(Report, "step", count)
    assert train_rows(tmp_path, "*/kd") == {}
    student = tmp_path / "runs" / f"digits/resnet18-resnet10/kd/{SHORT.name}/seed0"
    assert {directory for directory, _ in seen} == {student}
    assert len(seen) == max(done for _, done in seen)  # one epoch, not two
    done = cell_result(tmp_path, "kd", SHORT)
    assert done.measured is not None
    assert done.measured.seeds == (0,)
    assert done.stopped == {}

    seen.clear()
    assert train_rows(tmp_path, "*/kd") == {}
    assert seen == []


def test_rows_with_views_are_trained_and_share_the_teachers_cache(tmp_path: Path) -> None:
    options = ["--epochs", "2", "--width", "4", "--views", "2", "--rows", "*/kd,*/mskd"]
    place = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, ["table", "digits", "--train", *options, *place])
    assert result.exit_code == 0, result.output
    for row in ("kd", "mskd"):
        run = f"digits/resnet18-resnet10/{row}/{SHORT.name}-views2/seed0"
        assert (tmp_path / "runs" / run / "checkpoint.json").is_file()
    (views,) = (tmp_path / "runs").rglob("views")
    assert views.parent == tmp_path / f"runs/digits/resnet18/baseline/{SHORT.name}/seed0"
    assert len(list(views.rglob("view-*.safetensors"))) == 2
    assert (tmp_path / "out" / f"table-digits-{SHORT.name}-views2.json").is_file()


def test_a_failed_run_is_reported_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def fails_for_the_joint_teacher(recipe: Recipe, *, runs: Path, **_: object) -> None:
        made.append(recipe.name)
        if recipe.name.startswith("digits/resnet18/multi-exit"):
            raise DivergedError("the loss is nan in epoch 1.")
        exits = recipe.network.exits
        write_finished_run(runs, recipe, tuple(50.0 for _ in exits), 50.0)

    monkeypatch.setattr(train_module, "run_recipe", fails_for_the_joint_teacher)
    place = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    arguments = ["table", "digits", "--train", "--rows", "*/oto*,*/kd", *OPTIONS, *place]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    teacher, student = (
        f"digits/{cell}/{SHORT.name}/seed0"
        for cell in ("resnet18/multi-exit", "resnet18-resnet10/oto-joint")
    )
    assert f"failed: {teacher}: the loss is nan in epoch 1." in result.stderr
    assert f"failed: {student}: {teacher} failed." in result.stderr
    assert student not in made
    for row in ("oto", "kd"):
        assert cell_result(tmp_path, row, SHORT).measured is not None
    kept = json.loads((tmp_path / "out" / f"table-digits-{SHORT.name}.json").read_text())
    assert kept["runs"][teacher]["failed"] == "the loss is nan in epoch 1."


def test_a_run_of_another_process_is_skipped_and_not_recorded_as_failed(
    tmp_path: Path,
) -> None:
    run = f"digits/resnet10/baseline/{SHORT.name}/seed0"
    with run_lock(tmp_path / "runs" / run):
        failures = train_rows(tmp_path, "*/baseline")
    assert list(failures) == [run]
    assert "another process" in failures[run]
    assert cell_result(tmp_path, "baseline", SHORT).failed == {}
