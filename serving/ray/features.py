"""Features between stages that run in different processes: by value while they are small, else by
reference, so that they go from stage to stage without passing through the process that decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
# What Ray keeps in its shared memory; anything smaller travels within the call.
MAX_INLINE_BYTES = 100 * 1024


@dataclass(frozen=True)
class Piece:
    """`count` samples: the `rows` of what `source` refers to, all of it if None; or an array [n, ...]
    with just them."""

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
    found = []
    begin = 0
    for owner, group in groupby(owners.tolist()):
        end = begin + len(list(group))
        piece, inside = features[owner], rows[begin:end] - starts[owner]
        begin = end
        if is_array(piece.source):
            found.append(Piece(piece.source[inside], len(inside)))
        else:
            chosen = inside if piece.rows is None else piece.rows[inside]
            found.append(replace(piece, rows=chosen, count=len(chosen)))
    return tuple(found)


def join(parts: Sequence[Features]) -> Features:
    """The samples of all `parts`, one after the other; neighbouring arrays become one."""
    found: list[Piece] = []
    for by_value, group in groupby(
        (piece for part in parts for piece in part), lambda piece: is_array(piece.source)
    ):
        pieces = list(group)
        if by_value and len(pieces) > 1:
            together = np.concatenate([piece.source for piece in pieces])
            found.append(Piece(together, len(together)))
        else:
            found += pieces
    return tuple(found)


def gather(features: Features, arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """One array of `features`, given the array [n, ...] behind each piece; a whole one is not copied."""
    chosen = [
        array if piece.rows is None else array[piece.rows]
        for piece, array in zip(features, arrays, strict=True)
    ]
    return chosen[0] if len(chosen) == 1 else np.concatenate(chosen)


def count(features: Features) -> int:
    """How many samples there are."""
    return sum(piece.count for piece in features)


def is_array(source: object) -> TypeGuard[NDArray[Any]]:
    """Whether `source` is there by value."""
    return isinstance(source, np.ndarray)
