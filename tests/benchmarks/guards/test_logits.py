"""Logits that a run of the guards' benchmark keeps for the next one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.guards.logits import LogitsCache
from exports.bundle.reader import load_bundle
from exports.stage_runner import StageRunner
from offramp.errors import WriteError


@pytest.fixture
def cache(bundle_path: Path, tmp_path: Path) -> LogitsCache:
    return LogitsCache(load_bundle(bundle_path), tmp_path / "work")


def pixels(bundle_path: Path, count: int = 3) -> np.ndarray:
    spec = load_bundle(bundle_path).manifest.input
    shape = (count, spec.height, spec.width, 3)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def test_logits_are_those_of_the_bundle_and_are_run_once(
    cache: LogitsCache, bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = pixels(bundle_path)
    expected = StageRunner(load_bundle(bundle_path).stages).logits(images)
    assert np.array_equal(cache.logits(images), expected)
    monkeypatch.setattr(StageRunner, "logits", lambda *_: pytest.fail("run again"))
    again = LogitsCache(load_bundle(bundle_path), tmp_path / "work")
    assert np.array_equal(again.logits(images), expected)


def test_other_images_are_run(cache: LogitsCache, bundle_path: Path, tmp_path: Path) -> None:
    images = pixels(bundle_path)
    cache.logits(images)
    other = cache.logits(255 - images)
    assert not np.array_equal(other, cache.logits(images))
    assert len(list((tmp_path / "work").iterdir())) == 2


def test_an_interrupted_write_leaves_no_file(
    cache: LogitsCache, bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(WriteError):
        cache.logits(pixels(bundle_path))
    assert list((tmp_path / "work").iterdir()) == []
