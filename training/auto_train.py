"""From an image folder to a trained network: recipes are chosen, written out and trained."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from offramp.file_names import is_utf8, shown_name
from training.checkpoint import CONFIG, CheckpointConfig, read_config
from training.data.dataset import DatasetInfo
from training.data.image_folder import (
    refuse_runs_among_images,
    spare_split,
    unread_folders,
)
from training.data.survey import survey_folder
from training.distributed import DistContext
from training.errors import DataError, RecipeError
from training.planning.forecast import forecast
from training.recipes.auto import choose_recipes
from training.recipes.files import load_recipe, train_command, write_recipe
from training.recipes.refit import differ_only_in_refit
from training.recipes.schema import Recipe
from training.report import without_repeats
from training.run import check_resumable, is_finished, is_first_fit, run_recipe


@dataclass(frozen=True)
class Plan:
    """The recipes chosen for a folder, in training order, those left to train, and the first lines of
    their files."""

    recipes: tuple[Recipe, ...]
    to_train: tuple[Recipe, ...]
    comments: tuple[str, ...]


def plan_training(
    folder: Path,
    *,
    runs: Path,
    device: str = "auto",
    resume: bool = False,
    from_scratch: bool = False,
    teacher: bool = False,
    refit: bool | None = None,
    seed: int = 0,
    say: Callable[[str], None] = print,
) -> Plan:
    """Choose recipes for the images in `folder`, print the reasons and a forecast; write nothing.

    Raises what `run_recipe` raises, where possible, and RecipeError if `runs`/NAME.toml holds another
    recipe.
    """
    survey = survey_folder(folder)
    refuse_runs_among_images(folder, runs)
    path = folder.resolve()
    if not is_utf8(path):
        raise DataError(f"{shown_name(path)} has a name that is not UTF-8; rename it.")
    choice = choose_recipes(
        run_name(path.name),
        str(path),
        survey.counts,
        survey.side,
        enlarged_from=survey.enlarged_from,
        from_scratch=from_scratch,
        teacher=teacher,
        refit=refit,
        seed=seed,
    )
    *_, last = choice.recipes
    spare = spare_split(folder)
    unread = [
        name for name in unread_folders(folder) if (folder / name).resolve() != runs.resolve()
    ]
    reasons = [
        *choice.reasons,
        *([] if not unread else [_unread_reason(unread)]),
        *([] if spare is None else [_spare_reason(spare, runs / last.name)]),
    ]
    for reason in reasons:
        say(f"- {reason}")
    to_train = [r for r in choice.recipes if r is last or not is_trained(runs / r.name, r)]
    check_runs(to_train, runs, resume)
    dist = DistContext.current()
    with dist.main_process_first():
        for recipe in to_train:
            fetch_weights(recipe)
    if dist.is_main:
        side = last.data.side
        assert side is not None
        info = DatasetInfo(side, len(survey.counts), sum(survey.counts.values()))
        say(str(forecast(to_train, info, earlier=choice.recipes, runs=runs, device=device)))
    comments = (f"Chosen for {len(survey.counts)} classes:", *reasons)
    return Plan(choice.recipes, tuple(to_train), comments)


def auto_train(
    folder: Path,
    *,
    runs: Path,
    device: str = "auto",
    resume: bool = False,
    compiled: bool = False,
    from_scratch: bool = False,
    teacher: bool = False,
    refit: bool | None = None,
    seed: int = 0,
    say: Callable[[str], None] = print,
) -> CheckpointConfig:
    """Choose recipes for the images in `folder`, write them to `runs`, and train them in order.

    The last one's run, `runs`/NAME, is named after the folder. Its recipe is written to
    `runs`/NAME.toml when the run starts. A run that is already trained is not trained again, except for the
    last one. Of several processes only the main one prints. Raises what `plan_training` and `run_recipe`
    raise, where possible before anything is written.
    """
    say = without_repeats(say) if DistContext.current().is_main else _print_nothing
    plan = plan_training(
        folder,
        runs=runs,
        device=device,
        resume=resume,
        from_scratch=from_scratch,
        teacher=teacher,
        refit=refit,
        seed=seed,
        say=say,
    )
    return train_plan(
        plan,
        runs=runs,
        data_root=folder,
        device=device,
        resume=resume,
        compiled=compiled,
        say=say,
    )


def check_runs(recipes: Sequence[Recipe], runs: Path, resume: bool) -> None:
    """Raise CheckpointError or RecipeError if `runs` holds something that `recipes` must not replace."""
    for recipe in recipes:
        check_resumable(runs / recipe.name, recipe, resume)
        _refuse_to_replace(runs, recipe)


def train_plan(
    plan: Plan,
    *,
    runs: Path,
    data_root: Path,
    device: str,
    resume: bool,
    compiled: bool = False,
    say: Callable[[str], None],
) -> CheckpointConfig:
    """Train what is left of `plan` in order; returns the last one's config. Every recipe is written to
    `runs`/NAME.toml when its run starts. Raises what `run_recipe` raises."""

    def write(recipe: Recipe) -> None:
        file = _recipe_file(runs, recipe)
        write_recipe(recipe, file, plan.comments)
        say(f"recipe: {file}")

    for recipe in plan.to_train:
        if DistContext.current().is_main and is_first_fit(runs / recipe.name, recipe):
            write(recipe)
        config = run_recipe(
            recipe,
            runs=runs,
            data_root=data_root,
            device=device,
            resume=resume,
            compiled=compiled,
            say=say,
            on_start=partial(write, recipe),
        )
    return config


def run_name(folder: str) -> str:
    """A recipe's name for a folder called `folder`: "My Photos" gives "my-photos"."""
    name = re.sub(r"[^a-z0-9._-]+", "-", folder.lower()).strip("-._")
    return name or "images"


def _recipe_file(runs: Path, recipe: Recipe) -> Path:
    return runs / f"{recipe.name}.toml"


def is_trained(directory: Path, recipe: Recipe) -> bool:
    """Whether `directory` holds the finished run of this very recipe, perhaps with a refit besides."""
    if not is_finished(directory, recipe):
        return False
    trained = read_config(directory).recipe
    return trained == recipe or (trained.refit and differ_only_in_refit(trained, recipe))


def _refuse_to_replace(runs: Path, recipe: Recipe) -> None:
    file = _recipe_file(runs, recipe)
    if not file.exists():
        return
    before = load_recipe(str(file))
    trained = (runs / recipe.name / CONFIG).is_file()
    if before != recipe and not (trained and differ_only_in_refit(before, recipe)):
        raise RecipeError(
            f"{file} holds another recipe than the one chosen now: train that one with "
            f"`{train_command(file, runs)}`, or move it away."
        )


def _print_nothing(_: str) -> None:
    """The `say` of all processes but the main one."""


def fetch_weights(recipe: Recipe) -> None:
    """Download the weights that `recipe` starts from. Raises RecipeError if they are unavailable."""
    if recipe.start is not None and recipe.start.weights is not None:
        from training.models.pretrained import read_weights

        read_weights(recipe.network.name, recipe.start.weights)


def _unread_reason(names: Sequence[str]) -> str:
    folders = ", ".join(map(shown_name, names))
    return f"not read, beside train: {folders}; the split to test on is called test or val"


def _spare_reason(spare: Path, run: Path) -> str:
    """How the images in `spare`, which no run reads, are used."""
    command = shlex.join(("offramp", "export", str(run), "--calibrate", str(spare)))
    return (
        f"no run reads the images in {spare.name}: `{command} -o BUNDLE` chooses thresholds on them"
    )
