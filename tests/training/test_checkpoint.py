"""A checkpoint's JSON is read in its current and its earlier form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from training.checkpoint import (
    CONFIG,
    CheckpointConfig,
    ExitAccuracies,
    ResumeState,
    read_config,
    resume_state,
    save_checkpoint,
    save_resume,
)
from training.errors import CheckpointError
from training.models.multi_exit import Normalize
from training.objectives.exits import ExitCriterion
from training.recipes.schema import ExitObjective, Recipe
from training.step import Step

RECIPE = Recipe.model_validate(
    {
        "name": "tiny",
        "data": {"name": "digits", "held_out": 1000},
        "network": {"name": "resnet10", "width": 4},
        "objective": {"method": "cross_entropy"},
        "train": {"epochs": 1},
    }
)
ACCURACIES = ExitAccuracies(exits=(50.0, 60.0, 70.0, 80.0), ensemble=81.0)
COMPLETE = CheckpointConfig(
    recipe=RECIPE,
    classes=("a", "b"),
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    image_size=(16, 16),
    fingerprint="0123abcd",
    teacher_test=None,
    held_out=ACCURACIES,
    test=ACCURACIES,
    seconds=1.0,
    tools={},
)


def test_the_fingerprint_is_written_as_fingerprint_and_read_back(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, COMPLETE.build(), COMPLETE)
    content = json.loads((tmp_path / CONFIG).read_text())
    assert content["fingerprint"] == "0123abcd"
    assert "listing" not in content
    assert read_config(tmp_path) == COMPLETE


@pytest.mark.parametrize("fingerprint", ["0123abcd", None])
def test_a_checkpoint_with_the_earlier_key_listing_is_read(
    tmp_path: Path, fingerprint: str | None
) -> None:
    content = COMPLETE.model_dump(mode="json", exclude={"fingerprint"})
    (tmp_path / CONFIG).write_text(json.dumps({**content, "listing": fingerprint}))
    assert read_config(tmp_path) == COMPLETE.model_copy(update={"fingerprint": fingerprint})


def test_a_checkpoint_without_a_fingerprint_is_read(tmp_path: Path) -> None:
    content = COMPLETE.model_dump(mode="json", exclude={"fingerprint"})
    (tmp_path / CONFIG).write_text(json.dumps(content))
    assert read_config(tmp_path).fingerprint is None


def test_an_unknown_key_is_refused(tmp_path: Path) -> None:
    content = COMPLETE.model_dump(mode="json")
    (tmp_path / CONFIG).write_text(json.dumps({**content, "digest": "0123abcd"}))
    with pytest.raises(CheckpointError, match="digest: Extra inputs are not permitted"):
        read_config(tmp_path)


class EarlierState(ResumeState):
    """A resume state that is written as earlier versions did."""

    def model_dump_json(self, **_: object) -> str:  # type: ignore[override]
        content = self.model_dump(mode="json")
        content["listing"] = content.pop("fingerprint")
        return json.dumps(content)


@pytest.mark.parametrize("kind", [ResumeState, EarlierState])
def test_a_resume_file_with_either_key_is_read(tmp_path: Path, kind: type[ResumeState]) -> None:
    objective = ExitObjective(method="cross_entropy")
    normalize = Normalize(COMPLETE.mean, COMPLETE.std)
    step = Step(COMPLETE.build(), None, ExitCriterion(objective), normalize, "fp32")
    optimizer = torch.optim.SGD(step.student.parameters(), lr=0.1)
    state = kind(epochs_done=3, recipe=RECIPE, fingerprint="0123abcd")
    save_resume(tmp_path, step, optimizer, state)
    assert resume_state(tmp_path) == ResumeState(
        epochs_done=3, recipe=RECIPE, fingerprint="0123abcd"
    )
