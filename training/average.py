"""The mean of two networks' weights, which can be more accurate than either.

Wortsman et al. 2022, "Model soups: averaging weights of multiple fine-tuned models improves accuracy without
increasing inference time" (arXiv 2203.05482). It needs weights that were trained from the same start and did
not move far: the weights between two networks trained from scratch are those of no useful network. Such a
mean is wrong on the training images, too, and is not used.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from training.checkpoint import CONFIG, load_checkpoint, read_config
from training.data.batches import DeviceDataset
from training.data.dataset import Dataset
from training.errors import RecipeError
from training.evaluate import measure
from training.recipes.schema import DataRecipe, Recipe
from training.step import Step

# Of the training images, on which a mean is compared with the weights that were trained.
MAX_IMAGES = 1_000
# A useful mean is as good on the training images; one of distant weights loses tens of points.
MAX_LOST_POINTS = 5.0


def load_weights_to_average(
    recipe: Recipe, dataset: Dataset, runs: Path
) -> dict[str, Tensor] | None:
    """The weights, on the CPU, of the run that `recipe.average_with` names; None if it names none.

    Raises RecipeError if that run is not finished, if its network, classes or pixel statistics are others,
    or if it was trained on other images or on samples that `recipe` holds out.
    """
    name = recipe.average_with
    if name is None:
        return None
    if not (runs / name / CONFIG).is_file():
        raise RecipeError(f"{name}, which {recipe.name} is averaged with, is not trained yet.")
    config = read_config(runs / name)
    own = recipe.network, dataset.classes, dataset.mean, dataset.std
    if (config.recipe.network, config.classes, config.mean, config.std) != own:
        raise RecipeError(
            f"{recipe.name} cannot be averaged with {name}: the networks, the classes or the pixel "
            "statistics differ."
        )
    if not dataset.matches(config.fingerprint) or _has_seen_held_out(
        config.recipe.data, recipe.data
    ):
        raise RecipeError(
            f"{recipe.name} cannot be averaged with {name}, which was trained on another data set or "
            "held-out split."
        )
    return load_checkpoint(runs / name)[0].state_dict()


def _has_seen_held_out(other: DataRecipe, own: DataRecipe) -> bool:
    """Whether a run on `other` has learnt from samples that `own` holds out, or from another data set."""
    if (other.name, other.path) != (own.name, own.path):
        return True
    splits = [(data.held_out, data.held_out_seed) for data in (other, own)]
    return own.held_out > 0 and splits[0] != splits[1]


def average_if_useful(step: Step, other: dict[str, Tensor], train: DeviceDataset) -> str:
    """Average the weights of the step's student with `other`'s, unless that costs more than MAX_LOST_POINTS
    of the accuracy on images of `train`. Returns what was done, as the end of a sentence."""
    sample = train.spread(MAX_IMAGES)
    trained = copy.deepcopy(step.student.state_dict())
    before = measure(step, sample)
    average_weights(step.student, other)
    after = measure(step, sample)
    assert before is not None
    assert after is not None
    if after.ensemble >= before.ensemble - MAX_LOST_POINTS:
        return "averaged"
    step.student.load_state_dict(trained)
    return (
        f"not averaged: the mean of the weights is right on {after.ensemble:.1f} % of {len(sample)} training "
        f"images, the weights themselves on {before.ensemble:.1f} %"
    )


@torch.no_grad()
def average_weights(network: nn.Module, other: dict[str, Tensor]) -> None:
    """Replace the weights and running statistics of `network` by their means with `other`'s."""
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            tensor.lerp_(other[name].to(tensor), 0.5)
