"""Builds the parts of a run: student, teacher and criterion."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from training.checkpoint import CONFIG, CheckpointConfig, load_checkpoint, read_config
from training.data.dataset import Dataset
from training.distillers import DISTILLERS
from training.errors import RecipeError
from training.models.build import network_from_recipe
from training.models.multi_exit import MultiExit, Normalize, Outputs
from training.objectives.criterion import Criterion, Setting
from training.objectives.exits import ExitCriterion
from training.recipes.files import load_recipe, train_command
from training.recipes.refit import first_fit_name, refit_recipe
from training.recipes.schema import DistillerObjective, Objective, Recipe
from training.step import Step


def load_teacher(
    recipe: Recipe, dataset: Dataset, runs: Path
) -> tuple[MultiExit | None, CheckpointConfig | None]:
    """The teacher of `recipe`, on the CPU, and its config.

    Its network is None where views stand in for it, and its config for ONNX classifiers; both are for a
    recipe without a teacher. Raises RecipeError if the teacher is not trained yet or does not fit.
    """
    if recipe.teacher is None or recipe.teacher.recipe is None:
        return None, None
    name = recipe.teacher.recipe
    config = _check_earlier(recipe, name, runs, "teacher")
    _refuse_other_images(config, dataset, "teacher")
    exits = len(config.recipe.network.exits)
    if recipe.objective.method == "oto" and exits != len(recipe.network.exits):
        raise RecipeError(
            f"oto pairs exits one to one, but teacher {config.recipe.name} has {exits} exits "
            f"and {recipe.name} {len(recipe.network.exits)}."
        )
    if recipe.teacher.views is not None:
        return None, config
    network, _ = load_checkpoint(runs / name)
    teach_at_crop_side(network, config)
    return network, config


def teach_at_crop_side(network: MultiExit, config: CheckpointConfig) -> None:
    """Let the network of a finished run see random crops at the side at which it has learned from them."""
    network.side = config.recipe.train.crop_side or network.side


def _check_earlier(recipe: Recipe, name: str, runs: Path, role: str) -> CheckpointConfig:
    """The config of the finished run `name`.

    Raises RecipeError unless it held out the same samples as `recipe`.
    """
    if not (runs / name / CONFIG).is_file():
        raise RecipeError(
            f"the {role} of {recipe.name} is not trained yet: {_how_to_train(name, runs)}."
        )
    config = read_config(runs / name)
    earlier, data = config.recipe.data, recipe.data
    if (earlier.name, earlier.path, earlier.held_out, earlier.held_out_seed) != (
        data.name,
        data.path,
        data.held_out,
        data.held_out_seed,
    ):
        raise RecipeError(
            f"{role} {name} was trained on another data set or held-out split than {recipe.name} uses."
        )
    return config


def check_refit(recipe: Recipe, runs: Path) -> None:
    """Raise RecipeError unless the refit of `recipe` is finished, or the refits of its teacher and its
    start are."""
    refit = refit_recipe(recipe)
    if (runs / refit.name / CONFIG).is_file():
        return
    for role, part in (("teacher", refit.teacher), ("start", refit.start)):
        if part is not None and part.recipe is not None:
            _check_earlier(refit, part.recipe, runs, role)


def check_batch_size(recipe: Recipe, images: int) -> None:
    """Raise RecipeError if a batch is larger than a training split of so many images."""
    if images < recipe.train.batch_size:
        raise RecipeError(
            f"train.batch_size {recipe.train.batch_size} is larger than the {images} training images."
        )


def _how_to_train(name: str, runs: Path) -> str:
    """What the user does to have the run `name`, as a part of a sentence."""
    first = first_fit_name(name)
    if first is not None:
        return f"train {first} with refit = true first"
    file = runs / f"{name}.toml"
    if file.is_file():
        return f"run `{train_command(file, runs)}` first"
    try:
        load_recipe(name)
    except RecipeError:  # the user's own
        return f"train the recipe called {name} first"
    return f"run `offramp train {name}` first"


def _refuse_other_images(config: CheckpointConfig, dataset: Dataset, role: str) -> None:
    if not dataset.matches(config.fingerprint):
        raise RecipeError(
            f"{role} {config.recipe.name} was trained on other images than {dataset.name} holds now, "
            "perhaps on held-out ones: move its run away and train it again."
        )


def build_step(
    recipe: Recipe, dataset: Dataset, teacher: MultiExit | None, runs: Path, labels: Tensor
) -> Step:
    """Student, criterion and teacher of a run, on the CPU, with their initial weights.

    `labels` are those of the training split, int64 [samples]. Raises RecipeError if the start or the
    teacher does not fit.
    """
    student = network_from_recipe(recipe.network, len(dataset.classes))
    if recipe.start is not None:
        if recipe.start.weights:
            _start_from_weights(student, recipe)
        else:
            _start_from_run(student, recipe, runs)
    normalize = Normalize(dataset.mean, dataset.std)
    criterion = _build_criterion(
        recipe, Setting(student, teacher, labels.cpu()), normalize, dataset
    )
    return Step(student, teacher, criterion, normalize, recipe.train.precision)


def use_statistics(
    recipe: Recipe, dataset: Dataset, teacher: CheckpointConfig | None, runs: Path
) -> Dataset:
    """`dataset` with the pixel statistics the run normalises by.

    They are those of the weights it starts from, else those of its teacher, else the data's own.
    Raises RecipeError if weights and teacher have different ones.
    """
    statistics = None if teacher is None else (teacher.mean, teacher.std)
    if recipe.start is not None:
        if recipe.start.weights is not None:
            from training.models.pretrained import pixel_statistics  # loads torchvision

            at_start = pixel_statistics(recipe.network.name)
        else:
            earlier = _check_earlier(recipe, recipe.start.recipe or "", runs, "start")
            _refuse_other_images(earlier, dataset, "start")
            at_start = earlier.mean, earlier.std
        if statistics not in (None, at_start):
            raise RecipeError(
                f"{recipe.name} starts from weights with other pixel statistics than its teacher: "
                "start the teacher from pretrained weights too, or neither."
            )
        statistics = at_start
    return (
        dataset if statistics is None else replace(dataset, mean=statistics[0], std=statistics[1])
    )


def _start_from_weights(student: MultiExit, recipe: Recipe) -> None:
    """Load the pretrained backbone that `recipe.start` names into `student`."""
    from training.models.pretrained import load_pretrained

    start = recipe.start
    assert start is not None
    assert start.weights is not None
    load_pretrained(student.stages, recipe.network.name, start.weights)
    if start.frozen:
        student.freeze([student.stages])


def _start_from_run(student: MultiExit, recipe: Recipe, runs: Path) -> None:
    """Load the backbone and the common heads of the run that `recipe.start` names into `student`."""
    start = recipe.start
    assert start is not None
    assert start.recipe is not None
    config = _check_earlier(recipe, start.recipe, runs, "start")
    earlier, _ = load_checkpoint(runs / start.recipe)
    shared = [k for k in student.exit_stages if k in earlier.exit_stages]
    targets = [student.stages, *(student.heads[student.exit_stages.index(k)] for k in shared)]
    sources = [earlier.stages, *(earlier.heads[earlier.exit_stages.index(k)] for k in shared)]
    try:
        for target, source in zip(targets, sources, strict=True):
            target.load_state_dict(source.state_dict())
    except RuntimeError as error:
        raise RecipeError(
            f"{recipe.name} cannot start from {config.recipe.name}: the networks differ."
        ) from error
    if start.frozen:
        if len(shared) == student.exits:
            raise RecipeError(f"{recipe.name} freezes every head it has; nothing is left to train.")
        student.freeze(targets)


@torch.no_grad()
def _build_criterion(
    recipe: Recipe, setting: Setting, normalize: Normalize, dataset: Dataset
) -> Criterion:
    """The criterion, sized by both networks' outputs for one image."""
    image = normalize(torch.from_numpy(dataset.train.images[:1]))
    if recipe.train.batch_size == 1:
        _refuse_single_values(recipe, setting.student, image)
    student = setting.student.eval().observe(image, preactivations=True)
    teacher = None
    if setting.teacher is not None:
        teacher = setting.teacher.observe(image, preactivations=True)
    return build_criterion(recipe.objective, student, teacher, setting)


