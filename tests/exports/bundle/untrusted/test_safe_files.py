"""Names of files as text."""

from __future__ import annotations

import os
from pathlib import Path

from exports.bundle.untrusted.safe_files import shown_name


def test_a_name_that_is_no_utf8_has_a_text() -> None:
    assert shown_name(Path(os.fsdecode(b"\xff.png"))) == "\\xff.png"
