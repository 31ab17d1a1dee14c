"""The deployment of one stage, without a cluster."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np

from exports.bundle.reader import load_bundle
from exports.stage_runner import StageRunner
from serving.ray.policy_store import key_of
from serving.ray.stage import SPARE_BUNDLES, Stage
from serving.settings import Settings
from tests.serving.tiny_bundle import EXITS, SIZE, write_tiny_bundle


def opened(number: int, bundles: list[Path]) -> Stage:
    stage = Stage(number, Settings())
    asyncio.run(stage.reconfigure({"bundles": [str(bundle) for bundle in bundles]}))
    return stage


def test_configured_bundles_are_opened_before_the_first_call(bundle: Path) -> None:
    stage = opened(2, [bundle])
    assert key_of(load_bundle(bundle).manifest).bundle in stage._open_stages


def test_a_bundle_with_fewer_stages_is_skipped(bundle: Path) -> None:
    stage = opened(EXITS + 1, [bundle])
    assert len(stage._open_stages) == 0


def test_replaced_bundles_are_kept_until_there_are_too_many(bundle: Path, tmp_path: Path) -> None:
    paths = [
        write_tiny_bundle(tmp_path / version, version=version)
        for version in map(str, range(SPARE_BUNDLES + 2))
    ]
    stage = opened(1, [bundle])
    for path in paths:
        asyncio.run(stage.reconfigure({"bundles": [str(path)]}))
    kept = [key_of(load_bundle(path).manifest).bundle in stage._open_stages for path in paths]
    assert kept == [False] + [True] * (1 + SPARE_BUNDLES)


def test_a_stage_that_takes_the_image_gives_its_logits(tmp_path: Path) -> None:
    path = write_tiny_bundle(tmp_path / "cascade", image_stages=(1, EXITS))
    bundle = load_bundle(path)
    images = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3), np.uint8)
    key = key_of(bundle.manifest).bundle
    expected = StageRunner(bundle.stages).logits(images)
    for number in (1, EXITS):
        answers = opened(number, [path])._compute(str(path), key, [images[:2], images[2:]])
        logits = np.concatenate([answer.logits for answer in answers])
        np.testing.assert_allclose(logits, expected[number - 1], atol=1e-5)
        has_features = [answer.features is not None for answer in answers]
        assert has_features == [number == 1] * 2
