"""Checkpoints: safetensors and JSON, never a pickle.

The directory of a finished run holds the checkpoint, `model.safetensors` and `checkpoint.json`. The
directory of an unfinished run holds `resume.safetensors`: weights, the optimiser's state and the epoch in
one file, which is replaced in one step, so a killed process leaves the last complete one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from offramp.files import replacing
from offramp.validation import first_problem
from training.errors import CheckpointError
from training.models.build import network_from_recipe
from training.models.multi_exit import MultiExit
from training.recipes.schema import Recipe
from training.step import Step

WEIGHTS = "model.safetensors"
CONFIG = "checkpoint.json"
RESUME = "resume.safetensors"
# What SGD and AdamW keep of a parameter, and the prefix of its name in a resume file.
OPTIMIZER_STATE = {
    "momentum_buffer": "momentum",
    "exp_avg": "adamw.exp_avg",
    "exp_avg_sq": "adamw.exp_avg_sq",
    "step": "adamw.step",
}

# Earlier versions wrote it as `listing`.
Fingerprint = Annotated[str | None, Field(validation_alias=AliasChoices("fingerprint", "listing"))]


class ExitAccuracies(BaseModel):
    """Top-1 accuracy in percent: one figure per exit, and of the mean of the exits' logits."""

    exits: tuple[float, ...]
    ensemble: float


class CheckpointConfig(BaseModel):
    """Everything about a finished run except its weights. `fingerprint` is the data set's. `test` is
    None if that has no test split, `held_out` if nothing was held out, as in a refit."""

    model_config = ConfigDict(extra="forbid")

    format: int = 1
    recipe: Recipe
    classes: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    image_size: tuple[int, int]
    fingerprint: Fingerprint = None
    teacher_test: ExitAccuracies | None
    held_out: ExitAccuracies | None
    test: ExitAccuracies | None
    seconds: float
    tools: dict[str, str]

    def build(self) -> MultiExit:
        """The network of this checkpoint, with fresh weights."""
        return network_from_recipe(self.recipe.network, len(self.classes))


class ResumeState(BaseModel):
    """Everything about an unfinished run except its tensors. `epochs_done` includes the preparation's,
    `fingerprint` is the data set's."""

    model_config = ConfigDict(extra="forbid")

    epochs_done: int
    recipe: Recipe
    fingerprint: Fingerprint = None


def save_checkpoint(run: Path, network: MultiExit, config: CheckpointConfig) -> None:
    """Write the checkpoint into directory `run`; the JSON is written last and completes it."""
    _write_tensors(run / WEIGHTS, _weights(network), {})
    write_config(run, config)


def write_config(run: Path, config: CheckpointConfig) -> None:
    """Write the JSON of a checkpoint into directory `run` in one step."""
    with replacing(run / CONFIG) as part:
        part.write_text(config.model_dump_json(indent=2) + "\n", "utf-8")


def load_checkpoint(run: Path) -> tuple[MultiExit, CheckpointConfig]:
    """Read the checkpoint in directory `run`: the network on the CPU in eval mode, and its config.

    Raises CheckpointError if it is missing, unfinished, damaged or of another format.
    """
    config = read_config(run)
    tensors, _ = _read_tensors(run / WEIGHTS)
    network = config.build()
    _fill(network, tensors, run / WEIGHTS)
    return network.eval(), config


def read_config(run: Path) -> CheckpointConfig:
    """The config of the checkpoint in directory `run`. Raises CheckpointError as `load_checkpoint`."""
    try:
        content = (run / CONFIG).read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{run} holds no finished checkpoint ({CONFIG} is missing)."
        ) from error
    try:
        return CheckpointConfig.model_validate_json(content)
    except ValidationError as error:
        raise CheckpointError(
            f"{run / CONFIG} is not a valid checkpoint: {first_problem(error)}."
        ) from error


def save_resume(
    run: Path,
    step: Step,
    optimizer: torch.optim.Optimizer,
    state: ResumeState,
) -> None:
    """Write student, criterion, the optimiser's state and `state` for `load_resume`."""
    trained = _trained(step)
    tensors = {f"model.{name}": tensor for name, tensor in _weights(trained).items()}
    for name, parameter in trained.named_parameters():
        for entry, prefix in OPTIMIZER_STATE.items():
            buffer = optimizer.state.get(parameter, {}).get(entry)
            if buffer is not None:
                tensors[f"{prefix}.{name}"] = buffer.detach().cpu().contiguous()
    _write_tensors(run / RESUME, tensors, {"state": state.model_dump_json()})


def resume_state(run: Path) -> ResumeState | None:
    """The state of the unfinished run in directory `run`, or None if there is none.

    Raises CheckpointError if its file is damaged or not a resume file.
    """
    if not (run / RESUME).is_file():
        return None
    _, metadata = _read_tensors(run / RESUME, tensors=False)
    try:
        return ResumeState.model_validate_json(metadata.get("state", ""))
    except ValidationError as error:
        raise CheckpointError(
            f"{run / RESUME} is not the state of a run of this version; move it away to train again."
        ) from error


def load_resume(
    run: Path,
    step: Step,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Load what `save_resume` wrote into student, criterion and `optimizer`."""
    trained = _trained(step)
    tensors, _ = _read_tensors(run / RESUME)
    weights = {name[6:]: t for name, t in tensors.items() if name.startswith("model.")}
    _fill(trained, weights, run / RESUME)
    for name, parameter in trained.named_parameters():
        for entry, prefix in OPTIMIZER_STATE.items():
            buffer = tensors.get(f"{prefix}.{name}")
            if buffer is None:
                continue
            if buffer.ndim:  # AdamW counts its steps in a scalar on the CPU
                buffer = torch.empty_like(parameter).copy_(buffer)
            optimizer.state[parameter][entry] = buffer


def _trained(step: Step) -> nn.Module:
    return nn.ModuleDict({"student": step.student, "criterion": step.criterion})


def _weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: t.detach().cpu().contiguous() for name, t in network.state_dict().items()}


def _fill(network: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit the network of its recipe.") from error


def _write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    with replacing(path) as part:
        try:
            save_file(tensors, part, metadata)
        except SafetensorError as error:  # a full disk, too
            raise OSError(str(error)) from error


def _read_tensors(path: Path, tensors: bool = True) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys() if tensors else []
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}.") from error
