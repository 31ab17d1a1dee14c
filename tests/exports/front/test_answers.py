"""A network is asked about each image once."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import exports.front.answers
from exports.bundle.errors import ExportError
from exports.bundle.reader import IMAGE
from exports.front.answers import UNREADABLE, AnswerCache
from tests.exports.imported.classifiers import SIDE, write_images

NETWORK = Path("large.onnx")


class Runner:
    """In place of StageRunner: answers 1 for a bright image and 0 for another, and counts the images."""

    asked = 0
    value = 1.0

    def __init__(self, stages: list[bytes]) -> None:
        assert stages == [b"stage"]

    def logits(self, images: np.ndarray, batch_size: int) -> np.ndarray:
        type(self).asked += len(images)
        bright = images.mean((1, 2, 3)) > 110
        return np.stack([~bright, bright], axis=1)[None] * np.float32(self.value)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Twelve images, which are asked about in chunks of five."""
    monkeypatch.setattr(exports.front.answers, "StageRunner", Runner)
    monkeypatch.setattr(exports.front.answers, "CHUNK_IMAGES", 5)
    monkeypatch.setattr(Runner, "asked", 0)
    folder = write_images(tmp_path / "photos", 3, labelled=False)
    assert IMAGE == "image"
    return sorted(folder.iterdir())


def ask(tmp_path: Path, files: list[Path]) -> list[int]:
    cache = AnswerCache(tmp_path / "cache", NETWORK, b"stage", SIDE, "center_crop")
    return cache.ask(files).tolist()


def test_answers_are_kept_and_no_image_is_asked_about_twice(
    files: list[Path], tmp_path: Path
) -> None:
    first = ask(tmp_path, files)
    assert set(first) == {0, 1}
    assert Runner.asked == 12
    assert ask(tmp_path, files) == first
    assert Runner.asked == 12


def test_a_stopped_command_keeps_the_chunks_that_it_finished(
    files: list[Path], tmp_path: Path
) -> None:
    ask(tmp_path, files[:5])
    ask(tmp_path, files)
    assert Runner.asked == 12


def test_a_changed_image_and_a_damaged_file_are_asked_about_again(
    files: list[Path], tmp_path: Path
) -> None:
    first = ask(tmp_path, files)
    shutil.copy(files[0], files[-1])
    changed = ask(tmp_path, files)
    assert Runner.asked == 14  # the chunk of the last two
    assert changed == [*first[:-1], first[0]]
    for kept in (tmp_path / "cache").iterdir():
        kept.write_bytes(b"[0, 1")
    assert ask(tmp_path, files) == changed
    assert Runner.asked == 14 + 12


def test_files_that_are_no_images_have_no_answer(files: list[Path], tmp_path: Path) -> None:
    files[2].write_bytes(b"no image")
    files[3].unlink()
    answers = ask(tmp_path, files)
    assert [n for n, answer in enumerate(answers) if answer == UNREADABLE] == [2, 3]
    assert Runner.asked == 10


def test_a_network_that_returns_nan_is_refused(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Runner, "value", np.nan)
    with pytest.raises(ExportError, match=r"large\.onnx returns NaN .*00000\.png\.$"):
        ask(tmp_path, files)
