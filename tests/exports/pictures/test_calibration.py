"""Reliability diagrams and their error are those of Guo et al. 2017."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exports.pictures.calibration import draw_calibration, reliability
from exports.pictures.table import open_table
from tests.commands import call


def test_an_error_computed_by_hand() -> None:
    # Four bins: (0.25, 0.5] holds 0.4 and 0.5, half of them right; (0.75, 1] holds 0.8, 0.9 and 1.0,
    # one of three right. ECE = 2/5 |1/2 - 0.45| + 3/5 |1/3 - 0.9| = 0.02 + 0.34.
    confidence = np.array([0.4, 0.5, 0.8, 0.9, 1.0], np.float32)
    right = np.array([True, False, True, False, False])
    found = reliability(confidence, right, bins=4)
    np.testing.assert_allclose(found.confidence, [0.45, 0.9], rtol=1e-6)
    np.testing.assert_allclose(found.accuracy, [0.5, 1 / 3])
    np.testing.assert_allclose(found.share, [0.4, 0.6])
    assert found.expected_calibration_error == pytest.approx(0.36)


def test_who_is_as_right_as_he_says_has_no_error() -> None:
    confidence = np.repeat(np.array([0.25, 0.75], np.float32), 4)
    right = np.array([True, False, False, False, True, True, True, False])
    assert reliability(confidence, right).expected_calibration_error == pytest.approx(0)


def test_the_command_draws_every_exit_and_the_ensemble_before_and_after(
    digits_bundle: Path, tmp_path: Path
) -> None:
    output = tmp_path / "calibration.png"
    done = call("picture", "calibration", digits_bundle, "-o", output)
    assert (done.code, done.out) == (0, f"{output}\n"), done.err
    known = open_table(digits_bundle)
    with Image.open(output) as picture:
        assert picture.format == "PNG"
        assert known.manifest.calibration.sha256[:12] in picture.text["Source"]
    titles = [axes.get_title() for axes in draw_calibration(known).axes]
    assert [t.split(":")[0] for t in titles[:5]] == [
        *(f"exit {k}" for k in (1, 2, 3, 4)),
        "ensemble",
    ]
    scaling = known.manifest.scaling
    temperatures = [*scaling.temperatures, scaling.running_temperatures[-1]]
    assert [t.split(":")[0] for t in titles[5:]] == [f"T = {t:.2f}" for t in temperatures]
