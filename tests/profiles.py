"""ICC profiles, generated: the usual RGB spaces, grey, and inks on paper (ICC.1:2001-04 and ICC.1:2022)."""

from __future__ import annotations

import struct
from functools import cache

import numpy as np
from numpy.typing import NDArray

D50 = (0.9642, 1.0, 0.8249)
D65 = (0.3127, 0.3290)
# x and y of red, green and blue.
SRGB_PRIMARIES = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
P3_PRIMARIES = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
ADOBE_PRIMARIES = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
PROPHOTO_PRIMARIES = ((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001))
PROPHOTO_WHITE = (0.3457, 0.3585)
BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
# Levels of each ink in the table of the CMYK profile.
GRID = 9

Floats = NDArray[np.float64]


@cache
def display_p3() -> bytes:
    """Display P3: the primaries of digital cinema with the curve of sRGB, as telephones write it."""
    return rgb_profile(P3_PRIMARIES, D65, _srgb_curve())


@cache
def adobe_rgb() -> bytes:
    return rgb_profile(ADOBE_PRIMARIES, D65, _gamma(563 / 256))


@cache
def prophoto() -> bytes:
    return rgb_profile(PROPHOTO_PRIMARIES, PROPHOTO_WHITE, _gamma(1.8))


@cache
def srgb() -> bytes:
    """sRGB, as many cameras write it."""
    return rgb_profile(SRGB_PRIMARIES, D65, _srgb_curve())


@cache
def grey(gamma: float = 1.0) -> bytes:
    return _profile(b"GRAY", b"XYZ ", {b"wtpt": _xyz(D50), b"kTRC": _gamma(gamma)})


@cache
def cmyk() -> bytes:
    """Four inks on paper: a table from inks to Lab. Black ink is not quite black."""
    levels = np.linspace(0, 1, GRID)
    cyan, magenta, yellow, black = np.meshgrid(levels, levels, levels, levels, indexing="ij")
    inks = np.stack([cyan, magenta, yellow], axis=-1)
    # Each ink takes away one primary, and a little of the others.
    density = inks @ np.array([[1.2, 0.3, 0.1], [0.1, 1.2, 0.3], [0.05, 0.1, 1.2]])
    linear = 0.9 * 10 ** -(density + 1.6 * black[..., None])
    lab = _lab(linear @ _matrix(SRGB_PRIMARIES, D65).T).reshape(-1, 3)
    table = np.empty(lab.shape)
    table[:, 0] = lab[:, 0] * 652.8
    table[:, 1:] = (lab[:, 1:] + 128) * 256
    values = np.clip(np.round(table), 0, 65535).astype(">u2").tobytes()
    head = struct.pack(">4s4xBBBx", b"mft2", 4, 3, GRID)
    identity = struct.pack(">9i", *(65536 * np.eye(3, dtype=int)).ravel().tolist())
    sizes = struct.pack(">2H", 2, 2)
    ramp = struct.pack(">2H", 0, 65535)
    lut = head + identity + sizes + ramp * 4 + values + ramp * 3
    return _profile(b"CMYK", b"Lab ", {b"wtpt": _xyz(D50), b"A2B0": lut}, kind=b"prtr")


def rgb_profile(
    primaries: tuple[tuple[float, float], ...], white: tuple[float, float], curve: bytes
) -> bytes:
    """A profile of three primaries and one curve."""
    columns = _matrix(primaries, white).T
    tags = {b"wtpt": _xyz(D50)}
    for name, column in zip((b"r", b"g", b"b"), columns, strict=True):
        tags[name + b"XYZ"] = _xyz(tuple(column))
        tags[name + b"TRC"] = curve
    return _profile(b"RGB ", b"XYZ ", tags)


def _matrix(primaries: tuple[tuple[float, float], ...], white: tuple[float, float]) -> Floats:
    """Linear RGB to XYZ, adapted to D50 as Bradford does."""
    columns = np.array([(x / y, 1, (1 - x - y) / y) for x, y in primaries]).T
    source = np.array([white[0] / white[1], 1, (1 - sum(white)) / white[1]])
    matrix = columns * np.linalg.solve(columns, source)
    scale = np.diag((BRADFORD @ D50) / (BRADFORD @ source))
    return np.asarray(np.linalg.inv(BRADFORD) @ scale @ BRADFORD @ matrix)


def _lab(xyz: Floats) -> Floats:
    ratio = np.maximum(xyz / D50, 0)
    f = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _xyz(values: tuple[float, ...]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(map(_fixed, values))


def _gamma(gamma: float) -> bytes:
    return struct.pack(">4s4xIH", b"curv", 1, round(gamma * 256))


def _srgb_curve() -> bytes:
    parameters = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    return struct.pack(">4s4xHxx", b"para", 3) + b"".join(map(_fixed, parameters))


def _profile(
    space: bytes, connection: bytes, tags: dict[bytes, bytes], kind: bytes = b"mntr"
) -> bytes:
    tags = {
        b"desc": struct.pack(">4s4xI5s79x", b"desc", 5, b"test\0"),
        b"cprt": b"text\0\0\0\0none\0",
        **tags,
    }
    at = 132 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += struct.pack(">4sII", name, at + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    version = 0x04200000 if any(data.startswith(b"para") for data in tags.values()) else 0x02400000
    head = struct.pack(
        ">I4xI4s4s4s12x4s28s16x",
        at + len(body),
        version,
        kind,
        space,
        connection,
        b"acsp",
        bytes(28),
    )
    illuminant = b"".join(map(_fixed, D50))
    head = head[:68] + illuminant + bytes(128 - 68 - len(illuminant))
    return head + table + body
