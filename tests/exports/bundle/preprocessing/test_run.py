"""A client's array is read, or refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from exports.bundle.errors import PreprocessingError
from exports.bundle.preprocessing.run import read_array
from tests.exports.bundle.damage import HOSTILE_HEADERS, npy


@pytest.mark.parametrize("header", HOSTILE_HEADERS.values(), ids=HOSTILE_HEADERS)
def test_a_file_with_a_hostile_header_is_no_array(tmp_path: Path, header: str) -> None:
    (tmp_path / "array.npy").write_bytes(npy(header))
    with pytest.raises(PreprocessingError, match=r"array\.npy is no \.npy file"):
        read_array(tmp_path / "array.npy")
