"""Following a page of the documentation: its commands, run as written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def command_folder(folder: Path) -> Path:
    """A directory with the commands `offramp` and `python` of this checkout and environment."""
    folder.mkdir()
    for name, arguments in (("offramp", "-m offramp.cli"), ("python", "")):
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
        script.chmod(0o755)
    return folder


def run_block(block: str, place: Path) -> str:
    """The output of the bash block `block`, run in `place`; it must succeed."""
    finished = subprocess.run(
        ["bash", "-ec", block], cwd=place, capture_output=True, text=True, timeout=1200, check=False
    )
    assert finished.returncode == 0, f"{block}{finished.stdout}{finished.stderr}"
    return finished.stdout
