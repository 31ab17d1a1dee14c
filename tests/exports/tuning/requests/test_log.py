"""Request logs are read line by line; an error names its line."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exports.bundle.errors import TuningError
from exports.bundle.reader import load_table, read_manifest
from exports.tuning.requests.log import read_requests
from tests.serving.tiny_bundle import EXITS, LABELS, write_tiny_bundle

GOOD = [[0.5] * len(LABELS)] * EXITS


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("log") / "tiny")


def write_lines(path: Path, lines: list[Any]) -> Path:
    path.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines))
    return path


def test_the_logged_requests_are_the_table(bundle: Path, tmp_path: Path) -> None:
    manifest = read_manifest(bundle)
    expected = load_table(bundle, manifest)
    lines = [
        {"logits": logits.tolist(), "label": LABELS[label] if i % 2 else int(label), "client": "x"}
        for i, (logits, label) in enumerate(
            zip(expected.logits.swapaxes(0, 1), expected.labels, strict=True)
        )
    ]
    file = write_lines(tmp_path / "log.jsonl", [*lines, ""])
    log = read_requests(file, manifest)
    assert (log.table.logits == expected.logits).all()
    assert log.table.labels.tolist() == expected.labels.tolist()
    assert (log.target, log.sha256) == ("labels", hashlib.sha256(file.read_bytes()).hexdigest())


def test_without_labels_the_answers_of_the_ensemble_are_the_labels(
    bundle: Path, tmp_path: Path
) -> None:
    manifest = read_manifest(bundle)
    logits = np.random.default_rng(0).normal(size=(9, EXITS, len(LABELS)))
    log = read_requests(
        write_lines(
            tmp_path / "log.jsonl", [{"logits": x.tolist(), "label": None} for x in logits]
        ),
        manifest,
    )
    mean = np.tensordot(np.array(manifest.ensemble_weights), logits, (0, 1))
    assert log.table.labels.tolist() == mean.argmax(-1).tolist()
    assert log.target == "agreement"


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([], "holds no request."),
        (["{"], "line 1 is not JSON"),
        (['{"logits": NaN}'], "line 1 is not JSON"),
        ([[1]], 'line 1 is not an object with "logits".'),
        ([{"label": "ant"}], 'line 1 is not an object with "logits".'),
        (["", {"logits": GOOD[:1]}], "line 2 has the logits of 1 exits, but the network has 3"),
        ([{"logits": []}], "line 1: logits must be 3 lists of 7 numbers."),
        ([{"logits": [[1] * 6] * 3}], "line 1: logits must be 3 lists of 7 numbers."),
        ([{"logits": [[1] * 7, [1] * 7, [1]]}], "line 1: logits must be 3 lists of 7 numbers."),
        ([{"logits": [["1"] * 7] * 3}], "line 1: logits must be 3 lists of 7 numbers."),
        ([{"logits": [[None] * 7] * 3}], "line 1: logits must be 3 lists of 7 numbers."),
        ([{"logits": [[1e39] * 7] * 3}], "line 1 has a logit that is too large."),
        ([{"logits": GOOD, "label": "wolf"}], "line 1: 'wolf' is neither a class's name nor"),
        ([{"logits": GOOD, "label": 7}], "line 1: 7 is neither"),
        ([{"logits": GOOD, "label": -1}], "line 1: -1 is neither"),
        ([{"logits": GOOD, "label": True}], "line 1: True is neither"),
        ([{"logits": GOOD, "label": 1}, {"logits": GOOD}], "line 2 has no label, but the lines"),
        ([{"logits": GOOD}, {"logits": GOOD, "label": 1}], "line 2 has a label, but the lines"),
    ],
)
def test_an_error_names_its_line(bundle: Path, tmp_path: Path, lines: list[Any], says: str) -> None:
    file = write_lines(tmp_path / "log.jsonl", lines)
    with pytest.raises(TuningError) as caught:
        read_requests(file, read_manifest(bundle))
    message = str(caught.value)
    assert message.startswith(str(file))
    assert says in message
    assert message.endswith(".")
    assert "\n" not in message


def test_a_missing_file_is_named(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(TuningError, match=r"cannot be read: No such file or directory\.$"):
        read_requests(tmp_path / "none.jsonl", read_manifest(bundle))
