"""A log of requests, one JSON object a line: the logits of every exit and, if known, the label."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from exports.bundle.certificate import Target
from exports.bundle.errors import TuningError
from exports.bundle.manifest import Manifest
from exports.bundle.policy import Floats
from exports.bundle.reader import Table
from exports.tuning.search import full_depth
from exports.tuning.simulation import simulate

ASSUMED = "Assumed: the labelled images are a random selection of the traffic."


@dataclass(frozen=True)
class Traffic:
    """Numbers of images in a directory of records: recorded, chosen at random to run all exits, run again for
    the tuning, labelled, and labelled with all exits known."""

    recorded: int
    all_exits: int
    run_again: int
    labels: int
    labelled: int


@dataclass(frozen=True)
class RequestLog:
    """The samples of a file or directory; without labels, or with too few, the ensemble's answers are used
    instead.

    `source` names it, and says which of its samples are used, if not all. `remarks` are sentences on what
    is assumed of them; `representative` is false if labels are on images that differ from the others.
    """

    table: Table
    target: Target
    sha256: str
    source: str
    traffic: Traffic | None = None
    remarks: tuple[str, ...] = ()
    representative: bool = True


def read_requests(file: Path, manifest: Manifest) -> RequestLog:
    """Read one `{"logits": [[... C] ... K], "label": name or index}` a line; other keys are ignored.

    Either all lines have a label or none. Raises TuningError, which gives the line's number.
    """
    digest = hashlib.sha256()
    rows: list[Floats] = []
    labels: list[int] = []
    index = {name: i for i, name in enumerate(manifest.labels)}
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                digest.update(line)
                if not line.strip():
                    continue
                where = f"{file}, line {number}"
                content = parse_object(line, where)
                rows.append(parse_logits(content, manifest, where))
                label = _parse_label(content, index, where)
                if label is not None:
                    labels.append(label)
                if len(labels) not in (0, len(rows)):
                    this, others = ("no", "have one") if label is None else ("a", "have none")
                    raise TuningError(
                        f"{where} has {this} label, but the lines before it {others}; "
                        "label all of them or none."
                    )
    except OSError as error:
        raise TuningError(f"{file} cannot be read: {error.strerror}.") from error
    if not rows:
        raise TuningError(f"{file} holds no request.")
    table, target = make_table(rows, labels, manifest)
    remarks = (ASSUMED,) if labels else ()
    return RequestLog(table, target, digest.hexdigest(), str(file), remarks=remarks)


def make_table(
    rows: Sequence[Floats], labels: Sequence[int], manifest: Manifest
) -> tuple[Table, Target]:
    """The table of samples with the logits `rows`, each [K, C], and their labels; if there are none, with the
    ensemble's answers."""
    logits = np.stack(rows, axis=1)
    if labels:
        return Table(logits, np.array(labels)), "labels"
    ensemble = simulate(full_depth(len(logits)), logits, manifest.scaling).predictions
    return Table(logits, ensemble), "agreement"


def parse_object(line: bytes, where: str, field: str = "logits") -> dict[str, Any]:
    """The object of a line, which has `field`; raises TuningError."""
    try:
        content = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise TuningError(f"{where} is not JSON: {error.msg}.") from error
    if not isinstance(content, dict) or field not in content:
        raise TuningError(f'{where} is not an object with "{field}".')
    return content


def parse_logits(content: dict[str, Any], manifest: Manifest, where: str) -> Floats:
    """The logits float32 [K, C] of a line; raises TuningError if they are of another shape."""
    exits, classes = len(manifest.exits), len(manifest.labels)
    rows = content["logits"]
    if isinstance(rows, list) and 0 < len(rows) < exits:
        raise TuningError(
            f"{where} has the logits of {len(rows)} exits, but the network has {exits}; a sample that "
            "left early cannot be used, since the logits of the later exits are unknown."
        )
    try:
        values = np.array(rows)
    except ValueError:  # rows of different lengths
        values = np.array(None)
    if values.shape != (exits, classes) or values.dtype.kind not in "iuf":
        raise TuningError(f"{where}: logits must be {exits} lists of {classes} numbers.")
    with np.errstate(over="ignore"):  # the next line checks for infinities
        logits = values.astype(np.float32)
    if not np.isfinite(logits).all():
        raise TuningError(f"{where} has a logit that is too large.")
    return logits


def _parse_label(content: dict[str, Any], index: dict[str, int], where: str) -> int | None:
    label = content.get("label")
    if label is None:
        return None
    if isinstance(label, str) and label in index:
        return index[label]
    if type(label) is int and 0 <= label < len(index):
        return label
    raise TuningError(f"{where}: {label!r} is neither a class's name nor its index.")
