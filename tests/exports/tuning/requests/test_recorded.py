"""What a tuning takes from a directory of recorded requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from exports.bundle.errors import TuningError
from exports.bundle.manifest import Manifest
from exports.bundle.reader import read_manifest
from exports.tuning.requests.recorded import network_hash, read_recorded
from tests.serving.tiny_bundle import EXITS, LABELS, write_tiny_bundle


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return read_manifest(write_tiny_bundle(tmp_path_factory.mktemp("recorded") / "tiny"))


def record(manifest: Manifest, request_id: str, value: float = 0.5, **more: Any) -> dict[str, Any]:
    logits = np.full((EXITS, len(LABELS)), value).tolist()
    content = {"id": request_id, "image": 0, "time": "t", "network": network_hash(manifest)}
    return {**content, "sampled": True, "logits": logits, **more}


def write(file: Path, lines: list[dict[str, Any]], end: bytes = b"") -> Path:
    file.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines) + end)
    return file.parent


def label(request_id: str, index: int, time: str = "t") -> dict[str, Any]:
    return {"id": request_id, "image": 0, "time": time, "label": index}


def test_only_sampled_images_of_the_network_are_used(manifest: Manifest, tmp_path: Path) -> None:
    lines = [
        record(manifest, "early", sampled=False, logits=[[0.0] * len(LABELS)]),
        record(manifest, "hard", sampled=False),
        record(manifest, "early", 1.0),
        record(manifest, "other", network="another"),
        record(manifest, "chosen", 2.0),
    ]
    log = read_recorded(write(tmp_path / "requests-1.jsonl", lines), manifest)
    assert log.table.logits[0, :, 0].tolist() == [1.0, 2.0]
    assert log.target == "agreement"
    assert log.source == f"{tmp_path} (3 images recorded, 2 with all exits)"


def test_images_with_a_label_are_used_alone(manifest: Manifest, tmp_path: Path) -> None:
    write(tmp_path / "requests-1.jsonl", [record(manifest, "a", 1.0), record(manifest, "b", 2.0)])
    write(tmp_path / "requests-2.jsonl", [record(manifest, "c", 3.0)])
    write(tmp_path / "requests-1.labels.jsonl", [label("b", 1), label("b", 4)])
    log = read_recorded(tmp_path, manifest)
    assert log.target == "labels"
    assert log.table.labels.tolist() == [4]
    assert log.table.logits[0, :, 0].tolist() == [2.0]
    assert "the 1 of them with a label used" in log.source


def test_a_label_belongs_to_one_answer_of_a_repeated_id(manifest: Manifest, tmp_path: Path) -> None:
    twice = [record(manifest, "a", 1.0), record(manifest, "a", 2.0, time="u")]
    write(tmp_path / "requests-1.jsonl", twice)
    write(tmp_path / "requests-1.labels.jsonl", [label("a", 3, time="u")])
    log = read_recorded(tmp_path, manifest)
    assert log.table.logits[0, :, 0].tolist() == [2.0]
    assert log.table.labels.tolist() == [3]


def test_other_labels_give_another_hash(manifest: Manifest, tmp_path: Path) -> None:
    write(tmp_path / "requests-1.jsonl", [record(manifest, "a")])
    hashes = {read_recorded(tmp_path, manifest).sha256}
    for index in (1, 2):
        write(tmp_path / "requests-1.labels.jsonl", [label("a", index)])
        hashes.add(read_recorded(tmp_path, manifest).sha256)
    assert len(hashes) == 3


def test_an_unfinished_last_line_is_ignored(manifest: Manifest, tmp_path: Path) -> None:
    file = tmp_path / "requests-1.jsonl"
    log = read_recorded(write(file, [record(manifest, "a")], b'{"id":"cut","im'), manifest)
    assert log.table.logits.shape == (EXITS, 1, len(LABELS))


def test_a_directory_without_sampled_images_says_what_to_do(
    manifest: Manifest, tmp_path: Path
) -> None:
    write(tmp_path / "requests-1.jsonl", [record(manifest, "a", sampled=False)])
    with pytest.raises(TuningError, match="1 recorded ones; raise --record-full-share"):
        read_recorded(tmp_path, manifest)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"no JSON\n", "line 1 is not JSON"),
        (b'{"id": "a"}\n', 'line 1 is not an object with "logits"'),
    ],
)
def test_a_malformed_line_is_named(
    content: bytes, says: str, manifest: Manifest, tmp_path: Path
) -> None:
    (tmp_path / "requests-1.jsonl").write_bytes(content)
    with pytest.raises(TuningError, match=says):
        read_recorded(tmp_path, manifest)
