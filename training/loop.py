"""The training loop: one for a CPU and for a GPU."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from training.checkpoint import load_resume, save_resume
from training.data.batches import Resident
from training.errors import DivergedError
from training.evaluate import accuracies, predict
from training.models.multi_exit import MultiExit, Normalize
from training.objectives.losses import cross_entropy, kd, mskd, oto
from training.recipe import ObjectiveRecipe, Recipe, TrainRecipe
from training.report import EpochMetrics, Report


@dataclass(frozen=True)
class Run:
    """What one training run works on. `teacher` is None for cross-entropy."""

    directory: Path
    recipe: Recipe
    network: MultiExit
    teacher: MultiExit | None
    normalize: Normalize
    train: Resident
    held_out: Resident
    device: torch.device


def learning_rate(step: int, steps: int, warmup: int, peak: float) -> float:
    """Linear warm-up from peak / warmup over `warmup` steps, then linear decay towards zero."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (steps - step) / (steps - warmup)


def loss_of(
    objective: ObjectiveRecipe, student: list[Tensor], teacher: list[Tensor] | None, labels: Tensor
) -> Tensor:
    """The recipe's objective on one batch of logits. `teacher` is None for cross-entropy alone."""
    temperature, alpha = objective.temperature, objective.alpha
    if teacher is None:
        return cross_entropy(student, labels)
    if objective.name == "kd":
        return kd(student[-1], teacher[-1], labels, temperature, alpha)
    multi_exit = {"mskd": mskd, "oto": oto}[objective.name]
    return multi_exit(student, teacher, labels, temperature, alpha)


def train(run: Run, report: Report, first_epoch: int) -> None:
    """Train `run.network` in place from epoch `first_epoch` (0-based) to the recipe's last.

    After every epoch it writes the resume file and reports metrics on the held-out split. Raises
    DivergedError when an epoch's mean loss is not finite; the resume file of the epoch before stays.
    """
    settings = run.recipe.train
    optimizer = torch.optim.SGD(
        run.network.parameters(),
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=settings.momentum > 0,
    )
    if first_epoch:
        load_resume(run.directory, run.network, optimizer)
    for epoch in range(first_epoch, settings.epochs):
        began = time.perf_counter()
        loss = train_epoch(run, optimizer, epoch, report.step)
        if not math.isfinite(loss):
            raise DivergedError(
                f"the loss is {loss} in epoch {epoch + 1}: lower train.learning_rate; "
                f"{run.directory} keeps the state after epoch {epoch}."
            )
        held_out = accuracies(
            predict(run.network, run.normalize, run.held_out), run.held_out.labels
        )
        seconds = time.perf_counter() - began
        report.epoch(EpochMetrics(epoch=epoch + 1, loss=loss, held_out=held_out, seconds=seconds))
        state = {"epochs_done": epoch + 1, "recipe": run.recipe.model_dump(mode="json")}
        save_resume(run.directory, run.network, optimizer, state)


def train_epoch(
    run: Run, optimizer: torch.optim.Optimizer, epoch: int, on_step: Callable[[int, int], None]
) -> float:
    """One pass over the training split; returns the mean loss. Calls `on_step(done, steps)`."""
    settings, data = run.recipe.train, run.recipe.data
    steps = len(run.train) // settings.batch_size
    warmup = round(settings.warmup_epochs * steps)
    side = _side(settings, epoch)
    total = torch.zeros((), device=run.device)
    run.network.train()
    batches = run.train.shuffled(
        settings.batch_size, data.padding, data.flip, run.recipe.seed, epoch
    )
    for step, (images, labels) in enumerate(batches):
        rate = learning_rate(
            epoch * steps + step, settings.epochs * steps, warmup, settings.learning_rate
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        inputs = run.normalize(images).contiguous(memory_format=torch.channels_last)
        if side is not None:
            inputs = interpolate(inputs, size=(side, side), mode="bilinear", antialias=True)
        with torch.autocast(run.device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
            teacher = _teach(run.teacher, inputs)
            student = [logits.float() for logits in run.network(inputs)]
        loss = loss_of(run.recipe.objective, student, teacher, labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += loss.detach()
        on_step(step + 1, steps)
    return total.item() / steps


@torch.no_grad()
def _teach(teacher: MultiExit | None, inputs: Tensor) -> list[Tensor] | None:
    return None if teacher is None else [logits.float() for logits in teacher(inputs)]


def _side(settings: TrainRecipe, epoch: int) -> int | None:
    progressive = settings.progressive
    if progressive is None or epoch >= progressive.fraction * settings.epochs:
        return None
    return progressive.side
