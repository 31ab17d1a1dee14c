"""What a tuning takes from a directory of recorded requests."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from exports.bundle.errors import TuningError
from exports.bundle.manifest import Manifest
from exports.bundle.policy import Floats
from exports.bundle.reader import read_manifest
from exports.tuning.requests.recorded import Key, Place, network_hash, read_image
from exports.tuning.requests.samples import read_recorded
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
    assert log.remarks == (
        "Assumed: the labelled images are a random selection of the traffic.",
        "Too few images without a label are known to check that.",
    )


def test_a_label_belongs_to_one_answer_of_a_repeated_id(manifest: Manifest, tmp_path: Path) -> None:
    twice = [record(manifest, "a", 1.0), record(manifest, "a", 2.0, time="u")]
    write(tmp_path / "requests-1.jsonl", twice)
    write(tmp_path / "requests-1.labels.jsonl", [label("a", 3, time="u")])
    log = read_recorded(tmp_path, manifest)
    assert log.table.logits[0, :, 0].tolist() == [2.0]
    assert log.table.labels.tolist() == [3]


def run(places: Mapping[Key, Place]) -> dict[Key, Floats]:
    """The logits of an image, all of which are its content."""
    found: dict[Key, Floats] = {}
    for key, place in places.items():
        content = read_image(place)
        assert content is not None
        found[key] = np.full((EXITS, len(LABELS)), float(content), np.float32)
    return found


def early(manifest: Manifest, request_id: str, content: str) -> dict[str, Any]:
    """The record of an image that left at the first exit, with its file."""
    file = base64.b64encode(content.encode()).decode()
    logits = [[0.0] * len(LABELS)]
    return record(manifest, request_id, sampled=False, logits=logits, file=file)


def test_too_few_labels_for_the_goal_leave_the_agreement(
    manifest: Manifest, tmp_path: Path
) -> None:
    write(tmp_path / "requests-1.jsonl", [record(manifest, "a", 1.0), record(manifest, "b", 2.0)])
    write(tmp_path / "requests-1.labels.jsonl", [label("b", 1)])
    log = read_recorded(tmp_path, manifest, labels_needed=2)
    assert log.target == "agreement"
    assert log.table.logits[0, :, 0].tolist() == [1.0, 2.0]
    assert log.remarks == (
        "1 images have a label that can be used, and this goal takes 2: accuracy is the agreement of 2 "
        "images with the ensemble.",
    )


def test_images_whose_file_was_recorded_are_run_again(manifest: Manifest, tmp_path: Path) -> None:
    lines = [record(manifest, "a", 1.0), early(manifest, "b", "2"), early(manifest, "c", "3")]
    write(tmp_path / "requests-1.jsonl", lines)
    log = read_recorded(tmp_path, manifest, run=run)
    assert sorted(log.table.logits[0, :, 0].tolist()) == [1.0, 2.0, 3.0]
    assert "(3 images recorded, 1 with all exits, 2 run again)" in log.source
    write(tmp_path / "requests-1.labels.jsonl", [label("c", 5)])
    log = read_recorded(tmp_path, manifest, run=run)
    assert log.table.labels.tolist() == [5]
    assert log.table.logits[0, :, 0].tolist() == [3.0]


def test_as_many_images_are_drawn_for_another_run_as_are_needed(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exports.tuning.requests.samples.MAX_RUN_AGAIN", 5)
    lines = [record(manifest, str(n), 99.0) for n in range(2)]
    lines += [early(manifest, str(n), str(n)) for n in range(2, 20)]
    write(tmp_path / "requests-1.jsonl", lines)
    drawn = read_recorded(tmp_path, manifest, run=run).table.logits[0, :, 0].tolist()
    assert len(drawn) == 5
    assert drawn == read_recorded(tmp_path, manifest, run=run).table.logits[0, :, 0].tolist()
    assert drawn[2:] != [2.0, 3.0, 4.0]


def test_labels_that_cannot_be_used_are_counted(manifest: Manifest, tmp_path: Path) -> None:
    left = record(manifest, "left", sampled=False, logits=[[0.0] * len(LABELS)])
    write(tmp_path / "requests-1.jsonl", [record(manifest, "a"), left])
    write(tmp_path / "requests-1.labels.jsonl", [label("left", 1), label("a", 1)])
    log = read_recorded(tmp_path, manifest)
    assert log.traffic is not None
    assert (log.traffic.labels, log.traffic.labelled) == (2, 1)
    assert log.remarks[1].startswith("1 labels are of images whose later exits are unknown; ")


@pytest.mark.parametrize("mistakes_only", [True, False])
def test_labels_for_mistakes_only_are_noticed(
    manifest: Manifest, tmp_path: Path, mistakes_only: bool
) -> None:
    rng = np.random.default_rng(0)
    lines, labels = [], []
    for n in range(400):
        logits = rng.normal(size=(EXITS, len(LABELS)))
        hard = n % 4 == 0
        logits[:, 2] += 0.0 if hard else 5.0
        lines.append(record(manifest, str(n), logits=logits.tolist()))
        if hard if mistakes_only else n % 3 == 0:
            labels.append(label(str(n), 2))
    write(tmp_path / "requests-1.jsonl", lines)
    write(tmp_path / "requests-1.labels.jsonl", labels)
    log = read_recorded(tmp_path, manifest)
    assert log.representative is not mistakes_only
    assert ("WARNING: they are not a random selection" in log.remarks[1]) is mistakes_only


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


@pytest.mark.parametrize("field", [{"id": [1]}, {"id": None}, {"image": "0"}, {"time": 1.5}])
@pytest.mark.parametrize("suffix", [".jsonl", ".labels.jsonl"])
def test_a_line_that_names_no_image_is_refused(
    field: dict[str, Any], suffix: str, manifest: Manifest, tmp_path: Path
) -> None:
    lines = {".jsonl": [record(manifest, "a")], ".labels.jsonl": [label("a", 0)]}
    lines[suffix][0] |= field
    for name, content in lines.items():
        write(tmp_path / f"requests-1{name}", content)
    with pytest.raises(TuningError, match="line 1: id and time must be texts, and image a whole"):
        read_recorded(tmp_path, manifest)
