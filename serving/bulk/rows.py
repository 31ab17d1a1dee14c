"""A row per image, as JSON and as columns of a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from exports.bundle.manifest import Manifest
from serving.api.schemas import ErrorAnswer, PredictionAnswer

COLUMNS = (
    *("file", "label", "index", "confidence", "exit", "reason", "measure", "measured", "top_k"),
    *("error", "code"),
)


@dataclass(frozen=True)
class Row:
    """A file and its entry in an answer of POST /v1/classify."""

    file: str
    entry: PredictionAnswer | ErrorAnswer

    @property
    def failed(self) -> bool:
        """Whether the file has an error in place of a prediction."""
        return isinstance(self.entry, ErrorAnswer)


def json_line(row: Row, manifest: Manifest) -> bytes:
    """A line of JSON: the file, the model, and `predictions` with one entry as in answers."""
    content = {
        "file": row.file,
        "model": manifest.name,
        "version": manifest.version,
        "predictions": [row.entry],
    }
    return orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE)


def columns_of(line: bytes) -> dict[str, Any]:
    """The values of COLUMNS in a line of `json_line`, None where there is none; `top_k` is JSON."""
    content = orjson.loads(line)
    (entry,) = content["predictions"]
    values = {**entry, "file": content["file"]}
    if "error" not in entry:
        values["measure"], values["measured"] = entry["measure"]["name"], entry["measure"]["value"]
        values["top_k"] = orjson.dumps(entry["top_k"]).decode()
    return {name: values.get(name) for name in COLUMNS}
