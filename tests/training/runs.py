"""A small run on the digits: its recipe, its files, and how to kill it."""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from multiprocessing.util import Finalize
from pathlib import Path

from training import report

RECIPE = """
name = "tiny"
[data]
name = "digits"
held_out = 1130
padding = 1
flip = false
[network]
name = "resnet10"
width = 4
[objective]
method = "cross_entropy"
[train]
epochs = 4
batch_size = 64
learning_rate = 0.05
"""
FINISHED_FILES = ["checkpoint.json", "curves.png", "metrics.jsonl", "model.safetensors"]


def contents(directory: Path) -> dict[str, bytes]:
    """Every file below `directory`, by its relative name."""
    files = (path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def history(directory: Path) -> list[tuple[int, float]]:
    """Epoch and loss of every line of metrics.jsonl."""
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [(m["epoch"], m["loss"]) for m in map(json.loads, lines)]


def empty_curves(history: object, path: Path) -> None:
    """In place of `draw_curves`, which takes as long as a small run."""
    path.touch()


def kill_at(name: str, when: str, turn: int) -> None:
    """Kill this process when file `name` is written for the `turn`th time.

    `when` is "half" (half of it is written), "before" or "after" it is moved to its place.
    """
    replace, turns = Path.replace, 0

    def replace_or_kill(self: Path, target: Path) -> Path:
        nonlocal turns
        turns += target.name == name
        if target.name == name and turns == turn:
            if when == "half":
                os.truncate(self, self.stat().st_size // 2)
            if when == "after":
                replace(self, target)
            os.kill(os.getpid(), signal.SIGKILL)
        return replace(self, target)

    Path.replace = replace_or_kill  # type: ignore[method-assign, assignment]


def count_calls(file: Path) -> None:
    """Write the number of function calls of this process to `file` when it ends.

    Curves are not drawn: that happens as often as there is time for it.
    """
    report.draw_curves = empty_curves
    calls = itertools.count()
    sys.setprofile(lambda *_: next(calls))
    Finalize(None, lambda: file.write_text(str(next(calls))), exitpriority=0)


def kill_after(calls: int, delay_s: float) -> None:
    """Kill this process `delay_s` after so many calls, as `count_calls` counts them: by SIGALRM, which takes
    effect in the middle of any code, as SIGKILL does."""
    report.draw_curves = empty_curves
    left = calls

    def count(*_: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            sys.setprofile(None)
            signal.setitimer(signal.ITIMER_REAL, delay_s)

    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    sys.setprofile(count)


class Killed(BaseException):
    """Raised in place of a kill of the process."""
