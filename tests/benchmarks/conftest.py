"""A small bundle, its engine and images for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from exports.bundle.reader import Bundle, load_bundle
from serving.inference.engine import Engine
from tests.serving.tiny_bundle import SIZE, write_tiny_bundle


@pytest.fixture(scope="session")
def bundle_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def bundle(bundle_path: Path) -> Bundle:
    return load_bundle(bundle_path)


@pytest.fixture(scope="session")
def engine(bundle: Bundle) -> Engine:
    return Engine(bundle)


@pytest.fixture(scope="session")
def images() -> NDArray[np.uint8]:
    """Noise, uint8 [40, SIZE, SIZE, 3]."""
    return np.random.default_rng(7).integers(0, 256, (40, SIZE, SIZE, 3), np.uint8)
