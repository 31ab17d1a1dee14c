"""Features between stages that run in different processes: by value if small, else by reference.

References pass through the ingress, which decides, without the data they refer to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
# Larger features are kept in Ray's shared memory; smaller ones are sent within the call.
MAX_INLINE_BYTES = 100 * 1024


@dataclass(frozen=True)
class Piece:
    """`count` samples. `source` is an array [n, ...] of them, or a reference to an array of which they are
    the `rows`, all of it if None."""

    source: Any
    count: int
    rows: Rows | None = None


Features = tuple[Piece, ...]


def whole(source: Any, count: int) -> Features:
    """All `count` samples of `source`."""
    return (Piece(source, count),)


def take(features: Features, rows: Rows) -> Features:
    """The samples `rows` of `features`, in that order; references stay references."""
    starts = np.asarray([0, *accumulate(piece.count for piece in features)])
    owners = np.searchsorted(starts, rows, side="right") - 1
    pieces = []
    begin = 0
    for owner, group in groupby(owners.tolist()):
        end = begin + len(list(group))
        piece, inside = features[owner], rows[begin:end] - starts[owner]
        begin = end
        if is_array(piece.source):
            pieces.append(Piece(piece.source[inside], len(inside)))
        else:
            chosen = inside if piece.rows is None else piece.rows[inside]
            pieces.append(replace(piece, rows=chosen, count=len(chosen)))
    return tuple(pieces)


def join(parts: Sequence[Features]) -> Features:
    """The samples of all `parts`, one after the other; neighbouring arrays become one."""
    joined: list[Piece] = []
    for by_value, group in groupby(
        (piece for part in parts for piece in part), lambda piece: is_array(piece.source)
    ):
        pieces = list(group)
        if by_value and len(pieces) > 1:
            together = np.concatenate([piece.source for piece in pieces])
            joined.append(Piece(together, len(together)))
        else:
            joined += pieces
    return tuple(joined)


def gather(features: Features, arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """One array of `features`, from the source array [n, ...] of each piece; a single whole one is not
    copied."""
    chosen = [
        array if piece.rows is None else array[piece.rows]
        for piece, array in zip(features, arrays, strict=True)
    ]
    return chosen[0] if len(chosen) == 1 else np.concatenate(chosen)


def count(features: Features) -> int:
    """How many samples there are."""
    return sum(piece.count for piece in features)


def is_array(source: object) -> TypeGuard[NDArray[Any]]:
    """Whether `source` is passed by value."""
    return isinstance(source, np.ndarray)
