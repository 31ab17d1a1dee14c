"""Prints the oldest uvicorn that pyproject.toml allows, for `make test-uvicorn`."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[3] / "pyproject.toml"


def allowed_uvicorn() -> str:
    """The version range of uvicorn in pyproject.toml."""
    dependencies = tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]["dependencies"]
    (range_,) = (
        found.group(1)
        for entry in dependencies
        if (found := re.fullmatch(r"uvicorn\[standard\](.*)", entry))
    )
    return str(range_)


def oldest_uvicorn() -> str:
    """The first version in that range."""
    found = re.match(r">=([\d.]+),", allowed_uvicorn())
    assert found is not None
    return found.group(1)


if __name__ == "__main__":
    print(oldest_uvicorn())
