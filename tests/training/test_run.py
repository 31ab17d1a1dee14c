"""A run can be stopped anywhere and resumed to the same result; errors lose nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from exports.bundle.reader import load_bundle
from exports.pipeline import export_bundle
from serving.inference.engine import Engine
from tests.training.runs import Killed
from training.checkpoint import load_checkpoint, read_config
from training.data.load import load_dataset
from training.errors import CheckpointError, DivergedError, RecipeError
from training.loop import learning_rate
from training.planning.dry_run import dry_run
from training.recipes.network import NetworkRecipe
from training.recipes.schema import DataRecipe, Recipe, StartRecipe, TrainRecipe
from training.report import METRICS, Report, read_metrics
from training.run import run_recipe


def recipe(**train: object) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "tiny",
            "data": {"name": "digits", "held_out": 1000, "padding": 1, "flip": False},
            "network": {"name": "resnet10", "width": 4},
            "objective": {"method": "cross_entropy"},
            "train": {"epochs": 3, "batch_size": 64, **train},
        }
    )


def student(objective: str, exits: list[int], held_out: int = 1000) -> Recipe:
    return Recipe.model_validate(
        {
            "name": objective,
            "data": {"name": "digits", "held_out": held_out, "padding": 1, "flip": False},
            "network": {"name": "resnet10", "width": 4, "exits": exits},
            "objective": {"method": objective, "temperature": 3.0, "alpha": 0.5},
            "teacher": None if objective == "self_distillation" else {"recipe": "tiny"},
            "train": {"epochs": 1, "batch_size": 64},
        }
    )


def run(tmp_path: Path, what: Recipe, resume: bool = False) -> None:
    run_recipe(
        what, runs=tmp_path, data_root=tmp_path, device="cpu", resume=resume, say=lambda _: None
    )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of runs with one epoch of `recipe`; not to be changed."""
    place = tmp_path_factory.mktemp("tiny")
    run(place, recipe(epochs=1))
    return place


@pytest.fixture
def runs(tiny: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(tiny, tmp_path / "runs")


def test_a_killed_run_resumes_to_the_identical_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "whole", recipe())
    steps = 0

    def kill_in_the_second_epoch(self: Report, done: int, total: int) -> None:
        nonlocal steps
        steps += 1
        if steps == total + 3:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Report, "step", kill_in_the_second_epoch)
        with pytest.raises(Killed):
            run(tmp_path / "halved", recipe())
    with pytest.raises(CheckpointError, match="after epoch 1: add --resume"):
        run(tmp_path / "halved", recipe())
    run(tmp_path / "halved", recipe(), resume=True)

    whole, _ = load_checkpoint(tmp_path / "whole" / "tiny")
    halved, _ = load_checkpoint(tmp_path / "halved" / "tiny")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, halved.state_dict()[name]), name

    def history(place: str) -> list[tuple[int, float]]:
        lines = (tmp_path / place / "tiny" / "metrics.jsonl").read_text().splitlines()
        return [(m["epoch"], m["loss"]) for m in map(json.loads, lines)]

    assert history("whole") == history("halved")


def test_a_finished_run_leaves_its_checkpoint_metrics_and_curves(workplace: Path) -> None:
    files = sorted(path.name for path in (workplace / "runs" / "digits-oto").iterdir())
    assert files == ["checkpoint.json", "curves.png", "metrics.jsonl", "model.safetensors"]
    assert (workplace / "runs/digits-oto/curves.png").read_bytes().startswith(b"\x89PNG")
    _, config = load_checkpoint(workplace / "runs" / "digits-oto")
    assert config.test.exits[-1] > 80
    assert config.teacher_test is not None


@pytest.mark.parametrize(
    ("objective", "exits"),
    [("kd", [4]), ("mskd", [2, 4]), ("oto", [1, 2, 3, 4]), ("self_distillation", [1, 4])],
)
def test_a_student_of_each_objective_is_trained(
    runs: Path, objective: str, exits: list[int]
) -> None:
    run(runs, student(objective, exits))
    _, config = load_checkpoint(runs / objective)
    assert len(config.test.exits) == len(exits)


# torch's exporter takes seconds. ResNets with all exits (digits-oto, the tutorial) and with some
# (test_auto_train) are exported and served in other tests.
@pytest.mark.parametrize(
    ("network", "heads", "objective", "exits"),
    [("vgg8", "bottleneck", "mskd", [2, 4]), ("wrn-16-2", "copy", "kd", [3])],
)
def test_a_student_of_each_family_with_some_exits_is_trained_exported_and_answers(
    runs: Path, network: str, heads: str, objective: str, exits: list[int]
) -> None:
    shape = NetworkRecipe.model_validate(
        {"name": network, "width": 4, "heads": heads, "exits": exits}
    )
    run(runs, student(objective, [4]).model_copy(update={"network": shape}))
    bundle_path = runs.with_name("bundle")
    export_bundle(runs / objective, bundle_path, data_root=runs, say=lambda _: None)
    bundle = load_bundle(bundle_path)
    images = load_dataset(DataRecipe(name="digits", held_out=1), runs).test.images[:3]
    patient = bundle.policy.override(mode="early_exit", threshold=1.1)
    answers = Engine(bundle).classify(images, patient)
    assert [answer.exit for answer in answers] == [len(exits)] * 3


