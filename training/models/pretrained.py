"""First weights for torchvision's networks: torchvision's own, or a local file. No pickle is executed."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from training.errors import RecipeError
from training.models.torchvision_backbones import SPECS, load_state

TORCHVISION = "torchvision"
Statistics = tuple[tuple[float, float, float], tuple[float, float, float]]


def pixel_statistics(network: str) -> Statistics:
    """Mean and standard deviation per channel that `network` was pretrained with, of the full range."""
    preset = SPECS[network].weights.transforms()
    (a, b, c), (d, e, f) = preset.mean, preset.std
    return (a, b, c), (d, e, f)


def load_pretrained(stages: nn.Module, network: str, source: str) -> None:
    """Fill `stages`, those of torchvision's `network`, with the weights that read_weights gives.

    Raises RecipeError, in one sentence, if they cannot be had or are another network's.
    """
    state = read_weights(network, source)
    try:
        load_state(stages, network, state)
    except RuntimeError as error:
        raise RecipeError(f"the weights {source} are not those of {network}.") from error


def read_weights(network: str, source: str) -> dict[str, Tensor]:
    """The state dict of torchvision's `network`: with `source` "torchvision" its default weights, which
    are downloaded once and checked by their hash; else what the file `source` holds, a .safetensors
    or a state dict as torch.save writes it.

    Raises RecipeError, in one sentence, if they cannot be downloaded or read.
    """
    if source == TORCHVISION:
        return _from_torchvision(network)
    path = Path(source)
    if not path.is_file():
        raise RecipeError(f"start.weights: there is no file {source}.")
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, ValueError, RuntimeError, SafetensorError) as error:
        raise RecipeError(f"start.weights: {source} cannot be read: {_first(error)}.") from error
    except pickle.UnpicklingError as error:
        raise RecipeError(
            f"start.weights: {source} holds more than tensors, or is damaged; it was not read."
        ) from error
    return _checked(state, source)


def _from_torchvision(network: str) -> dict[str, Tensor]:
    weights = SPECS[network].weights
    try:
        state = weights.get_state_dict(
            progress=False, check_hash=True, map_location="cpu", weights_only=True
        )
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise RecipeError(
            f"torchvision's weights for {network} could not be had ({_first(error)}): put the file "
            f"{weights.url} into {folder}, or train from scratch (--from-scratch, or no [start])."
        ) from error
    return _checked(state, weights.url)


def _checked(state: object, source: str) -> dict[str, Tensor]:
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise RecipeError(f"start.weights: {source} holds no state dict.")
    return state


def _first(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
