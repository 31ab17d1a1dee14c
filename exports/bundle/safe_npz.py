"""Arrays from an npz file whose shapes are known beforehand: nothing larger is ever inflated."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exports.bundle.safe_zip import open_zip

MAX_ARRAYS = 16


@dataclass(frozen=True)
class Expected:
    """An array's shape and the kinds of dtype allowed: `f` floats, `iu` integers."""

    shape: tuple[int, ...]
    kinds: str


def read_arrays(content: bytes, expected: Mapping[str, Expected]) -> dict[str, NDArray[Any]]:
    """The arrays named in `expected` from the npz file `content`; pickles are never read.

    Raises ValueError if one has another shape or kind; zips.DAMAGE if the file is damaged.
    """
    with open_zip(io.BytesIO(content), MAX_ARRAYS) as archive:
        return {name: _read(archive, name, wanted) for name, wanted in expected.items()}


def _read(archive: zipfile.ZipFile, name: str, wanted: Expected) -> NDArray[Any]:
    if f"{name}.npy" not in archive.namelist():
        raise ValueError(f"it has no array {name}")
    with archive.open(f"{name}.npy") as file:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, by_column, dtype = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, by_column, dtype = np.lib.format.read_array_header_2_0(file)
        else:
            raise ValueError(f"{name} is in version {version} of the format")
        if dtype.kind not in wanted.kinds:
            raise ValueError(f"{name} is of the type {dtype}")
        if shape != wanted.shape:
            raise ValueError(f"{name} has the shape {shape}, not {wanted.shape}")
        size = math.prod(shape) * dtype.itemsize
        values = file.read(size + 1)
    if len(values) != size:
        raise ValueError(f"{name} has not as many values as it says")
    return np.frombuffer(values, dtype).reshape(shape, order="F" if by_column else "C")
