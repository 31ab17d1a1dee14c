"""The training loop, for a CPU, a GPU and several processes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from training.checkpoint import ResumeState, load_resume, save_resume
from training.data.batches import DeviceDataset, View
from training.distributed import SINGLE_PROCESS, DistContext
from training.errors import DivergedError
from training.evaluate import measure
from training.recipes.schema import Recipe, TrainRecipe
from training.report import EpochMetrics, Report
from training.step import Step
from training.teachers.cached_views import CachedViews


@dataclass(frozen=True)
class Run:
    """The parts of one training run; `fingerprint` is its data set's.

    `views` are None where the teacher runs in the step, or there is none.
    """

    directory: Path
    recipe: Recipe
    step: Step
    train: DeviceDataset
    held_out: DeviceDataset
    device: torch.device
    dist: DistContext = SINGLE_PROCESS
    fingerprint: str | None = None
    views: CachedViews | None = None

    @cached_property
    def parallel(self) -> nn.Module:
        """The step, with gradients over all processes' samples."""
        return self.dist.parallel(self.step)

    @property
    def preparation(self) -> int:
        """Epochs of the criterion's preparation, before the recipe's epochs."""
        return self.step.criterion.preparation

    @property
    def epochs(self) -> int:
        """All epochs, including the preparation."""
        return self.preparation + self.recipe.train.epochs


def learning_rate(settings: TrainRecipe, step: int, steps: int) -> float:
    """The rate at the 0-based `step`, with `steps` an epoch.

    Linear warm-up from peak / warm-up steps, then linear decay towards zero; or, with milestones, a
    step down at each.
    """
    peak, warmup = settings.learning_rate, round(settings.warmup_epochs * steps)
    if step < warmup:
        return peak * (step + 1) / warmup
    if settings.milestones:
        return peak * settings.decay ** sum(step >= epoch * steps for epoch in settings.milestones)
    whole = settings.epochs * steps
    return peak * (whole - step) / (whole - warmup)


def train(run: Run, report: Report | None, first_epoch: int) -> None:
    """Train `run.step` in place from epoch `first_epoch` (0-based) to the last.

    After every epoch the main process writes the resume file and reports metrics on the held-out
    split; the others have no `report`. Raises DivergedError if an epoch ends with a loss or a weight
    that is not finite; the resume file of the previous epoch is kept.
    """
    optimizer = new_optimizer(run, first_epoch)
    if first_epoch:
        load_resume(run.directory, run.step, optimizer)
    for epoch in range(first_epoch, run.epochs):
        if epoch == run.preparation:
            optimizer = new_optimizer(run, epoch)
        started = time.perf_counter()
        view = run.views.load(epoch, report) if run.views else None
        on_step = report.step if report else _no_report
        loss = train_epoch(run, optimizer, epoch, on_step, view)
        if not (math.isfinite(loss) and _all_finite(run.step)):
            raise DivergedError(_diverged(run, epoch, loss))
        if report is None:
            continue
        held_out = measure(run.step, run.held_out)
        seconds = time.perf_counter() - started
        report.epoch(EpochMetrics(epoch=epoch + 1, loss=loss, held_out=held_out, seconds=seconds))
        state = ResumeState(epochs_done=epoch + 1, recipe=run.recipe, fingerprint=run.fingerprint)
        save_resume(run.directory, run.step, optimizer, state)


def train_epoch(
    run: Run,
    optimizer: torch.optim.Optimizer,
    epoch: int,
    on_step: Callable[[int, int], None],
    view: View | None = None,
) -> float:
    """One pass over the training split, as `view` shows it if given; returns the mean loss.

    Calls `on_step(done, steps)`.
    """
    settings = run.recipe.train
    steps = len(run.train) // settings.batch_size
    preparing = epoch < run.preparation
    first_step = (epoch if preparing else epoch - run.preparation) * steps
    side = None if preparing else _side(settings, epoch - run.preparation)
    total = torch.zeros((), device=run.device)
    run.step.train()
    size, seed, share = settings.batch_size, run.recipe.seed, run.dist.share(settings.batch_size)
    if view is None:
        batches = run.train.shuffled(size, run.recipe.data, seed, epoch, share)
    else:
        batches = view.shuffled(size, seed, epoch, share)
    for done, (images, batch) in enumerate(batches):
        step = first_step + done
        if preparing:  # the whole schedule, scaled to the preparation's length
            step = step * settings.epochs // run.preparation
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings, step, steps)
        loss = run.parallel(images, batch, side, preparing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.detach()
        on_step(done + 1, steps)
    return run.dist.mean(total).item() / steps


def new_optimizer(run: Run, epoch: int) -> torch.optim.Optimizer:
    """A new optimiser for the parameters that `epoch` trains; settles the criterion if it is prepared."""
    settings, student, criterion = run.recipe.train, run.step.student, run.step.criterion
    if epoch < run.preparation:
        trained = [*criterion.prepared(), *([student] if criterion.prepares_student else [])]
    else:
        criterion.settle()
        trained = [student, criterion]
    parameters = [p for p in nn.ModuleList(trained).parameters() if p.requires_grad]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(
            parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
    return torch.optim.SGD(
        parameters,
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=settings.nesterov and settings.momentum > 0,
    )


def _side(settings: TrainRecipe, epoch: int) -> int | None:
    progressive = settings.progressive
    if progressive is None or epoch >= progressive.fraction * settings.epochs:
        return None
    return progressive.side


def _no_report(done: int, steps: int) -> None:
    """Ignores the progress of a process without a report."""


def _all_finite(step: Step) -> bool:
    """Whether all weights and statistics are finite; a resume file must hold no others."""
    tensors = (*step.student.state_dict().values(), *step.criterion.state_dict().values())
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


def _diverged(run: Run, epoch: int, loss: float) -> str:
    reason = "a weight is no longer finite" if math.isfinite(loss) else f"the loss is {loss}"
    if epoch == 0:
        return f"{reason} in epoch 1: lower train.learning_rate and train again."
    return (
        f"{reason} in epoch {epoch + 1}; {run.directory} keeps the state after epoch {epoch}: move it "
        "away and train again with a lower train.learning_rate, or add --resume to go on from it."
    )