def test_oto_between_different_numbers_of_exits_is_refused(runs: Path) -> None:
    with pytest.raises(RecipeError, match="has 4 exits and oto 2"):
        run(runs, student("oto", [2, 4]))
    assert not (runs / "oto").exists()


def test_a_teacher_trained_on_held_out_samples_is_refused(runs: Path) -> None:
    with pytest.raises(RecipeError, match="held-out split"):
        run(runs, student("mskd", [4], held_out=900))


def test_a_finished_run_is_not_overwritten(runs: Path) -> None:
    before = (runs / "tiny" / "model.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match="finished run"):
        run(runs, recipe(epochs=2))
    assert (runs / "tiny" / "model.safetensors").read_bytes() == before


def test_a_loss_that_is_not_finite_ends_the_run_after_the_epoch(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match="in epoch 1: lower"):
        run(tmp_path, recipe(learning_rate=1e30, warmup_epochs=0, precision="fp32"))
    assert not (tmp_path / "tiny" / "checkpoint.json").exists()


def test_images_can_be_smaller_for_the_first_epochs(tmp_path: Path) -> None:
    run(tmp_path, recipe(epochs=2, progressive={"side": 8, "fraction": 0.5}))
    assert (tmp_path / "tiny" / "checkpoint.json").exists()


def test_a_damaged_checkpoint_is_refused_in_one_sentence(runs: Path) -> None:
    weights = runs / "tiny" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(runs / "tiny")


def test_a_run_stopped_after_its_last_epoch_is_finished_without_its_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("training.run.save_checkpoint", killed)
        with pytest.raises(Killed):
            run(tmp_path, recipe(epochs=1))
    (metrics,) = read_metrics(tmp_path / "tiny")
    (tmp_path / "tiny" / METRICS).unlink()
    run(tmp_path, recipe(epochs=1), resume=True)
    assert read_config(tmp_path / "tiny").held_out == metrics.held_out


def test_a_batch_larger_than_the_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="batch_size 4096"):
        run(tmp_path, recipe(batch_size=4096))


def test_a_batch_of_one_is_refused_where_batch_norm_would_see_one_value(tmp_path: Path) -> None:
    single = recipe(batch_size=1).model_copy(
        update={"network": NetworkRecipe(name="torchvision-resnet18")}
    )
    with pytest.raises(RecipeError, match=r"train\.batch_size must be at least 2: in torchvision"):
        run(tmp_path, single)
    assert list(tmp_path.iterdir()) == []
    dry_run(recipe(batch_size=1), device="cpu")


def test_the_learning_rate_rises_to_its_peak_and_falls_to_zero() -> None:
    settings = TrainRecipe(epochs=5, learning_rate=0.4, warmup_epochs=1)
    rates = [learning_rate(settings, step, 2) for step in range(10)]
    assert rates == pytest.approx([0.2, 0.4, 0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05])


def test_with_milestones_the_learning_rate_steps_down_at_each() -> None:
    settings = TrainRecipe(
        epochs=6, learning_rate=0.5, warmup_epochs=0, milestones=(2, 4), decay=0.1
    )
    rates = [learning_rate(settings, step, 1) for step in range(6)]
    assert rates == pytest.approx([0.5, 0.5, 0.05, 0.05, 0.005, 0.005])


def started(frozen: bool, exits: list[int]) -> Recipe:
    return recipe(epochs=1).model_copy(
        update={
            "name": "started",
            "network": recipe().network.model_copy(update={"exits": tuple(exits)}),
            "start": StartRecipe(recipe="tiny", frozen=frozen),
        }
    )


def test_heads_can_be_trained_on_the_frozen_backbone_of_an_earlier_run(tmp_path: Path) -> None:
    single = recipe(epochs=1).model_copy(
        update={"network": recipe().network.model_copy(update={"exits": (4,)})}
    )
    run(tmp_path, single)
    run(tmp_path, started(frozen=True, exits=[1, 2, 3, 4]))
    earlier, was = load_checkpoint(tmp_path / "tiny")
    later, now = load_checkpoint(tmp_path / "started")
    for name, tensor in earlier.stages.state_dict().items():
        assert torch.equal(tensor, later.stages.state_dict()[name]), name
    assert now.test.exits[3] == was.test.exits[0]


def test_freezing_every_head_is_refused(runs: Path) -> None:
    with pytest.raises(RecipeError, match="nothing is left to train"):
        run(runs, started(frozen=True, exits=[2, 4]))


def test_a_run_can_start_from_an_earlier_one_and_go_on(runs: Path) -> None:
    run(runs, started(frozen=False, exits=[2, 4]))
    earlier, _ = load_checkpoint(runs / "tiny")
    later, _ = load_checkpoint(runs / "started")
    weights = [net.stages[0][0].weight for net in (earlier, later)]
    assert not torch.equal(*weights)
