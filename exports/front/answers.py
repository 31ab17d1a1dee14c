"""The answers of a network to images in files, kept on disk so that none is asked for twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exports.bundle.errors import ExportError
from exports.options import ResizeRule
from exports.stage_runner import StageRunner
from offramp.files import write_whole
from offramp.progress import counting_bar
from training.data.image_files import read_images

# A killed process loses at most the answers to so many images.
CHUNK_IMAGES = 256
KEY_LETTERS = 16
UNREADABLE = -1


class AnswerCache:
    """Asks the stage of one network about images of `side` pixels, fitted by `rule`.

    `directory` keeps the answers, and belongs to this stage and rule: a file for each CHUNK_IMAGES images,
    named after a digest of their content.
    """

    def __init__(
        self, directory: Path, network: Path, stage: bytes, side: int, rule: ResizeRule
    ) -> None:
        self._directory, self._network = directory, network
        self._stage, self._side, self._rule = stage, side, rule
        self._runner: StageRunner | None = None
        directory.mkdir(parents=True, exist_ok=True)

    def ask(self, files: Sequence[Path]) -> NDArray[np.int64]:
        """The position of the class that the network names for each of `files`, int64 [N]; UNREADABLE for a
        file that is no image.

        Raises ExportError if the network returns NaN or infinite values, WriteError.
        """
        answers = np.empty(len(files), np.int64)
        bar = counting_bar(f"answers of {self._network.name}")
        with bar:
            task = bar.add_task("", total=len(files))
            for start in range(0, len(files), CHUNK_IMAGES):
                chunk = files[start : start + CHUNK_IMAGES]
                path = self._directory / f"{_digest(chunk)[:KEY_LETTERS]}.json"
                found = _read(path, len(chunk))
                if found is None:
                    found = self._compute(chunk)
                    write_whole(path, json.dumps(found.tolist()).encode())
                answers[start : start + len(chunk)] = found
                bar.advance(task, len(chunk))
        return answers

    def _compute(self, files: Sequence[Path]) -> NDArray[np.int64]:
        read = read_images(files, self._side, "", self._rule)
        answers = np.full(len(files), UNREADABLE, np.int64)
        if not len(read.pixels):
            return answers
        if self._runner is None:
            self._runner = StageRunner([self._stage])
        (logits,) = self._runner.logits(read.pixels, batch_size=32)
        finite = np.isfinite(logits).all(axis=1)
        if not finite.all():
            file = files[read.positions[int(np.argmin(finite))]]
            raise ExportError(f"{self._network} returns NaN or infinite values for {file}.")
        answers[read.positions] = logits.argmax(axis=1)
        return answers


def _digest(files: Sequence[Path]) -> str:
    """SHA-256 of the contents of `files`, in order."""
    digest = hashlib.sha256()
    for file in files:
        try:
            content = file.read_bytes()
        except OSError:
            content = b""  # unreadable, as no image is empty
        digest.update(f"{len(content)} ".encode() + content)
    return digest.hexdigest()


def _read(path: Path, count: int) -> NDArray[np.int64] | None:
    """The `count` answers in the file `path`; None if it does not hold that."""
    try:
        answers = np.array(json.loads(path.read_bytes()))
    except (OSError, ValueError):
        return None
    if answers.shape != (count,) or answers.dtype != np.int64:
        return None
    return answers
