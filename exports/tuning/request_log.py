"""Logged requests, one JSON object a line: every exit's logits and, where it is known, the truth."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from exports.bundle.errors import TuningError
from exports.bundle.manifest import Manifest
from exports.bundle.policy import Floats, Target, simulate
from exports.bundle.reader import Table
from exports.tuning.search import full_depth


@dataclass(frozen=True)
class RequestLog:
    """The samples of a file; without labels the ensemble's answers stand in for them."""

    table: Table
    target: Target
    sha256: str


def read_requests(file: Path, manifest: Manifest) -> RequestLog:
    """Read `{"logits": [[... C] ... K], "label": name or index}` a line; other keys are passed over.

    Either every line has a label or none. Raises TuningError with the line's number.
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
                content = _object(line, where)
                rows.append(_logits(content, manifest, where))
                label = _label(content, index, where)
                if label is not None:
                    labels.append(label)
                if len(labels) not in (0, len(rows)):
                    has, others = ("no", "have one") if label is None else ("a", "have none")
                    raise TuningError(
                        f"{where} has {has} label, but the lines before it {others}; "
                        "label all of them or none."
                    )
    except OSError as error:
        raise TuningError(f"{file} cannot be read: {error.strerror}.") from error
    if not rows:
        raise TuningError(f"{file} holds no request.")
    logits = np.stack(rows, axis=1)
    if labels:
        return RequestLog(Table(logits, np.array(labels)), "labels", digest.hexdigest())
    ensemble = simulate(full_depth(len(logits)), logits, manifest.scaling).predictions
    return RequestLog(Table(logits, ensemble), "agreement", digest.hexdigest())


def _object(line: bytes, where: str) -> dict[str, Any]:
    try:
        content = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise TuningError(f"{where} is not JSON: {error.msg}.") from error
    if not isinstance(content, dict) or "logits" not in content:
        raise TuningError(f'{where} is not an object with "logits".')
    return content


def _logits(content: dict[str, Any], manifest: Manifest, where: str) -> Floats:
    exits, classes = len(manifest.exits), len(manifest.labels)
    given = content["logits"]
    if isinstance(given, list) and 0 < len(given) < exits:
        raise TuningError(
            f"{where} has the logits of {len(given)} exits, but the network has {exits}; a sample that "
            "left early cannot be used, for nobody knows what the later exits would have said."
        )
    try:
        values = np.array(given)
    except ValueError:  # rows of different lengths
        values = np.array(None)
    if values.shape != (exits, classes) or values.dtype.kind not in "iuf":
        raise TuningError(f"{where}: logits must be {exits} lists of {classes} numbers.")
    with np.errstate(over="ignore"):  # seen on the next line
        logits = values.astype(np.float32)
    if not np.isfinite(logits).all():
        raise TuningError(f"{where} has a logit that is too large.")
    return logits


def _label(content: dict[str, Any], index: dict[str, int], where: str) -> int | None:
    label = content.get("label")
    if label is None:
        return None
    if isinstance(label, str) and label in index:
        return index[label]
    if type(label) is int and 0 <= label < len(index):
        return label
    raise TuningError(f"{where}: {label!r} is neither a class's name nor its index.")
