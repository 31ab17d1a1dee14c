"""Names of files that are not UTF-8 can be shown."""

from __future__ import annotations

import os
from pathlib import Path

from offramp.file_names import is_utf8, shown_name


def test_bytes_that_are_not_utf8_are_escaped() -> None:
    odd = Path(os.fsdecode(b"K\xe4se"), "1.png")
    assert shown_name(odd) == "K\\xe4se/1.png"
    assert shown_name("Käse") == "Käse"
    assert not is_utf8(odd)
    assert is_utf8("Käse")
