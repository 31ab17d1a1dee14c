"""A training run from recipe to checkpoint."""

from __future__ import annotations

import platform
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from training.assemble import (
    build_step,
    check_batch_size,
    check_refit,
    load_teacher,
    use_statistics,
)
from training.average import average_if_useful, load_weights_to_average
from training.checkpoint import (
    CONFIG,
    RESUME,
    CheckpointConfig,
    ResumeState,
    load_checkpoint,
    read_config,
    resume_state,
    save_checkpoint,
    write_config,
)
from training.data.batches import DeviceDataset
from training.data.dataset import Dataset
from training.data.image_folder import refuse_runs_among_images
from training.data.load import load_dataset, split_held_out
from training.distributed import DistContext, choose_device, sync_batch_norm
from training.errors import CheckpointError
from training.evaluate import measure
from training.loop import Run, train
from training.models.cost import count_parameters
from training.recipes.refit import REFIT, differ_only_in_refit, refit_recipe
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
    if recipe.refit:
        check_refit(recipe, runs)
    config = fit(recipe, first=None, on_start=on_start)
    if recipe.refit:
        again = partial(say, f"{recipe.name}: again on everything")
        fit(refit_recipe(recipe), first=config, on_start=again)
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
    first: CheckpointConfig | None,
    on_start: Callable[[], None],
) -> CheckpointConfig:
    """`first` is the first fit's checkpoint if this is a refit."""
    directory = runs / recipe.name
    dist = DistContext.current()
    dist.share(recipe.train.batch_size)  # raises before any work is done
    target = choose_device(device)
    if (directory / CONFIG).is_file():
        check_resumable(directory, recipe, resume)
        return _read_finished(directory, recipe, dist, say)
    if recipe.data.name == "folder" and recipe.data.path is not None:
        refuse_runs_among_images(data_root / recipe.data.path, runs)
    with dist.main_process_first():
        dataset = load_dataset(recipe.data, data_root, download)
    if first is not None:
        _refuse_to_refit_on_other_images(first, dataset, directory)
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
            if to_average is not None:
                done = average_if_useful(run.step, to_average, run.train)
                say(f"{recipe.name} and {recipe.average_with}: {done}")
            _finish(run, report.history, dataset, teacher_config)
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
    dataset: Dataset,
    teacher: CheckpointConfig | None,
) -> None:
    """Evaluate on the held-out and the test split, write the checkpoint and remove the resume file."""
    network, test = run.step.student, DeviceDataset.of(dataset.test, run.device)
    config = CheckpointConfig(
        recipe=run.recipe,
        classes=dataset.classes,
        mean=dataset.mean,
        std=dataset.std,
        image_size=(dataset.train.images.shape[1], dataset.train.images.shape[2]),
        fingerprint=dataset.fingerprint,
        teacher_test=teacher.test if teacher else None,
        held_out=measure(run.step, run.held_out),
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


def is_first_fit(directory: Path, recipe: Recipe) -> bool:
    """Whether `directory` holds a finished run whose recipe differs from `recipe` in `refit` alone."""
    if not (directory / CONFIG).is_file():
        return False
    trained = read_config(directory).recipe
    return trained != recipe and differ_only_in_refit(trained, recipe)


def check_resumable(directory: Path, recipe: Recipe, resume: bool) -> ResumeState | None:
    """The state of the unfinished run of `recipe` in `directory`, or None.

    Raises CheckpointError if `directory` holds a run that `recipe` must not go on with.
    """
    if (directory / CONFIG).is_file():
        if not differ_only_in_refit(read_config(directory).recipe, recipe):
            raise CheckpointError(
                f"{directory} holds a finished run of another recipe; move it away."
            )
        if not resume:
            if not is_finished(directory, recipe):
                raise CheckpointError(
                    f"{directory} holds a run whose refit is not finished: add --resume to go on, or "
                    "move it away."
                )
            raise CheckpointError(f"{directory} holds a finished run; move it away to train again.")
        return None
    state = resume_state(directory)
    if state is None:
        return None
    if not differ_only_in_refit(state.recipe, recipe):
        raise CheckpointError(
            f"{directory} was begun with another recipe; move it away to train again."
        )
    if not resume:
        raise CheckpointError(
            f"{directory} holds a run stopped after epoch {state.epochs_done}: "
            "add --resume to go on, or move it away."
        )
    return state


def _read_finished(
    directory: Path, recipe: Recipe, dist: DistContext, say: Callable[[str], None]
) -> CheckpointConfig:
    """The config of the finished run in `directory`, after a check that its weights load.

    If it becomes a first fit, or is one no longer, its recipe says so from now on, for the export.
    """
    _, config = load_checkpoint(directory)
    refit = recipe.refit or (directory / REFIT / CONFIG).is_file()
    now = config.model_copy(update={"recipe": recipe.model_copy(update={"refit": refit})})
    if dist.is_main:
        with run_lock(directory):
            if now != config:
                write_config(directory, now)
            (directory / RESUME).unlink(missing_ok=True)  # left if the process was killed before
        say(f"{recipe.name}: finished already")
    return now


def _refuse_to_refit_on_other_images(
    first: CheckpointConfig, dataset: Dataset, directory: Path
) -> None:
    if first.classes != dataset.classes or not dataset.matches(first.fingerprint):
        raise CheckpointError(
            f"{directory.parent} was trained on other images than {dataset.name} holds now, so it cannot "
            "be repeated on them; move it away to train again."
        )


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
    kept, held_out = split_held_out(recipe.data, dataset.train.labels, dataset.classes)
    check_batch_size(recipe, len(kept))
    return (
        DeviceDataset.of(dataset.train.take(kept), device),
        DeviceDataset.of(dataset.train.take(held_out), device),
    )
