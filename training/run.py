"""A training run from recipe to checkpoint."""

from __future__ import annotations

import platform
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from training.assemble import build_step, load_teacher, use_statistics
from training.average import average_if_useful, load_weights_to_average
from training.checkpoint import (
    CONFIG,
    RESUME,
    CheckpointConfig,
    ExitAccuracies,
    ResumeState,
    load_checkpoint,
    read_config,
    resume_state,
    save_checkpoint,
)
from training.data.batches import DeviceDataset
from training.data.dataset import Dataset
from training.data.load import load_dataset, split_held_out
from training.distributed import DistContext, choose_device, sync_batch_norm
from training.errors import CheckpointError, RecipeError
from training.evaluate import measure
from training.loop import Run, train
from training.models.cost import count_parameters
from training.recipes.refit import REFIT, refit_recipe
from training.recipes.schema import Recipe
from training.report import EpochMetrics, Report, without_repeats
from training.run_lock import run_lock
from training.speed import arithmetic, compile_step, keep_freed_memory, use_tensor_cores
from training.teachers.open_views import open_views


def run_recipe(
    recipe: Recipe,
    *,
    runs: Path,
    data_root: Path,
    device: str = "auto",
    download: bool = False,
    resume: bool = False,
    compiled: bool = False,
    say: Callable[[str], None] = print,
    on_start: Callable[[], None] = lambda: None,
) -> CheckpointConfig:
    """Train `recipe` in directory `runs`/NAME and write its checkpoint there.

    With `resume`, an unfinished run goes on and a finished run is returned unchanged; without it, an
    existing run is refused. A recipe's refit follows in `runs`/NAME/refit. `compiled` passes the step
    through torch.compile. Of several processes (training/distributed.py) only the main one writes and
    prints; it calls `on_start` after all checks, before training. Raises RecipeError, DataError,
    CheckpointError, BusyError, WriteError or DivergedError.
    """
    say = without_repeats(say)
    fit = partial(
        _fit,
        runs=runs,
        data_root=data_root,
        device=device,
        download=download,
        resume=resume,
        compiled=compiled,
        say=say,
    )
    config = fit(recipe, on_start=on_start)
    if recipe.refit:
        fit(refit_recipe(recipe), on_start=lambda: say(f"{recipe.name}: again on everything"))
    return config


def _fit(
    recipe: Recipe,
    *,
    runs: Path,
    data_root: Path,
    device: str,
    download: bool,
    resume: bool,
    compiled: bool,
    say: Callable[[str], None],
    on_start: Callable[[], None],
) -> CheckpointConfig:
    directory = runs / recipe.name
    dist = DistContext.current()
    dist.share(recipe.train.batch_size)  # raises before any work is done
    target = choose_device(device)
    if (directory / CONFIG).is_file():
        check_resumable(directory, recipe, resume)
        return _read_finished(directory, recipe, dist, say)
    with dist.main_process_first():
        dataset = load_dataset(recipe.data, data_root, download)
    teacher, teacher_config = load_teacher(recipe, dataset, runs)
    dataset = use_statistics(recipe, dataset, teacher_config, runs)
    to_average = load_weights_to_average(recipe, dataset, runs)

    torch.manual_seed(recipe.seed)
    train_split, held_out = _splits_on_device(recipe, dataset, target)
    step = build_step(recipe, dataset, teacher, runs, train_split.labels)
    step = step.to(target).to(memory_format=torch.channels_last)
    if dist.world_size > 1:
        sync_batch_norm(step, target)
    if target.type == "cuda":
        use_tensor_cores()
    else:
        keep_freed_memory()
    if compiled:
        compile_step(step, target)
    views = open_views(recipe, dataset, teacher_config, train_split, runs, dist, say)
    directory.mkdir(parents=True, exist_ok=True)

    run = Run(
        directory, recipe, step, train_split, held_out, target, dist, dataset.fingerprint, views
    )
    if dist.is_main:
        with run_lock(directory):
            first_epoch = _first_epoch(run, resume, dataset)
            on_start()
            if dataset.passed_over is not None:
                say(dataset.passed_over)
            say(_headline(run))
            if views is not None:
                say(views.headline())
            with Report(directory, run.epochs, first_epoch) as report:
                train(run, report, first_epoch)
            accuracies = report.history[-1].held_out
            if to_average is not None:
                done = average_if_useful(run.step, to_average, run.train)
                say(f"{recipe.name} and {recipe.average_with}: {done}")
                accuracies = measure(run.step, run.held_out)
            _finish(run, report.history, accuracies, dataset, teacher_config)
    else:
        train(run, None, _first_epoch(run, resume, dataset))
    dist.barrier()
    return read_config(directory)


