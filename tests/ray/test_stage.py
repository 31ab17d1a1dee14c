"""The deployment of one stage, without a cluster."""

from __future__ import annotations

import asyncio
from pathlib import Path

from exports.bundle.reader import load_bundle
from serving.ray.policy_store import key_of
from serving.ray.stage import SPARE_BUNDLES, Stage
from serving.settings import Settings
from tests.serving.tiny_bundle import EXITS, write_tiny_bundle


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
