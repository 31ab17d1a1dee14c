"""Either optimiser goes on from a resume file as if it had not been stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.training.runs import RECIPE, Killed
from training.checkpoint import load_checkpoint
from training.recipes.files import load_recipe
from training.report import Report
from training.run import run_recipe

Weights = dict[str, torch.Tensor]


def train(folder: Path, optimizer: str, resume: bool = False) -> Weights:
    """The weights of a run of the digits in `folder`."""
    folder.mkdir(exist_ok=True)
    file = folder / "tiny.toml"
    file.write_text(f'{RECIPE}optimizer = "{optimizer}"\n')
    run_recipe(
        load_recipe(str(file)),
        runs=folder,
        data_root=folder,
        device="cpu",
        resume=resume,
        say=lambda _: None,
    )
    return load_checkpoint(folder / "tiny")[0].state_dict()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Weights]:
    """The weights of a run that was not stopped, by its optimiser."""
    place = tmp_path_factory.mktemp("whole")
    return {optimizer: train(place / optimizer, optimizer) for optimizer in ("sgd", "adamw")}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_resumed_run_has_the_weights_of_one_that_was_not_stopped(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    whole: dict[str, Weights],
    optimizer: str,
) -> None:
    report = Report.epoch

    def killed_at_the_fourth(self: Report, metrics: object) -> None:
        report(self, metrics)  # type: ignore[arg-type]
        if len(self.history) == 4:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Report, "epoch", killed_at_the_fourth)
        with pytest.raises(Killed):
            train(tmp_path / "stopped", optimizer)
    resumed = train(tmp_path / "stopped", optimizer, resume=True)
    for name, tensor in whole[optimizer].items():
        assert torch.equal(resumed[name], tensor), name


def test_adamw_and_sgd_train_other_weights(whole: dict[str, Weights]) -> None:
    sgd, adamw = whole["sgd"], whole["adamw"]
    assert any(not torch.equal(sgd[name], adamw[name]) for name in sgd)
