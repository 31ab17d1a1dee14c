"""Images with the answers of a network for labels are a data set."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.data.answers import ANSWERS, Answers, read_answers, write_answers
from training.data.dataset import Dataset, DatasetInfo
from training.data.load import dataset_info, load_dataset, split_held_out
from training.errors import DataError
from training.recipes.schema import DataRecipe

COUNT = 12


def recipe(place: Path, side: int = 20, held_out: int = 4) -> DataRecipe:
    return DataRecipe(name="answers", path=str(place), side=side, held_out=held_out)


def load(place: Path, side: int = 20) -> Dataset:
    return load_dataset(recipe(place, side), Path("elsewhere"))


@pytest.fixture
def answered(tmp_path: Path) -> Answers:
    """Twelve images whose red is their number, half of them one folder further down."""
    photos = tmp_path / "photos"
    (photos / "below").mkdir(parents=True)
    names = [f"below/{n}.png" if n % 2 else f"{n}.png" for n in range(COUNT)]
    for number, name in enumerate(names):
        Image.new("RGB", (30, 40), (number, 0, 0)).save(photos / name)
    answers = Answers(
        photos=str(photos),
        side=20,
        resize="stretch",
        classes=("a", "b", "c"),
        images=tuple(names),
        answers=(2, *[0] * (COUNT - 1)),
    )
    write_answers(tmp_path, answers)
    return answers


def test_a_file_that_calls_images_pictures_is_read(answered: Answers, tmp_path: Path) -> None:
    file = tmp_path / ANSWERS
    file.write_text(file.read_text().replace('"images"', '"pictures"'))
    assert read_answers(tmp_path) == answered


def test_the_answers_are_the_labels_and_there_is_no_test_split(
    answered: Answers, tmp_path: Path
) -> None:
    found = load(tmp_path)
    assert found.name == "photos"
    assert found.classes == ("a", "b", "c")  # b is no image's
    assert found.train.images.shape == (COUNT, 20, 20, 3)
    assert found.train.images[:, 10, 10, 0].tolist() == list(range(COUNT))
    assert found.train.labels.tolist() == list(answered.answers)
    assert len(found.test) == 0
    assert found.fingerprint == answered.fingerprint
    assert dataset_info(recipe(tmp_path), Path()) == DatasetInfo(20, 3, COUNT)


def test_held_out_images_are_drawn_from_all_alike(answered: Answers, tmp_path: Path) -> None:
    """As many of each class would be others than a server sees; a class of one image is no fault."""
    labels = load(tmp_path).train.labels
    kept, held_out = split_held_out(recipe(tmp_path), labels)
    assert len(held_out) == 4
    assert sorted([*kept, *held_out]) == list(range(COUNT))
    other = np.roll(labels, 5)
    assert np.array_equal(split_held_out(recipe(tmp_path), other)[1], held_out)


def test_another_answer_or_another_image_is_another_fingerprint(answered: Answers) -> None:
    answers = answered.model_copy(update={"answers": (1, *answered.answers[1:])})
    renamed = answered.model_copy(update={"images": ("x.png", *answered.images[1:])})
    moved = answered.model_copy(update={"photos": "/elsewhere"})
    assert answers.fingerprint != answered.fingerprint
    assert renamed.fingerprint != answered.fingerprint
    assert moved.fingerprint == answered.fingerprint


@pytest.mark.usefixtures("answered")
def test_what_cannot_be_loaded_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is of 20 pixels, not of 32"):
        load(tmp_path, side=32)
    (tmp_path / "photos" / "0.png").unlink()
    with pytest.raises(DataError, match=r"0\.png cannot be read"):
        load(tmp_path)
    with pytest.raises(DataError, match=f"{ANSWERS} cannot be read"):
        read_answers(tmp_path / "photos")


@pytest.mark.parametrize(
    "change", [{"answers": (0,)}, {"answers": (3,) * COUNT}, {"side": 0}, {"images": ()}]
)
def test_a_file_that_is_not_valid_is_refused(
    answered: Answers, tmp_path: Path, change: dict[str, object]
) -> None:
    write_answers(tmp_path, answered.model_copy(update=change))
    with pytest.raises(DataError, match=f"{ANSWERS} is not valid"):
        read_answers(tmp_path)


def test_an_image_whose_name_is_not_utf8_is_refused_by_name(
    answered: Answers, tmp_path: Path
) -> None:
    odd = answered.model_copy(update={"images": (os.fsdecode(b"K\xe4se.png"),) * COUNT})
    with pytest.raises(DataError, match=r"K\\xe4se\.png has a name that is not UTF-8; rename it"):
        write_answers(tmp_path, odd)
