"""`offramp classify`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from exports.bundle.manifest import Manifest
    from exports.bundle.policy import Policy
    from serving.bulk.rows import Row
    from serving.models.registry import LoadedModel
    from serving.settings import Settings

# Where stderr is no terminal, a line of progress is printed so often.
PROGRESS_EVERY_S = 10.0


# That of exports.bundle.policy, which imports what `offramp --help` need not wait for.
Mode = Literal["early_exit", "ensemble", "exit"]


def classify(
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE...", help="Image files, folders of them, and globs."),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Write a table: .csv, .jsonl or .parquet. Run again to go on after an interruption.",
        ),
    ] = None,
    bundle: Annotated[
        str | None,
        typer.Option(
            help="A directory, packed file or https://…#sha256=… (default: groceries, which is embedded)."
        ),
    ] = None,
    mode: Annotated[
        Mode | None, typer.Option(help="How to answer (default: the policy's).")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Measure to leave at (default: the policy's).")
    ] = None,
    max_exit: Annotated[
        int | None, typer.Option(help="Deepest exit (default: the policy's).")
    ] = None,
    reject_below: Annotated[
        float | None,
        typer.Option(help="Least confidence of a label; below it: unsure (default: the policy's)."),
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(help="How many classes to list (default: 5).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Classify image files in this process, as the server would, on all cores.

    An image that cannot be classified does not stop the others. Exit code 1: some could not be; 2: none.
    """
    from exports.bundle.untrusted.safe_files import one_line
    from serving.api.schemas import ErrorAnswer, resolve_top_k
    from serving.bulk.errors import BulkError
    from serving.bulk.run import classify_files
    from serving.bulk.sources import find_images
    from serving.bulk.tables import table_writer
    from serving.models.registry import default_bundles, open_engine
    from serving.settings import read_settings

    paths = find_images(images)
    if output is not None:
        if as_json:
            raise BulkError("Set either --output or --json, not both.")
        table_writer(output)
    settings = read_settings()
    model = open_engine(
        bundle or default_bundles()[0], threads=settings.threads, provider=settings.provider
    )
    manifest = model.engine.manifest
    policy = model.policy.override(mode, threshold, max_exit, reject_below)
    count = resolve_top_k(top_k, len(manifest.labels))
    if output is not None:
        _write_table(output, model, policy, count, paths, settings)
        return
    show = _printer(manifest, as_json)
    failures: list[Row] = []

    def write(rows: list[Row]) -> None:
        for row in rows:
            if isinstance(row.entry, ErrorAnswer) and len(paths) == 1:
                raise BulkError(one_line(f"{row.file}: {row.entry.error}"))
            show(row)
        failures.extend(row for row in rows if row.failed)

    classify_files(model, policy, count, paths, settings, write)
    _check_failures(len(failures), len(paths))


def _write_table(
    output: Path,
    model: LoadedModel,
    policy: Policy,
    top_k: int,
    paths: Sequence[Path],
    settings: Settings,
) -> None:
    """Classify into the journal of `output` what it does not have, then write `output` from it."""
    from exports.bundle.manifest import MANIFEST
    from exports.bundle.reader import sha256
    from offramp.file_names import shown_name
    from offramp.files import replacing
    from offramp.progress import counting_bar
    from serving.bulk.journal import Journal
    from serving.bulk.rows import json_line
    from serving.bulk.run import classify_files
    from serving.bulk.tables import table_writer

    manifest = model.engine.manifest
    run = {
        "bundle": sha256((model.path / MANIFEST).read_bytes()),
        "policy": policy.model_dump(mode="json"),
        "top_k": top_k,
    }
    with Journal(output, run) as journal, counting_bar("images") as bar:
        waiting = [path for path in paths if shown_name(path) not in journal.done]
        earlier = len(journal.done)
        total = earlier + len(waiting)
        task = bar.add_task("", total=total, completed=earlier)
        report = _Report(earlier, total)
        failed = journal.failed

        def write(rows: list[Row]) -> None:
            nonlocal failed
            journal.append([json_line(row, manifest) for row in rows])
            failed += sum(row.failed for row in rows)
            bar.advance(task, len(rows))
            if bar.disable:
                report.advance(len(rows))

        classify_files(model, policy, top_k, waiting, settings, write)
        with replacing(output) as part:
            table_writer(output)(part, journal.lines())
        journal.remove()
    typer.echo(f"{total} images, {failed} with errors: {output} ({report.rate()})", err=True)
    _check_failures(failed, total)


class _Report:
    """Prints a line on stderr every PROGRESS_EVERY_S seconds."""

    def __init__(self, earlier: int, total: int) -> None:
        self._began = self._printed = time.monotonic()
        self._done, self._earlier, self._total = earlier, earlier, total

    def advance(self, rows: int) -> None:
        """So many more images have a row."""
        self._done += rows
        now = time.monotonic()
        if now - self._printed >= PROGRESS_EVERY_S:
            self._printed = now
            left = (self._total - self._done) * (now - self._began) / (self._done - self._earlier)
            typer.echo(f"{self._done} of {self._total} images, ETA {left:.0f} s", err=True)

    def rate(self) -> str:
        """Images a second so far."""
        seconds = max(time.monotonic() - self._began, 1e-9)
        return f"{(self._total - self._earlier) / seconds:.0f} images/s"


def _printer(manifest: Manifest, as_json: bool) -> Callable[[Row], None]:
    from serving.bulk.rows import json_line

    if as_json:
        return lambda row: typer.echo(json_line(row, manifest).decode(), nl=False)
    return _print_text


def _print_text(row: Row) -> None:
    """Print a row. File names and labels may hold what a terminal would obey."""
    from exports.bundle.untrusted.safe_files import one_line
    from serving.api.schemas import ErrorAnswer

    entry = row.entry
    if isinstance(entry, ErrorAnswer):
        print(one_line(f"{row.file}: {entry.error}"), file=sys.stderr)
        return
    label = "unsure" if entry.label is None else entry.label
    exits = f"exit {entry.exit} of {entry.exits}"
    typer.echo(one_line(f"{row.file}: {label} (confidence {entry.confidence:.2f}, {exits})"))
    for candidate in entry.top_k:
        typer.echo(one_line(f"  {candidate.probability:7.2%}  {candidate.label}"))


def _check_failures(failed: int, total: int) -> None:
    from serving.bulk.errors import UnansweredError

    if failed:
        raise UnansweredError(failed, total)
