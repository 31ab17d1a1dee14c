"""The mean of two networks' weights, which can be more accurate than either.

Wortsman et al. 2022, "Model soups: averaging weights of multiple fine-tuned models improves accuracy without
increasing inference time" (arXiv 2203.05482). It needs weights that were trained from the same start: the
weights between two networks trained from scratch are those of no useful network.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from training.checkpoint import CONFIG, load_checkpoint, read_config
from training.data.dataset import Dataset
from training.errors import RecipeError
from training.recipes.schema import Recipe


def load_weights_to_average(
    recipe: Recipe, dataset: Dataset, runs: Path
) -> dict[str, Tensor] | None:
    """The weights, on the CPU, of the run that `recipe.average_with` names; None if it names none.

    Raises RecipeError if that run is not finished, or its network, classes or pixel statistics are others.
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
    return load_checkpoint(runs / name)[0].state_dict()


@torch.no_grad()
def average_weights(network: nn.Module, other: dict[str, Tensor]) -> None:
    """Replace the weights and running statistics of `network` by their means with `other`'s."""
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            tensor.lerp_(other[name].to(tensor), 0.5)