def _headline(run: Run) -> str:
    network, world_size = run.step.student, run.dist.world_size
    devices = run.device.type if world_size == 1 else f"{world_size} x {run.device.type}"
    precision = arithmetic(run.recipe.train.precision, run.device)
    return (
        f"{run.recipe.name}: {run.recipe.network.title}, {network.exits} exits, "
        f"{count_parameters(network) / 1e6:.2f} M parameters, "
        f"{len(run.train)} images on {devices} in {precision}"
    )


def _finish(
    run: Run,
    history: list[EpochMetrics],
    held_out: ExitAccuracies | None,
    dataset: Dataset,
    teacher: CheckpointConfig | None,
) -> None:
    """Evaluate on the test split, write the checkpoint and remove the resume file."""
    network, test = run.step.student, DeviceDataset.of(dataset.test, run.device)
    config = CheckpointConfig(
        recipe=run.recipe,
        classes=dataset.classes,
        mean=dataset.mean,
        std=dataset.std,
        image_size=(dataset.train.images.shape[1], dataset.train.images.shape[2]),
        fingerprint=dataset.fingerprint,
        teacher_test=teacher.test if teacher else None,
        held_out=held_out,
        test=measure(run.step, test),
        seconds=round(sum(metrics.seconds for metrics in history), 1),
        tools={"python": platform.python_version(), "torch": torch.__version__},
    )
    save_checkpoint(run.directory, network, config)
    (run.directory / RESUME).unlink()


def is_finished(directory: Path, recipe: Recipe) -> bool:
    """Whether `directory` holds a finished run, and its refit if `recipe` has one."""
    needed = [directory, *([directory / REFIT] if recipe.refit else [])]
    return all((place / CONFIG).is_file() for place in needed)


def check_resumable(directory: Path, recipe: Recipe, resume: bool) -> ResumeState | None:
    """The state of the unfinished run of `recipe` in `directory`, or None.

    Raises CheckpointError if `directory` holds a run that `recipe` must not go on with.
    """
    if (directory / CONFIG).is_file():
        if not resume:
            if not is_finished(directory, recipe):
                raise CheckpointError(
                    f"{directory} holds a run whose refit is not finished: add --resume to go on, or "
                    "move it away."
                )
            raise CheckpointError(f"{directory} holds a finished run; move it away to train again.")
        if read_config(directory).recipe != recipe:
            raise CheckpointError(
                f"{directory} holds a finished run of another recipe; move it away."
            )
        return None
    state = resume_state(directory)
    if state is None:
        return None
    if not resume:
        raise CheckpointError(
            f"{directory} holds a run stopped after epoch {state.epochs_done}: "
            "add --resume to go on, or move it away."
        )
    if state.recipe != recipe:
        raise CheckpointError(
            f"{directory} was begun with another recipe; move it away to train again."
        )
    return state


def _read_finished(
    directory: Path, recipe: Recipe, dist: DistContext, say: Callable[[str], None]
) -> CheckpointConfig:
    """The config of the finished run in `directory`, after a check that its weights load."""
    _, config = load_checkpoint(directory)
    if dist.is_main:
        with run_lock(directory):
            (directory / RESUME).unlink(missing_ok=True)  # left if the process was killed before
        say(f"{recipe.name}: finished already")
    return config


def _first_epoch(run: Run, resume: bool, dataset: Dataset) -> int:
    directory = run.directory
    if (directory / CONFIG).is_file():
        raise CheckpointError(f"another process just finished the run in {directory}.")
    state = check_resumable(directory, run.recipe, resume)
    if state is None:
        return 0
    if not dataset.matches(state.fingerprint):
        raise CheckpointError(
            f"{directory} was begun with other images than {dataset.name} holds now; "
            "move it away to train again."
        )
    return state.epochs_done


def _splits_on_device(
    recipe: Recipe, dataset: Dataset, device: torch.device
) -> tuple[DeviceDataset, DeviceDataset]:
    """The training and the held-out split. Raises RecipeError if a batch is larger than the first."""
    kept, held_out = split_held_out(recipe.data, dataset.train.labels)
    if len(kept) < recipe.train.batch_size:
        raise RecipeError(
            f"train.batch_size {recipe.train.batch_size} is larger than the {len(kept)} training images."
        )
    return (
        DeviceDataset.of(dataset.train.take(kept), device),
        DeviceDataset.of(dataset.train.take(held_out), device),
    )
