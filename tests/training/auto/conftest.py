"""Training on a folder of images, with small recipes."""

from __future__ import annotations

import pytest

import training.auto_train
from tests.training.auto.folders import brief


@pytest.fixture
def _brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training.auto_train, "choose_recipes", brief)
