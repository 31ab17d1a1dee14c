"""A teacher that learned from crops at another side than its own teaches from crops at that side."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.teachers.recipes import run, student, teacher
from training.assemble import load_teacher
from training.checkpoint import load_checkpoint
from training.data.load import load_dataset
from training.models.multi_exit import MultiExit
from training.teachers import open_views
from training.teachers.classifier import NetworkClassifier
from training.teachers.key import describe_run


@pytest.mark.parametrize(("fraction", "side"), [(1.0, 8), (0.5, None)])
def test_views_and_an_online_teacher_use_the_side_of_all_crops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fraction: float, side: int | None
) -> None:
    seen: list[int | None] = []

    def classifier(network: MultiExit, *arguments: object) -> NetworkClassifier:
        seen.append(network.side)
        return NetworkClassifier(network, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(open_views, "NetworkClassifier", classifier)
    run(tmp_path, teacher(progressive={"side": 8, "fraction": fraction}))
    run(tmp_path, student())
    assert seen == [side]

    online = student(name="online", taught_by={"recipe": "teacher"})
    network, _ = load_teacher(online, load_dataset(online.data, tmp_path), tmp_path)
    assert network is not None
    assert network.side == side
    # The checkpoint is served at its own side, and the cache of views depends on the other.
    own, config = load_checkpoint(tmp_path / "teacher")
    assert own.side is None
    described = describe_run(tmp_path / "teacher", config, "fp32")
    assert described["network"].get("side") == side
