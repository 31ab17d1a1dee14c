"""What all tests of training share."""

from __future__ import annotations

import pytest

from tests.training.runs import empty_curves
from training import report


@pytest.fixture(autouse=True)
def _curves_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only runs in processes of their own and those of the fixture `workplace` draw curves.png."""
    monkeypatch.setattr(report, "draw_curves", empty_curves)
