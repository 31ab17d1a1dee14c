"""The orientation in an EXIF block."""

from __future__ import annotations

import struct

PREFIX = b"Exif\0\0"
UPRIGHT = 1
_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
_ORIENTATION_TAG = 0x0112
_SHORT, _LONG = 3, 4


def orientation(block: bytes) -> int:
    """The orientation, 1 to 8, in the first directory of an EXIF block (EXIF 2.32, section 4.6.4).

    1, upright, if there is none or if the block is malformed. No other tag is read.
    """
    block = block.removeprefix(PREFIX)
    order = _BYTE_ORDERS.get(block[:4])
    if order is None:
        return UPRIGHT
    try:
        (at,) = struct.unpack_from(order + "I", block, 4)
        (entries,) = struct.unpack_from(order + "H", block, at)
        for entry in range(at + 2, at + 2 + 12 * entries, 12):
            tag, kind, _ = struct.unpack_from(order + "HHI", block, entry)
            if tag == _ORIENTATION_TAG:
                form = {_SHORT: "H", _LONG: "I"}.get(kind)
                if form is None:
                    return UPRIGHT
                (value,) = struct.unpack_from(order + form, block, entry + 8)
                return value if 1 <= value <= 8 else UPRIGHT
    except struct.error:
        return UPRIGHT
    return UPRIGHT
