"""The moving average of the weights, by hand and through a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.training.runs import RECIPE, Killed
from training.average import WeightAverage
from training.checkpoint import CheckpointConfig, load_checkpoint
from training.recipes.files import load_recipe
from training.recipes.schema import Recipe
from training.report import Report
from training.run import run_recipe


def test_the_first_averages_follow_the_weights_and_later_ones_keep_the_decay() -> None:
    network = nn.BatchNorm1d(1)
    network.weight.data.fill_(0.0)
    average = WeightAverage(network, 0.3)
    network.weight.data.fill_(1.0)
    network.num_batches_tracked.fill_(7)
    average.update()  # keeps (1 + 1) / (10 + 1)
    assert average.tensors["weight"].item() == pytest.approx(1 - 2 / 11)
    network.weight.data.fill_(2.0)
    average.update()  # keeps 3 / 12
    assert average.tensors["weight"].item() == pytest.approx(0.25 * 9 / 11 + 0.75 * 2)
    average.update()  # keeps 0.3, less than 4 / 13
    second = 0.25 * 9 / 11 + 0.75 * 2
    assert average.tensors["weight"].item() == pytest.approx(0.3 * second + 0.7 * 2)
    assert "num_batches_tracked" not in average.tensors


def test_applied_weights_are_taken_back_even_after_an_error() -> None:
    network = nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(0.0)
    average = WeightAverage(network, 0.5)
    network.weight.data.fill_(4.0)
    seen: list[float] = []

    def fail() -> None:
        with average.applied():
            seen.append(network.weight.item())
            raise Killed

    with pytest.raises(Killed):
        fail()
    assert (seen, network.weight.item()) == ([0.0], 4.0)


def recipe(folder: Path, decay: float | None) -> Recipe:
    file = folder / "tiny.toml"
    file.write_text(RECIPE + ("" if decay is None else f"average = {decay}\n"))
    return load_recipe(str(file))


def trained(folder: Path, decay: float | None, resume: bool = False) -> CheckpointConfig:
    folder.mkdir(exist_ok=True)
    return run_recipe(
        recipe(folder, decay),
        runs=folder,
        data_root=folder,
        device="cpu",
        resume=resume,
        say=lambda _: None,
    )


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_run_keeps_its_average_and_a_resumed_run_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    monkeypatch.setattr(
        "tests.training.test_average.RECIPE", f'{RECIPE}optimizer = "{optimizer}"\n'
    )
    config = trained(tmp_path / "whole", 0.9)
    plain = trained(tmp_path / "plain", None)
    with monkeypatch.context() as patch:
        epoch = Report.epoch

        def killed_at_the_third(self: Report, metrics: object) -> None:
            epoch(self, metrics)  # type: ignore[arg-type]
            if len(self.history) == 3:
                raise Killed

        patch.setattr(Report, "epoch", killed_at_the_third)
        with pytest.raises(Killed):
            trained(tmp_path / "stopped", 0.9)
    resumed = trained(tmp_path / "stopped", 0.9, resume=True)
    whole, _ = load_checkpoint(tmp_path / "whole" / "tiny")
    again, _ = load_checkpoint(tmp_path / "stopped" / "tiny")
    other, _ = load_checkpoint(tmp_path / "plain" / "tiny")
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], tensor)
    assert resumed.held_out == config.held_out
    assert plain.test != config.test
    assert not torch.equal(
        other.state_dict()["heads.0.classify.linear.weight"],
        whole.state_dict()["heads.0.classify.linear.weight"],
    )
