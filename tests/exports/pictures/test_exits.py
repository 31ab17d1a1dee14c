"""The comparison of exits, and the refusal of pictures that cannot be drawn."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exports.pictures.exits import agreement, first_correct_exit, gain
from tests.commands import call

COMMANDS = ("exits", "calibration")


def test_agreement_is_the_share_of_equal_answers() -> None:
    predictions = np.array([[0, 1, 2, 3], [0, 1, 2, 0], [0, 3, 3, 3]])
    expected = [[1, 0.75, 0.5], [0.75, 1, 0.25], [0.5, 0.25, 1]]
    np.testing.assert_array_equal(agreement(predictions), expected)


def test_the_gain_is_the_difference_of_the_accuracies() -> None:
    ensemble = np.array([True, True, True, False, False])
    single = np.array([True, False, False, True, False])
    result = gain(ensemble, single)
    assert (result.won, result.lost) == (0.4, 0.2)
    assert result.net == pytest.approx(0.6 - 0.4)


def test_the_first_correct_exit_is_counted_from_one() -> None:
    correct = np.array(
        [[True, False, False, False], [False, True, False, True], [True, True, False, True]]
    )
    assert first_correct_exit(correct).tolist() == [1, 2, 0, 2]


def test_the_command_draws_without_torch_or_onnx(digits_bundle: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from offramp.cli import app;"
        f"app(['picture', 'exits', {str(digits_bundle)!r}, '-o', 'exits.png'], standalone_mode=False);"
        "print([m for m in ('torch', 'onnx', 'onnxruntime') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["exits.png", "[]"]
    with Image.open(tmp_path / "exits.png") as picture:
        assert picture.format == "PNG"
        assert "digits" in picture.text["Source"]
    assert [path.name for path in tmp_path.iterdir()] == ["exits.png"]


@pytest.mark.parametrize("command", COMMANDS)
def test_an_impossible_picture_is_refused_in_one_sentence_and_leaves_no_file(
    command: str, workplace: Path, digits_bundle: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(digits_bundle, damaged)
    (damaged / "calibration.npz").write_bytes(b"damaged")
    output = tmp_path / "out.png"
    cases = {
        "is a run, not a bundle": (workplace / "runs" / "digits-oto", output),
        "there is no such directory": (tmp_path / "none", output),
        "calibration.npz": (damaged, output),
        "must end in .png": (digits_bundle, tmp_path / "out.svg"),
        "there is no directory": (digits_bundle, tmp_path / "nowhere" / "out.png"),
    }
    for message, (bundle, path) in cases.items():
        result = call("picture", command, bundle, "-o", path)
        assert result.refused_in_one_sentence, (message, result)
        assert message in result.err
    assert list(tmp_path.iterdir()) == [damaged]
