"""Reliability diagrams of every exit."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from exports.pictures.calibration import draw_calibration
from exports.pictures.table import open_table
from tests.commands import call


def test_the_command_draws_every_exit_and_the_ensemble_before_and_after(
    digits_bundle: Path, tmp_path: Path
) -> None:
    output = tmp_path / "calibration.png"
    result = call("picture", "calibration", digits_bundle, "-o", output)
    assert (result.code, result.out) == (0, f"{output}\n"), result.err
    data = open_table(digits_bundle)
    with Image.open(output) as picture:
        assert picture.format == "PNG"
        assert data.manifest.calibration.sha256[:12] in picture.text["Source"]
    titles = [axes.get_title() for axes in draw_calibration(data).axes]
    assert [t.split(":")[0] for t in titles[:5]] == [
        *(f"exit {k}" for k in (1, 2, 3, 4)),
        "ensemble",
    ]
    scaling = data.manifest.scaling
    temperatures = [*scaling.temperatures, scaling.running_temperatures[-1]]
    assert [t.split(":")[0] for t in titles[5:]] == [f"T = {t:.2f}" for t in temperatures]
