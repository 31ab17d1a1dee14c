"""Students learn from cached views as from the teacher itself."""

from __future__ import annotations

import dataclasses
import functools
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.training.runs import Killed, history
from tests.training.teachers.recipes import CPU, assemble, run, student, view_files
from training.assemble import build_step, load_teacher
from training.checkpoint import load_checkpoint
from training.data.batches import DeviceDataset
from training.data.dataset import Dataset
from training.errors import CheckpointError, RecipeError
from training.loop import Run, new_optimizer
from training.models.multi_exit import Outputs
from training.recipes.schema import Recipe
from training.report import Report
from training.step import Step
from training.teachers.classifier import NetworkClassifier

# Relative difference of a step's loss with cached logits from the one with the teacher in the step: a
# float16 logit is exact to 5e-4.
LOSS_TOLERANCE = 1e-3


def new_step(place: Path, recipe: Recipe, dataset: Dataset, train: DeviceDataset) -> Step:
    network, _ = load_teacher(recipe, dataset, place)
    torch.manual_seed(recipe.seed)
    step = build_step(recipe, dataset, network, place, train.labels)
    return step.to(memory_format=torch.channels_last).train()


@pytest.mark.parametrize(
    ("method", "exits"), [("kd", (4,)), ("mskd", (2, 4)), ("oto", (1, 2, 3, 4))]
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_loss_of_two_epochs_is_that_of_the_teacher_in_the_step(
    place: Path, method: str, exits: tuple[int, ...], precision: str
) -> None:
    """One network learns from cached logits, the other from the teacher on exactly the same pixels.

    The learning rate is low, for a rounding error grows with every step.
    """
    cached = student(method, exits=exits, precision=precision, learning_rate=1e-3)
    online = cached.model_copy(update={"teacher": student(taught_by={"recipe": "teacher"}).teacher})
    dataset, train, views = assemble(place, cached)
    assert views is not None
    steps = [new_step(place, recipe, dataset, train) for recipe in (cached, online)]
    assert [step.teacher is None for step in steps] == [True, False]
    optimizers = [
        new_optimizer(Run(place, recipe, step, train, train, CPU), 0)
        for recipe, step in zip((cached, online), steps, strict=True)
    ]
    for epoch in range(2):
        view = views.load(epoch, None)
        for images, batch in view.shuffled(64, cached.seed, epoch):
            without = dataclasses.replace(batch, teacher_logits=None)
            losses = [step(images, b) for step, b in zip(steps, (batch, without), strict=True)]
            assert losses[0].item() == pytest.approx(losses[1].item(), rel=LOSS_TOLERANCE)
            for optimizer, loss in zip(optimizers, losses, strict=True):
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    for parameters in zip(*(step.student.parameters() for step in steps), strict=True):
        torch.testing.assert_close(*parameters, rtol=1e-3, atol=1e-4)


def test_the_teacher_sees_the_whole_image_while_the_student_sees_a_smaller_one(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sides: dict[str, set[int]] = {"teacher": set(), "student": set()}
    logits, run_student = NetworkClassifier.logits, Step._run_student

    def watch_teacher(self: NetworkClassifier, images: Tensor) -> Tensor:
        sides["teacher"].add(images.shape[1])
        return logits(self, images)

    def watch_student(self: Step, inputs: Tensor, side: int | None) -> Outputs:
        sides["student"].add(inputs.shape[2])
        return run_student(self, inputs, side)

    monkeypatch.setattr(NetworkClassifier, "logits", watch_teacher)
    monkeypatch.setattr(Step, "_run_student", watch_student)
    run(place, student(progressive={"side": 8, "fraction": 0.5}))
    assert sides == {"teacher": {16}, "student": {8, 16}}


def test_a_stopped_run_resumes_to_the_identical_result(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = student(epochs=4)
    whole = shutil.copytree(place, tmp_path / "whole")
    run(whole, recipe)

    def stop_in_the_third_epoch(self: Report, done: int, steps: int) -> None:
        if len(self.history) == 2 and done == 2:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Report, "step", stop_in_the_third_epoch)
        with pytest.raises(Killed):
            run(place, recipe)
    run(place, recipe, resume=True)
    ours, theirs = (load_checkpoint(runs / "student")[0].state_dict() for runs in (place, whole))
    for name, tensor in theirs.items():
        assert torch.equal(tensor, ours[name]), name
    assert history(place / "student") == history(whole / "student")


def test_a_compiled_step_learns_the_same_from_views(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(place, student())
    # torch.compile without the minutes of the C++ compiler.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    run(place, student(name="compiled"), compiled=True)
    first, second = (load_checkpoint(place / n)[0].state_dict() for n in ("student", "compiled"))
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def test_filling_or_reading_views_does_not_change_the_result(place: Path) -> None:
    run(place, student())
    run(place, student(name="again"))
    first, again = (load_checkpoint(place / name)[0].state_dict() for name in ("student", "again"))
    for name, tensor in first.items():
        assert torch.equal(tensor, again[name]), name


def test_logits_that_are_not_finite_are_refused_and_not_stored(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nan(self: NetworkClassifier, images: Tensor) -> Tensor:
        return torch.full((4, len(images), 10), torch.nan)

    monkeypatch.setattr(NetworkClassifier, "logits", nan)
    with pytest.raises(CheckpointError, match="logits that are not finite in view 0"):
        run(place, student())
    assert view_files(place) == []


def test_logits_too_large_for_float16_are_cut_off(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def huge(self: NetworkClassifier, images: Tensor) -> Tensor:
        return torch.full((4, len(images), 10), 1e6)

    monkeypatch.setattr(NetworkClassifier, "logits", huge)
    _, _, views = assemble(place, student())
    assert views is not None
    assert views.load(0, None).logits.unique().tolist() == [65504.0]


def test_oto_between_different_numbers_of_exits_is_refused_with_views_too(place: Path) -> None:
    with pytest.raises(RecipeError, match="has 4 exits and student 2"):
        run(place, student(exits=(2, 4)))
    assert view_files(place) == []


def test_an_untrained_teacher_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="is not trained yet"):
        run(tmp_path, student())


@pytest.mark.parametrize("other", [{"jpeg": 0.9}, {"degrade": 0.5}])
def test_views_of_undamaged_images_are_shared_by_students_with_any_damage(
    place: Path, other: dict[str, object]
) -> None:
    taught_by = {"recipe": "teacher", "views": 2, "undamaged": True}
    first = student(taught_by=taught_by, data={"jpeg": 0.5})
    run(place, first)
    files = view_files(place)
    assert len(files) == 2
    written = [file.stat().st_mtime_ns for file in files]
    run(place, student(name="second", taught_by=taught_by, data=other))
    assert view_files(place) == files
    assert [file.stat().st_mtime_ns for file in files] == written


def test_the_teacher_sees_the_images_before_damage_and_the_student_after(place: Path) -> None:
    damaged = student(
        taught_by={"recipe": "teacher", "views": 2, "undamaged": True}, data={"jpeg": 1.0}
    )
    plain = student(taught_by={"recipe": "teacher", "views": 2})
    _, _, views = assemble(place, damaged)
    _, _, of_plain = assemble(place, plain)
    assert views is not None
    assert of_plain is not None
    seen, expected = views.load(0, None), of_plain.load(0, None)
    assert torch.equal(seen.logits, expected.logits)
    changed = (seen.images != expected.images).flatten(1).any(dim=1)
    assert float(changed.float().mean()) > 0.9


def test_a_teacher_of_undamaged_images_needs_views_and_damage() -> None:
    with pytest.raises(ValueError, match="undamaged needs views"):
        student(taught_by={"recipe": "teacher", "undamaged": True}, data={"jpeg": 0.5})
    with pytest.raises(ValueError, match=r"teacher.undamaged needs data.degrade or data.jpeg"):
        student(taught_by={"recipe": "teacher", "views": 2, "undamaged": True})
