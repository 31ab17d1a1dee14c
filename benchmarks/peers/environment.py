"""The peers' own virtual environment, since their pins conflict with ours."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
# A copy of the requirements in the environment, written after the installation.
INSTALLED = "made-from.txt"


def environment(folder: Path) -> Path:
    """The Python of the environment `folder`, which is created if it is missing or has other requirements."""
    python, installed = folder.absolute() / "bin" / "python", folder / INSTALLED
    wanted = REQUIREMENTS.read_text("utf-8")
    if not installed.is_file() or installed.read_text("utf-8") != wanted:
        print(f"installing the peers into {folder} ...", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        install = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        subprocess.run([python, *install, "--requirement", REQUIREMENTS], check=True)
        installed.write_text(wanted, "utf-8")
    return python


def versions(python: Path, packages: Sequence[str]) -> dict[str, str]:
    """The versions of those of `packages` that are installed for `python`."""
    code = (
        "import importlib.metadata as m, json, sys; have = {d.name: d.version for d in "
        "m.distributions()}; print(json.dumps({p: have[p] for p in sys.argv[1:] if p in have}))"
    )
    command = [python, "-c", code, *packages]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    found: dict[str, str] = json.loads(done.stdout)
    return found
