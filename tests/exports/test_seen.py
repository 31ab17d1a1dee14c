"""A network that knows the images that calibrate is reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from exports.seen import warn_if_seen

NETWORK = Path("large.onnx")


def said(accuracy: float, images: int) -> list[str]:
    lines: list[str] = []
    warn_if_seen(accuracy, images, NETWORK, "give others", lines.append)
    return lines


def test_a_network_that_is_right_on_nearly_all_of_them_is_reported() -> None:
    (line,) = said(0.9977, 440)
    assert line.startswith("warning: large.onnx is right on 99.77 % of the 440 images")
    assert line.endswith("give others.")


@pytest.mark.parametrize(("accuracy", "images"), [(0.99, 440), (1.0, 99)])
def test_one_with_errors_or_with_few_images_is_not(accuracy: float, images: int) -> None:
    assert said(accuracy, images) == []
