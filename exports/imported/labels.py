"""Class names: from files, and from one network's order to the bundle's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exports.bundle.errors import ExportError
from exports.bundle.untrusted.safe_files import one_line
from exports.imported.config import read_json

# The names that a class for "none of these" has; it is left out.
BACKGROUND = frozenset({"background", "__background__", "__ignore__"})

Labels = tuple[str, ...]


def read_labels(file: Path) -> Labels:
    """The class names in `file`, in the order of the outputs.

    A text file has one a line; a JSON file is a list, or has `id2label` as the configurations of the Hub
    have. Raises ExportError, if a name is there twice too.
    """
    if file.suffix == ".json":
        names = _from_json(read_json(file), file)
    else:
        try:
            lines = file.read_text("utf-8-sig").splitlines()
        except OSError as error:
            raise ExportError(f"{file} cannot be read: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise ExportError(f"{file} is not a text in UTF-8.") from error
        names = [line.strip() for line in lines if line.strip()]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ExportError(
            f"{file} has the label {one_line(twice[0])} twice; labels must be different."
        )
    if len(without_background(names)) < 2:
        raise ExportError(f"{file} has fewer than two labels.")
    return tuple(names)


def _from_json(content: object, file: Path) -> list[str]:
    if isinstance(content, dict):
        by_index = content.get("id2label", content)
        if isinstance(by_index, dict):
            content = [by_index.get(str(index)) for index in range(len(by_index))]
    if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
        raise ExportError(f"{file} is neither a list of labels nor has id2label.")
    return content


def without_background(labels: Sequence[str]) -> Labels:
    """`labels` without a background class."""
    return tuple(label for label in labels if label.lower() not in BACKGROUND)


def output_labels(labels: Labels, outputs: int, network: Path) -> Labels:
    """The labels of the `outputs` of `network`: `labels`, or those without the background class.

    Raises ExportError if neither has that number.
    """
    for candidate in (labels, without_background(labels)):
        if len(candidate) == outputs:
            return candidate
    hint = ""
    if outputs == len(labels) + 1:
        hint = "; if one is a background class, name it `background` in a labels file of its own"
    raise ExportError(f"{network} has {outputs} outputs for {len(labels)} labels{hint}.")


def mapping(own: Labels, classes: Labels, network: Path) -> NDArray[np.int64] | None:
    """The positions in `own` of the bundle's `classes`; None if the order is the same.

    Raises ExportError if a class is missing, or if `own` has one that the bundle has not.
    """
    if own == classes:
        return None
    index = {name: position for position, name in enumerate(own)}
    missing = [name for name in classes if name not in index]
    extra = sorted(set(without_background(own)) - set(classes))
    if missing:
        raise ExportError(
            f"{network} has no class {one_line(missing[0])}, which another network has."
        )
    if extra:
        raise ExportError(
            f"{network} has the class {one_line(extra[0])}, which the last network has not."
        )
    return np.array([index[name] for name in classes], np.int64)
