"""`--mean` and `--std`: three numbers for each network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from exports.bundle.errors import ExportError
from exports.bundle.preprocessing.spec import Triple

# The least deviation: pixels of 0 to 255 that a network takes as they are have 1 / 255.
MIN_STD = 1e-4


@dataclass(frozen=True)
class Normalisation:
    """A channel x in 0..255 becomes (x / 255 - mean) / std; both are of red, green and blue."""

    mean: Triple
    std: Triple


def read_normalisations(means: Sequence[str], stds: Sequence[str]) -> tuple[Normalisation, ...]:
    """The values of `--mean` and `--std`, each three numbers separated by commas.

    Raises ExportError if one is given without the other, or for numbers that cannot be meant.
    """
    if len(means) != len(stds):
        raise ExportError(
            f"--mean is given {len(means)} times and --std {len(stds)} times: give both for each network."
        )
    return tuple(
        Normalisation(_triple("--mean", mean, 0), _triple("--std", std, MIN_STD))
        for mean, std in zip(means, stds, strict=True)
    )


def _triple(option: str, text: str, least: float) -> Triple:
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 3:
        raise ExportError(
            f"{option} takes three numbers with commas, for red, green and blue, not {text!r}."
        )
    red, green, blue = (_number(option, part, least) for part in parts)
    return red, green, blue


def _number(option: str, text: str, least: float) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise ExportError(f"{option} takes numbers, and {text!r} is none.") from error
    if not math.isfinite(value):
        raise ExportError(f"{option} takes finite numbers, not {text}.")
    if value > 1:
        raise ExportError(
            f"{option} is of channels from 0 to 1, not {text}: divide values for 0 to 255 by 255."
        )
    if value < least:
        raise ExportError(f"{option} takes numbers of at least {least:g}, not {text}.")
    return value