def _refuse_single_values(recipe: Recipe, student: MultiExit, image: Tensor) -> None:
    """Raise RecipeError if batch norm sees one value a channel in `image`: it cannot be trained on that."""
    single = False

    def look(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal single
        single = single or inputs[0].shape[2:].numel() == 1

    norms = [module for module in student.modules() if isinstance(module, nn.BatchNorm2d)]
    hooks = [norm.register_forward_pre_hook(look) for norm in norms]
    student.eval().observe(image)
    for hook in hooks:
        hook.remove()
    if single:
        raise RecipeError(
            f"train.batch_size must be at least 2: in {recipe.network.name} batch norm sees a single pixel "
            f"of an image of {image.shape[-1]} pixels."
        )


def build_criterion(
    objective: Objective, student: Outputs, teacher: Outputs | None, setting: Setting
) -> Criterion:
    """The criterion of `objective`, on the CPU.

    `student` and `teacher` are outputs of any batch: distillers size their adapters by the shapes.
    Raises RecipeError if the networks do not suit the objective.
    """
    if not isinstance(objective, DistillerObjective):
        return ExitCriterion(objective)
    if teacher is None:
        raise ValueError(f"objective {objective.method} needs a teacher's outputs")
    return DISTILLERS[objective.method](objective, student, teacher, setting)
