"""`offramp picture cam` draws the maps and predictions of a run's exits, or reports why it cannot."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
import torch
from PIL import Image

from tests.commands import call
from training.checkpoint import load_checkpoint
from training.models.multi_exit import Normalize
from training.pictures.cam import ExitMaps, draw_cam, exit_maps, overlay

IMAGES = Path(sklearn.datasets.__file__).parent / "images"


@pytest.fixture(scope="module")
def run(workplace: Path) -> Path:
    return workplace / "runs" / "digits-oto"


def test_a_picture_has_a_row_per_image_and_prints_each_exits_prediction(
    run: Path, tmp_path: Path
) -> None:
    output = tmp_path / "cam.png"
    photos = [str(IMAGES / "flower.jpg"), str(IMAGES / "china.jpg")]
    done = call("picture", "cam", run, *photos, "-o", output)
    assert done.code == 0, done.err
    *lines, last = done.out.splitlines()
    answer = r"exit {} \d [01]\.\d\d"
    for name, line in zip(("flower.jpg", "china.jpg"), lines, strict=True):
        assert re.fullmatch(name + ": " + ", ".join(answer.format(k) for k in (1, 2, 3, 4)), line)
    assert last == str(output)
    with Image.open(output) as picture:
        assert picture.format == "PNG"
        assert picture.text["Source"] == "digits-oto"
        two_rows = picture.height
    assert call("picture", "cam", run, photos[0], "-o", output).code == 0
    with Image.open(output) as picture:
        assert picture.height < two_rows
    assert [path.name for path in tmp_path.iterdir()] == ["cam.png"]


def test_a_class_may_be_named(run: Path, tmp_path: Path) -> None:
    name = load_checkpoint(run)[1].classes[3]
    photo = IMAGES / "flower.jpg"
    own, named = tmp_path / "own.png", tmp_path / "named.png"
    assert call("picture", "cam", run, photo, "-o", own).code == 0
    assert call("picture", "cam", run, photo, "-o", named, "--class", name).code == 0
    assert own.read_bytes() != named.read_bytes()


def test_predictions_and_probabilities_are_the_networks(run: Path) -> None:
    network, config = load_checkpoint(run)
    normalize = Normalize(config.mean, config.std)
    images = np.random.default_rng(0).integers(0, 256, (3, *config.image_size, 3), np.uint8)
    with torch.no_grad():
        expected = [z.softmax(dim=1) for z in network(normalize(torch.from_numpy(images)))]
    for exit_, p in zip(exit_maps(network, normalize, images, target=2), expected, strict=True):
        assert torch.equal(exit_.predictions, p.argmax(dim=1))
        torch.testing.assert_close(exit_.confidence, p.max(dim=1).values)
        torch.testing.assert_close(exit_.probability, p[:, 2])


def test_only_the_map_is_coloured() -> None:
    image = np.full((4, 4, 3), (200, 40, 40), np.uint8)
    cold = overlay(image, np.zeros((2, 2), np.float32))
    hot = overlay(image, np.ones((2, 2), np.float32))
    assert cold.shape == hot.shape == (224, 224, 3)
    assert int(np.ptp(cold.astype(int), axis=2).max()) <= 3
    assert float(hot.mean()) > float(cold.mean()) + 50


def test_classes_are_drawn_as_words_and_files_as_they_are() -> None:
    image = np.zeros((1, 8, 8, 3), np.uint8)
    one = ExitMaps(torch.ones(1, 2, 2), torch.tensor([1]), torch.tensor([0.5]), torch.tensor([0.4]))
    figure = draw_cam(image, ["a_file.png"], [one], ["bus", "lawn_mower"], "lawn_mower")
    assert [axes.get_title() for axes in figure.axes[:2]] == [
        "a_file.png\n",
        "lawn mower 0.50\n(lawn mower 0.40)",
    ]
    assert figure.get_suptitle() == "Where each exit finds evidence for “lawn mower”"


def refusals(run: Path, place: Path) -> dict[str, tuple[object, ...]]:
    """Messages, and the arguments that cause them."""
    photo, text, own = IMAGES / "flower.jpg", place / "notes.txt", place / "own.png"
    text.write_text("no image", "utf-8")
    Image.new("RGB", (8, 8)).save(own)
    (place / "folder.png").mkdir()
    output = ("-o", place / "cam.png")
    return {
        "has no class 'seven'": (run, photo, "--class", "seven", *output),
        "holds no finished checkpoint": (place, photo, *output),
        "is missing.png cannot be read": (run, place / "is missing.png", *output),
        "notes.txt: The image is in an unknown format": (run, photo, text, *output),
        "must end in .png": (run, photo, "-o", place / "cam.jpg"),
        "there is no directory": (run, photo, "-o", place / "nowhere" / "cam.png"),
        "it is a directory": (run, photo, "-o", place / "folder.png"),
        "is one of the images": (run, own, "-o", own),
        "at most 40": (run, *[photo] * 41, *output),
    }


def test_an_impossible_picture_is_refused_in_one_sentence_and_writes_nothing(
    run: Path, tmp_path: Path
) -> None:
    cases = refusals(run, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for message, arguments in cases.items():
        done = call("picture", "cam", *arguments)
        assert done.refused_in_one_sentence, (message, done)
        assert message in done.err
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_failed_picture_keeps_the_previous_one(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "cam.png"
    output.write_bytes(b"the old one")

    class FullDisk:
        def savefig(self, part: Path, **_: object) -> None:
            part.write_bytes(b"half")
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("training.pictures.cam.draw_cam", lambda *_: FullDisk())
    done = call("picture", "cam", run, IMAGES / "flower.jpg", "-o", output)
    assert done.code == 2
    assert "No space left on device" in done.err
    assert output.read_bytes() == b"the old one"
    assert list(tmp_path.iterdir()) == [output]
