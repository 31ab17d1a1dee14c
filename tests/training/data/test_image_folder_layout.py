"""Which folders are classes, which are splits, and which are neither."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.training.data.image_folders import fill, load, save_image
from training.data.image_folder import refuse_runs_among_images, unread_folders
from training.errors import DataError


def test_an_image_beside_the_classes_of_a_split_makes_train_no_class(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in "ab":
            fill(tmp_path / split / name, 5, 1)
    save_image(tmp_path / "train" / "preview.png", (9, 9, 9))
    found = load(tmp_path)
    assert found.classes == ("a", "b")
    assert (len(found.train), len(found.test)) == (10, 10)
    assert found.passed_over is not None
    assert "1 in no folder of a class: " in found.passed_over
    assert "preview.png" in found.passed_over


@pytest.mark.parametrize(
    "names", [("Train", "Test"), ("training", "validation"), ("test", "val"), ("valid",)]
)
def test_splits_under_other_names_are_not_taken_for_classes(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    for name in names:
        fill(tmp_path / name / "a", 5, 1)
        fill(tmp_path / name / "b", 5, 1)
    with pytest.raises(DataError, match="names of splits, not of classes") as caught:
        load(tmp_path)
    assert ", ".join(sorted(names)) in str(caught.value)


def test_folders_beside_train_that_no_run_reads_are_known(tmp_path: Path) -> None:
    fill(tmp_path / "train" / "a", 5, 1)
    for name in ("valid", "docs", ".hidden"):
        (tmp_path / name).mkdir()
    assert unread_folders(tmp_path) == ["docs", "valid"]
    for name in ("test", "val"):
        (tmp_path / name).mkdir()
    assert unread_folders(tmp_path) == ["docs", "valid"]
    assert unread_folders(tmp_path / "train") == []


def test_runs_are_not_written_among_the_classes(tmp_path: Path) -> None:
    for name in "ab":
        fill(tmp_path / "plain" / name, 1, 1)
        fill(tmp_path / "split" / "train" / name, 1, 1)
    for folder, runs in (
        ("plain", "plain/runs"),
        ("plain", "plain"),
        ("split", "split/train/runs"),
    ):
        with pytest.raises(DataError, match="give --runs a directory outside"):
            refuse_runs_among_images(tmp_path / folder, tmp_path / runs)
    refuse_runs_among_images(tmp_path / "split", tmp_path / "split" / "runs")
    refuse_runs_among_images(tmp_path / "plain", tmp_path / "plain" / ".runs")
    refuse_runs_among_images(tmp_path / "plain", tmp_path / "runs")


def test_links_to_folders_inside_a_class_are_followed_once(tmp_path: Path) -> None:
    fill(tmp_path / "photos" / "a", 5, 1)
    fill(tmp_path / "photos" / "b" / "below", 5, 1)
    fill(tmp_path / "elsewhere", 3, 1)
    b = tmp_path / "photos" / "b"
    (b / "linked").symlink_to(tmp_path / "elsewhere")
    (b / "again").symlink_to(b / "below")
    (b / "below" / "loop").symlink_to(b)
    found = load(tmp_path / "photos")
    assert np.bincount(found.train.labels).tolist() == [5, 8]
