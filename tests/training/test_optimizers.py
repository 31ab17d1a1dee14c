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


def train(folder: Path, optimizer: str, resume: bool = False) -> dict[str, torch.Tensor]:
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


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_resumed_run_has_the_weights_of_one_that_was_not_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    whole = train(tmp_path / "whole", optimizer)
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
    for name, tensor in whole.items():
        assert torch.equal(resumed[name], tensor), name


def test_adamw_and_sgd_train_other_weights(tmp_path: Path) -> None:
    sgd, adamw = (train(tmp_path / name, name) for name in ("sgd", "adamw"))
    assert any(not torch.equal(sgd[name], adamw[name]) for name in sgd)
