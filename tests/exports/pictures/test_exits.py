"""How the exits differ, counted; and when a bundle's pictures are refused."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exports.pictures.exits import agreement, first_solved, gain
from tests.commands import call

COMMANDS = ("exits", "calibration")


def test_agreement_is_the_share_of_equal_answers() -> None:
    predictions = np.array([[0, 1, 2, 3], [0, 1, 2, 0], [0, 3, 3, 3]])
    expected = [[1, 0.75, 0.5], [0.75, 1, 0.25], [0.5, 0.25, 1]]
    np.testing.assert_array_equal(agreement(predictions), expected)


def test_what_the_ensemble_wins_and_loses_adds_up_to_the_difference_of_accuracies() -> None:
    ensemble = np.array([True, True, True, False, False])
    single = np.array([True, False, False, True, False])
    found = gain(ensemble, single)
    assert (found.won, found.lost) == (0.4, 0.2)
    assert found.net == pytest.approx(0.6 - 0.4)


def test_a_sample_is_solved_first_where_the_first_exit_is_right() -> None:
    right = np.array(
        [[True, False, False, False], [False, True, False, True], [True, True, False, True]]
    )
    assert first_solved(right).tolist() == [1, 2, 0, 2]


def test_the_command_draws_without_torch_or_onnx(digits_bundle: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from offramp.cli import app;"
        f"app(['picture', 'exits', {str(digits_bundle)!r}, '-o', 'exits.png'], standalone_mode=False);"
        "print([m for m in ('torch', 'onnx', 'onnxruntime') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["exits.png", "[]"]
    with Image.open(tmp_path / "exits.png") as picture:
        assert picture.format == "PNG"
        assert "digits" in picture.text["Source"]
    assert [path.name for path in tmp_path.iterdir()] == ["exits.png"]


@pytest.mark.parametrize("command", COMMANDS)
def test_what_cannot_be_drawn_is_refused_in_one_sentence_and_leaves_nothing(
    command: str, workplace: Path, digits_bundle: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(digits_bundle, damaged)
    (damaged / "calibration.npz").write_bytes(b"rubbish")
    output = tmp_path / "out.png"
    cases = {
        "is a run, not a bundle": (workplace / "runs" / "digits-oto", output),
        "there is no such directory": (tmp_path / "none", output),
        "calibration.npz": (damaged, output),
        "must end in .png": (digits_bundle, tmp_path / "out.svg"),
        "there is no directory": (digits_bundle, tmp_path / "nowhere" / "out.png"),
    }
    for message, (bundle, path) in cases.items():
        done = call("picture", command, bundle, "-o", path)
        assert done.refused_in_one_sentence, (message, done)
        assert message in done.err
    assert list(tmp_path.iterdir()) == [damaged]
