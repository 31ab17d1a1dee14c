"""What `offramp cascade` is told about each network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from exports.bundle.errors import ExportError
from exports.bundle.preprocessing.spec import MAX_SIDE, Preprocessing
from exports.imported.config import find_config
from exports.imported.described import PreprocessingConfig
from exports.imported.labels import Labels, read_labels
from exports.imported.network import Network, read_network
from exports.imported.normalisation import Normalisation
from exports.options import Channels, Layout, Outputs, ResizeRule

T = TypeVar("T")


@dataclass(frozen=True)
class NetworkOptions:
    """What is known of one network; None where its file, the file beside it or its outputs decide."""

    preprocess: str | None = None
    side: int | None = None
    crop: float | None = None
    layout: Layout | None = None
    channels: Channels | None = None
    outputs: Outputs | None = None
    normalisation: Normalisation | None = None
    labels: Labels | None = None


@dataclass(frozen=True)
class Described:
    """A network with its preprocessing, and what said so."""

    network: Network
    preprocessing: Preprocessing
    config: PreprocessingConfig
    options: NetworkOptions


def describe(path: Path, options: NetworkOptions, say: Callable[[str], None]) -> Described:
    """Read the ONNX file `path`, and find and say its preprocessing. Raises ExportError."""
    network = read_network(path)
    preprocessing, config = find_preprocessing(network, options)
    say(f"{path}: {preprocessing} ({config.origin})")
    return Described(network, preprocessing, config, options)


def per_network(option: str, values: Sequence[T], count: int) -> tuple[T | None, ...]:
    """The value of `option` for each of `count` networks: none, one for all, or one for each.

    Raises ExportError for another number.
    """
    if len(values) not in (0, 1, count):
        raise ExportError(
            f"{option} is given {len(values)} times for {count} networks: give it once for all, or once for "
            "each in their order."
        )
    if not values:
        return (None,) * count
    return tuple(values) if len(values) == count else (values[0],) * count


def network_labels(files: Sequence[Path], count: int) -> tuple[Labels | None, ...]:
    """The labels of each of `count` networks, from one file for all or one for each."""
    return per_network("--labels", [read_labels(file) for file in files], count)


def find_preprocessing(
    network: Network, options: NetworkOptions
) -> tuple[Preprocessing, PreprocessingConfig]:
    """How the input of `network` is made, and what said so. Raises ExportError if that is not known."""
    config = find_config(network.path, options.preprocess, options.normalisation)
    layout = network.layout(options.layout)
    side = network.side(layout, options.side or config.side)
    crop = config.crop if options.crop is None else options.crop
    # timm rounds down; the summand is for quotients that should be whole.
    resized = max(math.floor(side / crop + 1e-6), side)
    if resized > MAX_SIDE:
        raise ExportError(
            f"{network.path} sees an image of {resized} pixels a side; at most {MAX_SIDE} are supported."
        )
    return (
        Preprocessing(
            side=side,
            resized=resized,
            interpolation=config.interpolation,
            layout=layout,
            channels=options.channels or config.channels,
            mean=config.mean,
            std=config.std,
            half=network.half,
        ),
        config,
    )


def common_rule(described: Sequence[Described], given: ResizeRule | None) -> ResizeRule:
    """How images of another shape are fitted, which is the same for all networks of a bundle.

    Raises ExportError if they differ and none is `given`.
    """
    if given is not None:
        return given
    rules = {one.config.rule: one.network.path for one in described if one.config.rule}
    if len(rules) > 1:
        raise ExportError(
            f"{rules['center_crop']} crops images to a square and {rules['stretch']} stretches them, but a "
            "bundle does one of them: give --resize center_crop or stretch."
        )
    return next(iter(rules), "center_crop")
