"""Methods with a preparation, a memory bank or heads, in whole runs on the digits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.training.runs import Killed
from training.assemble import build_step, load_teacher
from training.checkpoint import load_checkpoint
from training.data.batches import DeviceDataset
from training.data.dataset import hold_out
from training.data.load import load_dataset
from training.errors import RecipeError
from training.loop import Run, train
from training.recipes.schema import Recipe
from training.report import EpochMetrics, Report
from training.run import run_recipe
from training.step import Step

HELD_OUT = 1300  # of 1,397: three steps an epoch
PREPARED = ("ab", "ft", "sskd", "hsakd")


def recipe(name: str, objective: dict[str, object], exits: tuple[int, ...] = (4,)) -> Recipe:
    alone = objective["method"] == "cross_entropy"
    return Recipe.model_validate(
        {
            "name": name,
            "data": {"name": "digits", "held_out": HELD_OUT, "padding": 1, "flip": False},
            "network": {"name": "resnet10", "width": 8 if alone else 4, "exits": exits},
            "objective": objective,
            "teacher": None if alone else {"recipe": "teacher"},
            "train": {
                "epochs": 1 if alone else 2,
                "batch_size": 32,
                "learning_rate": 0.02,
                "precision": "fp32",
            },
        }
    )


def student(method: str, **objective: object) -> Recipe:
    exits = (2, 4) if method == "tskd" else (4,)
    return recipe(method, {"method": method, **objective}, exits)


def run(runs: Path, what: Recipe, resume: bool = False) -> None:
    run_recipe(what, runs=runs, data_root=runs, device="cpu", resume=resume, say=lambda _: None)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of runs with a finished teacher."""
    runs = tmp_path_factory.mktemp("runs")
    run(runs, recipe("teacher", {"method": "cross_entropy"}))
    return runs


@pytest.fixture
def runs(taught: Path, tmp_path: Path) -> Path:
    """A directory of runs with the teacher only."""
    (tmp_path / "teacher").symlink_to(taught / "teacher")
    return tmp_path


def state(step: Step) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in step.state_dict().items()}


class Snapshots(Report):
    """Stores all tensors of a run's step after each epoch, and reports nothing."""

    def __init__(self, step: Step) -> None:
        self.taken = [state(step)]
        self._step = step

    def step(self, done: int, steps: int) -> None:
        pass

    def epoch(self, metrics: EpochMetrics) -> None:
        self.taken.append(state(self._step))

    def changed(self, epoch: int) -> set[str]:
        """The tensors that 0-based `epoch` changed."""
        before, after = self.taken[epoch : epoch + 2]
        return {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}

    def under(self, *prefixes: str) -> set[str]:
        """All tensors, but for the count of batches, whose name begins so."""
        return {name for name in self.taken[0] if name.startswith(prefixes)}


def snapshots(runs: Path, method: str) -> Snapshots:
    """Snapshots of one epoch of preparation and two of training."""
    what = student(method, preparation=1)
    torch.manual_seed(what.seed)
    dataset = load_dataset(what.data, runs)
    kept, held_out = hold_out(dataset.train.labels, HELD_OUT, 0)
    splits = [
        DeviceDataset.of(dataset.train.take(part), torch.device("cpu")) for part in (kept, held_out)
    ]
    teacher, _ = load_teacher(what, dataset, runs)
    step = build_step(what, dataset, teacher, runs, splits[0].labels)
    watched = Snapshots(step)
    directory = runs / method
    directory.mkdir()
    train(Run(directory, what, step, *splits, torch.device("cpu")), watched, 0)
    return watched


@pytest.mark.parametrize(
    ("method", "trained"),
    [
        ("ab", ("student.stages", "criterion.connectors")),
        ("ft", ("criterion.paraphraser",)),
        ("sskd", ("criterion.teacher_projection",)),
        ("hsakd", ("criterion.teacher_heads",)),
    ],
)
def test_the_preparation_trains_its_modules_and_the_training_proper_the_others(
    runs: Path, method: str, trained: tuple[str, ...]
) -> None:
    watched = snapshots(runs, method)
    assert watched.changed(0) == watched.under(*trained)
    prepared = watched.under(*(name for name in trained if name.startswith("criterion.")))
    rest = watched.under("student.", "criterion.") - prepared
    assert watched.changed(1) == watched.changed(2) == rest


@pytest.mark.parametrize("method", [*PREPARED, "crd", "tskd"])
def test_a_run_killed_in_the_preparation_and_later_resumes_to_the_identical_result(
    runs: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    what = student(method, preparation=2) if method in PREPARED else student(method)
    epochs = 4 if method in PREPARED else 2
    run(runs, what)
    (runs / method).rename(runs / "whole")

    def killed_in(epoch: int, resume: bool) -> None:
        def kill(self: Report, done: int, steps: int) -> None:
            if self._done == epoch and done == 2:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(Report, "step", kill)
            with pytest.raises(Killed):
                run(runs, what, resume)

    killed_in(1, resume=False)
    if method in PREPARED:
        killed_in(2, resume=True)  # the first epoch after the preparation
    killed_in(epochs - 1, resume=True)
    run(runs, what, resume=True)

    whole, _ = load_checkpoint(runs / "whole")
    halved, _ = load_checkpoint(runs / method)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, halved.state_dict()[name]), name

    def losses(name: str) -> list[float]:
        lines = (runs / name / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line)["loss"] for line in lines]

    assert losses("whole") == losses(method)
    assert len(losses(method)) == epochs


def test_the_preparation_uses_the_whole_learning_rate_schedule(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []
    take = torch.optim.SGD.step

    def noted(self: torch.optim.SGD) -> None:
        rates.append(self.param_groups[0]["lr"])
        take(self)

    monkeypatch.setattr(torch.optim.SGD, "step", noted)
    snapshots(runs, "ft")
    steps = len(rates) // 3
    training = rates[steps:]
    assert rates[:steps] == training[::2]
    assert 0 < rates[steps - 1] < max(rates) == 0.02


def test_a_preparation_for_a_method_without_one_is_refused(runs: Path) -> None:
    with pytest.raises(RecipeError, match="method crd has no preparation"):
        run(runs, student("crd", preparation=3))
    assert not (runs / "crd").exists()
