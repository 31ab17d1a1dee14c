"""The runs of one bundle: a finished run, and those that follow it at the image."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exports.bundle.errors import ExportError
from training.checkpoint import CONFIG, CheckpointConfig, load_checkpoint
from training.models.multi_exit import MultiExit


@dataclass(frozen=True)
class TrainedRun:
    """The network of a finished run, on the CPU in eval mode, and its config."""

    network: MultiExit
    config: CheckpointConfig


def load_cascade(path: Path) -> list[TrainedRun]:
    """The run in directory `path`, then the one its recipe is `followed_by`, and so on.

    A run is found by its recipe's name below the directory of runs that holds the first one. Raises
    CheckpointError if a checkpoint is missing or damaged, ExportError if a follower is not trained, is
    a run before it, or differs from the first in classes, image size, data or held-out split.
    """
    first = TrainedRun(*load_checkpoint(path))
    runs = [first]
    directory = _runs_directory(path, first.config.recipe.name)
    while (name := runs[-1].config.recipe.followed_by) is not None:
        before = [run.config.recipe.name for run in runs]
        if name in before:
            raise ExportError(f"{before[-1]} is followed by {name}, which comes before it.")
        if not (directory / name / CONFIG).is_file():
            raise ExportError(
                f"{name}, which follows {before[-1]}, is not trained yet: run "
                f"`offramp train {name}` first."
            )
        follower = TrainedRun(*load_checkpoint(directory / name))
        _check_same_task(first.config, follower.config)
        runs.append(follower)
    return runs


def _runs_directory(path: Path, name: str) -> Path:
    """The directory of runs that holds the run `name` as `path`; a name may have several parts."""
    parents = Path(os.path.abspath(path)).parents
    return parents[min(name.count("/"), len(parents) - 1)]


def _check_same_task(first: CheckpointConfig, follower: CheckpointConfig) -> None:
    differences = {
        "set of classes": first.classes != follower.classes,
        "image size": first.image_size != follower.image_size,
        "data set or held-out split": _samples(first) != _samples(follower),
        "version of the images": len({first.fingerprint, follower.fingerprint} - {None}) > 1,
    }
    for what, differs in differences.items():
        if differs:
            raise ExportError(
                f"{follower.recipe.name} cannot follow {first.recipe.name}: it was trained with "
                f"another {what}."
            )


def _samples(config: CheckpointConfig) -> tuple[Any, ...]:
    """Which images a run was trained on, and which it held out."""
    data = config.recipe.data
    return (data.name, data.path, data.held_out, data.held_out_seed)
