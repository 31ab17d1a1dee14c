"""Progress and metrics of a run: a bar on stderr, metrics.jsonl and curves.png."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from offramp.files import replacing
from offramp.validation import first_problem
from training.checkpoint import ExitAccuracies
from training.errors import CheckpointError

METRICS = "metrics.jsonl"
CURVES = "curves.png"
REDRAW_S = 10.0


class EpochMetrics(BaseModel):
    """One line of metrics.jsonl. `epoch` counts from 1, `loss` is the training mean; `held_out` is None
    where nothing is held out."""

    epoch: int
    loss: float
    held_out: ExitAccuracies | None
    seconds: float


class Report:
    """Shows progress on stderr and writes the metrics to a run's directory.

    A terminal shows a bar and one line per epoch, other outputs the lines only. The curves are drawn
    at the end, and after an epoch if they are older than `REDRAW_S`: drawing takes longer than a small
    epoch.
    """

    def __init__(self, directory: Path, epochs: int, first_epoch: int) -> None:
        self._directory = directory
        self._epochs = epochs
        self._done = first_epoch
        self._first = first_epoch
        self._started = self._drawn = self._fill_started = time.perf_counter()
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.fields[label]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("ETA {task.fields[eta]}"),
            console=self._console,
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task("", total=None, label="", eta="")
        self.history = read_metrics(directory)[:first_epoch]
        write_metrics(self.history, directory)

    def __enter__(self) -> Report:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def step(self, done: int, steps: int) -> None:
        """Show that step `done` of `steps` of the current epoch is finished."""
        self._bar.update(
            self._task,
            completed=done,
            total=steps,
            label=f"epoch {self._done + 1}/{self._epochs}",
            eta=self._eta(done / steps),
        )

    def filling(self, view: int, done: int, batches: int) -> None:
        """Show that the teacher has seen `done` of `batches` batches of `view` (0-based)."""
        now = time.perf_counter()
        if done == 1:
            self._fill_started = now
        left = (now - self._fill_started) / max(1, done - 1) * (batches - done)
        self._bar.update(
            self._task,
            completed=done,
            total=batches,
            label=f"teacher's view {view}",
            eta=clock(left) if done > 1 else "?",
        )

    def filled(self, view: int, seconds: float, left: int) -> None:
        """Print that `view` is stored after `seconds`, and the time that the `left` others will take."""
        self._console.print(
            f"teacher's view {view} stored  {seconds:.0f} s  "
            f"{left} left to fill, about {clock(seconds * left)}",
            highlight=False,
            soft_wrap=True,
        )

    def epoch(self, metrics: EpochMetrics) -> None:
        """Record a finished epoch in metrics.jsonl and the curves, and print it."""
        self.history.append(metrics)
        self._done = metrics.epoch
        write_metrics(self.history, self._directory)
        now = time.perf_counter()
        if metrics.epoch == self._epochs or now - self._drawn > REDRAW_S:
            draw_curves(self.history, self._directory / CURVES)
            self._drawn = now
        held_out = ""
        if metrics.held_out is not None:
            exits = " ".join(f"{value:.2f}" for value in metrics.held_out.exits)
            held_out = f"held-out {exits} ensemble {metrics.held_out.ensemble:.2f}  "
        self._console.print(
            f"epoch {metrics.epoch}/{self._epochs}  loss {metrics.loss:.4f}  {held_out}"
            f"{metrics.seconds:.0f} s  ETA {self._eta(0.0)}",
            highlight=False,
            soft_wrap=True,
        )

    def _eta(self, fraction: float) -> str:
        """The time left after `fraction` of the current epoch."""
        done = self._done + fraction - self._first
        if done <= 0:
            return "?"
        seconds = (
            (time.perf_counter() - self._started) / done * (self._epochs - self._done - fraction)
        )
        return clock(seconds)


def without_repeats(say: Callable[[str], None]) -> Callable[[str], None]:
    """`say`, but a line that it has printed before is not printed again."""
    printed: set[str] = set()

    def say_once(line: str) -> None:
        if line not in printed:
            printed.add(line)
            say(line)

    return say_once


def clock(seconds: float) -> str:
    """As H:MM:SS."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def read_metrics(directory: Path) -> list[EpochMetrics]:
    """The metrics in a run's metrics.jsonl; empty if there is none yet.

    Raises CheckpointError if it is damaged.
    """
    path = directory / METRICS
    if not path.is_file():
        return []
    try:
        return [EpochMetrics.model_validate_json(line) for line in path.read_bytes().splitlines()]
    except ValidationError as error:
        raise CheckpointError(f"{path} is damaged: {first_problem(error)}.") from error


def write_metrics(history: list[EpochMetrics], directory: Path) -> None:
    """Write metrics.jsonl in one step."""
    with replacing(directory / METRICS) as part:
        part.write_text("".join(m.model_dump_json() + "\n" for m in history), "utf-8")


def draw_curves(history: list[EpochMetrics], path: Path) -> None:
    """Draw loss and held-out accuracies over the epochs as the PNG `path`, in one step."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [metrics.epoch for metrics in history]
    left.plot(epochs, [metrics.loss for metrics in history], color="tab:gray")
    left.set(xlabel="epoch", ylabel="training loss")
    held_out = [metrics.held_out for metrics in history if metrics.held_out is not None]
    if held_out:
        for k in range(len(held_out[0].exits)):
            right.plot(epochs, [m.exits[k] for m in held_out], label=f"exit {k + 1}")
        right.plot(epochs, [m.ensemble for m in held_out], "k--", label="ensemble")
        right.legend()
    right.set(xlabel="epoch", ylabel="held-out accuracy, %")
    with replacing(path) as part:
        figure.savefig(part, dpi=120, format="png")
