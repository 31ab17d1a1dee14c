"""An image folder becomes a data set, or is refused in one sentence."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tests.training.data.image_folders import fill, load, save_image
from training.errors import DataError


def numbers(images: np.ndarray) -> list[int]:
    return images[:, 16, 16, 1].tolist()


def test_without_a_test_folder_every_image_is_trained_on(tmp_path: Path) -> None:
    fill(tmp_path / "photos" / "dog", 20, 200)
    fill(tmp_path / "photos" / "cat", 11, 100)
    found = load(tmp_path / "photos")
    assert found.name == "photos"
    assert found.classes == ("cat", "dog")
    assert found.train.images.shape == (31, 32, 32, 3)
    assert np.bincount(found.train.labels).tolist() == [11, 20]
    assert len(found.test) == 0
    assert found.passed_over is None
    split = found.train
    assert (split.images[:, 16, 16, 0] == np.where(split.labels == 0, 100, 200)).all()
    assert numbers(split.images) == [*range(11), *range(20)]


def test_the_fingerprint_depends_on_the_files_of_the_split_and_nothing_else(
    tmp_path: Path,
) -> None:
    for name in "ab":
        fill(tmp_path / "photos" / name, 6, 1)
    before = load(tmp_path / "photos")
    save_image(tmp_path / "photos" / "a" / "000.png", (9, 9, 9))
    moved = (tmp_path / "photos").rename(tmp_path / "elsewhere")
    assert before.matches(load(moved).fingerprint)
    for change in (
        lambda: (moved / "a" / "000.png").rename(moved / "a" / "900.png"),
        lambda: (moved / "a" / "900.png").rename(moved / "b" / "900.png"),
        lambda: save_image(moved / "a" / "000.png", (9, 9, 9)),
    ):
        change()
        assert not before.matches(load(moved).fingerprint)
    (moved / "b" / "900.png").unlink()
    assert before.matches(load(moved).fingerprint)


def test_the_fingerprint_depends_on_which_images_are_tested(tmp_path: Path) -> None:
    for name in "ab":
        for part in ("train", "test"):
            fill(tmp_path / part / name, 6, 1)
    before = load(tmp_path)
    (tmp_path / "test" / "a" / "000.png").rename(tmp_path / "train" / "a" / "900.png")
    assert not before.matches(load(tmp_path).fingerprint)


def test_a_relative_path_is_relative_to_the_data_root(tmp_path: Path) -> None:
    for name in "ab":
        fill(tmp_path / "photos" / name, 5, 9)
    assert load(Path("photos"), tmp_path).classes == ("a", "b")


@pytest.mark.parametrize("test", ["test", "val"])
def test_existing_splits_are_used(tmp_path: Path, test: str) -> None:
    for name, red in (("a", 10), ("b", 20)):
        fill(tmp_path / "train" / name, 6, red)
        fill(tmp_path / test / name, 2, red + 1)
    found = load(tmp_path)
    assert numbers(found.train.images) == [*range(6), *range(6)]
    assert found.test.images[:, 0, 0, 0].tolist() == [11, 11, 21, 21]
    assert found.test.labels.tolist() == [0, 0, 1, 1]
    assert found.mean == pytest.approx((15 / 255, 2.5 / 255, 0.0))


def test_the_folder_test_is_preferred_to_val(tmp_path: Path) -> None:
    for name in "ab":
        fill(tmp_path / "train" / name, 6, 1)
        fill(tmp_path / "test" / name, 2, 2)
        fill(tmp_path / "val" / name, 3, 3)
    assert load(tmp_path).test.images[:, 0, 0, 0].tolist() == [2] * 4


def test_a_train_folder_needs_no_test_folder(tmp_path: Path) -> None:
    for name in "ab":
        fill(tmp_path / "train" / name, 10, 1)
    found = load(tmp_path)
    assert (len(found.train), len(found.test)) == (20, 0)


def test_train_can_be_a_class(tmp_path: Path) -> None:
    fill(tmp_path / "train", 5, 1)
    fill(tmp_path / "train" / "steam", 5, 1)
    fill(tmp_path / "plane", 5, 2)
    found = load(tmp_path)
    assert found.classes == ("plane", "train")
    assert len(found.train) + len(found.test) == 15


NOT_UTF8 = os.fsdecode(b"K\xe4se")


def test_a_class_whose_name_is_not_utf8_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "a", 5, 1)
    fill(tmp_path / NOT_UTF8, 5, 1)
    with pytest.raises(DataError, match=r"K\\xe4se has a name that is not UTF-8; rename it"):
        load(tmp_path)


def test_a_file_that_is_passed_over_can_be_named_whatever_its_name(tmp_path: Path) -> None:
    for name in "ab":
        fill(tmp_path / name, 5, 1)
        (tmp_path / name / f"{NOT_UTF8}.txt").write_text("not an image")
        (tmp_path / name / f"{NOT_UTF8}.png").write_text("not an image")
    passed_over = load(tmp_path).passed_over
    assert passed_over is not None
    assert passed_over.count("K\\xe4se") == 4
    assert passed_over.encode()


def test_hidden_files_are_ignored_others_counted_and_all_image_suffixes_are_read(
    tmp_path: Path,
) -> None:
    for name in "ab":
        for suffix in ("png", "JPG", "jpeg", "webp", "PNG", "JPEG"):
            fill(tmp_path / name / suffix, 1, 1, suffix)
        (tmp_path / name / ".hidden.png").write_text("not an image")
        (tmp_path / name / ".trash").mkdir()
        (tmp_path / name / ".trash" / "old.png").write_text("not an image")
        (tmp_path / name / "Thumbs.db").write_text("not an image")
    (tmp_path / ".git").mkdir()
    (tmp_path / "readme.txt").write_text("what these are")
    found = load(tmp_path)
    assert found.classes == ("a", "b")
    assert len(found.train) == 12
    assert found.passed_over is not None
    assert "passed over: 2 without an image suffix: " in found.passed_over
    assert str(tmp_path / "b" / "Thumbs.db") in found.passed_over


def damage(*paths: Path) -> None:
    for path in paths:
        path.write_bytes(path.read_bytes()[:60])


def test_images_that_cannot_be_read_are_passed_over_counted_and_five_of_them_named(
    tmp_path: Path,
) -> None:
    for name in "ab":
        fill(tmp_path / "train" / name, 12, 1)
        fill(tmp_path / "test" / name, 3, 1)
    whole = load(tmp_path)
    damaged = [tmp_path / "train" / "a" / f"{number:03}.png" for number in (0, 2, 4, 6, 8, 9)]
    damage(*damaged, tmp_path / "test" / "b" / "001.png")
    found = load(tmp_path)
    assert numbers(found.train.images) == [1, 3, 5, 7, 10, 11, *range(12)]
    assert found.train.labels.tolist() == [0] * 6 + [1] * 12
    assert numbers(found.test.images) == [0, 1, 2, 0, 2]
    assert found.test.labels.tolist() == [0, 0, 0, 1, 1]
    assert found.passed_over is not None
    assert "passed over: 7 that cannot be read: " in found.passed_over
    assert [str(path) in found.passed_over for path in damaged] == [True] * 5 + [False]
    assert found.passed_over.endswith("; and 2 more")
    # Another split than with all images, so a run is not continued with these.
    assert not whole.matches(found.fingerprint)


def unreadable(folder: Path) -> None:
    fill(folder / "b", 5, 1)
    damage(folder / "b" / "003.png")


def untestable(folder: Path) -> None:
    for name in "ab":
        fill(folder / "train" / name, 5, 1)
        fill(folder / "test" / name, 1, 1)
    damage(folder / "test" / "b" / "000.png")


def untested(folder: Path) -> None:
    fill(folder / "b", 1, 1)
    fill(folder / "train" / "b", 5, 1)
    fill(folder / "train" / "a", 5, 1)
    fill(folder / "test" / "a", 5, 1)


def empty_test(folder: Path) -> None:
    untested(folder)
    (folder / "test" / "b").mkdir()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: None, "only one class (a)"),
        (lambda folder: (folder / "b").mkdir(), "class b has too few images"),
        (lambda folder: fill(folder / "b", 4, 1), "4 of at least 5"),
        (unreadable, "class b has 4 readable images to train on, of at least 5: "),
        (unreadable, "b/003.png cannot be read"),
        (untestable, "class b has 0 readable images to test on, of at least 1: "),
        (untested, "class b has a folder"),
        (empty_test, "class b has no images"),
    ],
)
def test_a_faulty_folder_is_reported_in_one_sentence(
    tmp_path: Path, change: object, message: str
) -> None:
    fill(tmp_path / "a", 5, 1)
    assert callable(change)
    change(tmp_path)
    with pytest.raises(DataError) as caught:
        load(tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_folder_and_a_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no folders of images"):
        load(tmp_path)
    for path in (tmp_path / "nowhere", Path(__file__)):
        with pytest.raises(DataError, match="is not a directory"):
            load(path)
