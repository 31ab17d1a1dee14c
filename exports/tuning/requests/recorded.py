"""The directory of `offramp serve --record`: its format, and its images.

Files of records, `requests-….jsonl`, hold one JSON object a line for an answered image:

- `id` of its request, `image` (its number in the request, from 0), `time` of the answer
- `model`, and `network`, the hash of its stages
- `exit` it left at, and `logits`, a list per exit that ran
- `sampled`: whether it was chosen for all exits before its answer was known
- `file`, if images are recorded: the image as it was sent, in base64

A sampled image has two lines unless its answer took all exits: one when it was answered, and one with
`sampled` and the logits of all exits. Beside a file of records, `requests-….labels.jsonl` has the labels
that came later: `id`, `image`, `time` and `label`, the index of the class; the last line counts.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from exports.bundle.errors import TuningError
from exports.bundle.manifest import Manifest
from exports.bundle.policy import Floats
from exports.tuning.requests.log import parse_logits, parse_object

RECORDS = "requests-*.jsonl"
LABELS_SUFFIX = ".labels.jsonl"

# What a label belongs to: an image of a request that was answered at a time. Clients may repeat an id.
Key = tuple[str, int, str]


@dataclass(frozen=True)
class Place:
    """Where a line is: its file of records, and its offset there in bytes."""

    records: Path
    offset: int


@dataclass
class RecordedImage:
    """An answered image. `logits` float32 [K, C] if all exits ran, and `sampled` whether they did because it
    was chosen at random; the `place` of the line that has its file, if one has; its `label`, if known."""

    logits: Floats | None = None
    sampled: bool = False
    place: Place | None = None
    label: int | None = None


def network_hash(manifest: Manifest) -> str:
    """The hash of a network's stages: equal for bundles that differ in name, policy or table only."""
    stages = "".join(entry.sha256 for entry in manifest.exits)
    return hashlib.sha256(stages.encode()).hexdigest()[:16]


def record_files(directory: Path) -> list[Path]:
    """The files of records in `directory`, the oldest first."""
    files = directory.glob(RECORDS)
    return sorted(file for file in files if not file.name.endswith(LABELS_SUFFIX))


def labels_file(records: Path) -> Path:
    """Where the labels of a file of records are."""
    return records.with_name(records.name.removesuffix(".jsonl") + LABELS_SUFFIX)


def whole_lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of `file` with their offsets, without a last one that a killed process left unfinished.

    None if the file is gone: a server that still records removes its oldest ones.
    """
    offset = 0
    try:
        with file.open("rb") as lines:
            for line in lines:
                if line.endswith(b"\n"):
                    yield offset, line
                offset += len(line)
    except FileNotFoundError:
        return


def key_of(content: dict[str, Any]) -> Key:
    """The key of a record or of a label; raises KeyError if one of its fields is missing."""
    return content["id"], content["image"], content["time"]


def read_records(directory: Path, manifest: Manifest) -> dict[Key, RecordedImage]:
    """The images in `directory` that went through the network of `manifest`, in the order of their answers.

    Raises TuningError if a line is malformed.
    """
    network = network_hash(manifest)
    images: dict[Key, RecordedImage] = {}
    labels: dict[Key, int] = {}
    try:
        for file in record_files(directory):
            for number, (offset, line) in enumerate(whole_lines(file), 1):
                where = f"{file}, line {number}"
                content = parse_object(line, where)
                if content.get("network") != network:
                    continue
                image = images.setdefault(_key(content, where), RecordedImage())
                sampled, rows = content.get("sampled") is True, content["logits"]
                image.sampled |= sampled
                if sampled or (isinstance(rows, list) and len(rows) == len(manifest.exits)):
                    image.logits = parse_logits(content, manifest, where)
                if "file" in content:
                    image.place = Place(file, offset)
            labels |= _read_labels(labels_file(file), len(manifest.labels))
    except OSError as error:
        raise TuningError(f"{directory} cannot be read: {error.strerror}.") from error
    for key in images.keys() & labels.keys():
        images[key].label = labels[key]
    return images


def read_image(place: Place) -> bytes | None:
    """The image file of a record; None if the server has removed it since, or if it is no base64."""
    try:
        with place.records.open("rb") as lines:
            lines.seek(place.offset)
            return base64.b64decode(orjson.loads(lines.readline())["file"])
    # A TypeError if `file` is no text, a ValueError if it is no base64.
    except (FileNotFoundError, TypeError, ValueError):
        return None


def _read_labels(file: Path, classes: int) -> dict[Key, int]:
    found: dict[Key, int] = {}
    for number, (_, line) in enumerate(whole_lines(file), 1):
        where = f"{file}, line {number}"
        content = parse_object(line, where, "label")
        label = content["label"]
        # Of another network that is recorded here as well, with more classes.
        if type(label) is int and 0 <= label < classes:
            found[_key(content, where)] = label
    return found


def _key(content: dict[str, Any], where: str) -> Key:
    try:
        key = key_of(content)
    except KeyError as error:
        raise TuningError(f"{where} has no {error.args[0]}.") from error
    if [type(part) for part in key] != [str, int, str]:
        raise TuningError(f"{where}: id and time must be texts, and image a whole number.")
    return key
