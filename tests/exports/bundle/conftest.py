"""Fixtures of the tests of packed bundles: a packed file and a cache of its own for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from exports.bundle.archive import pack_bundle
from tests.exports.bundle.packed import Packed


@pytest.fixture(scope="session")
def packed(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Packed:
    """The tiny bundle as a packed file."""
    target = tmp_path_factory.mktemp("packed") / "tiny.offramp.zip"
    digest = pack_bundle(bundle_path, target)
    return Packed(target, target.read_bytes(), digest)


@pytest.fixture
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a bundle cache that this test alone uses."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "offramp" / "bundles"
