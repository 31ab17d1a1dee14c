"""Published data sets are read as published or refused; the held-out split is separate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.file_server import file_server
from training.data.cifar import FILE_MD5, FOLDER
from training.data.dataset import channel_statistics, hold_out
from training.data.load import load_dataset
from training.errors import DataError
from training.recipes.schema import DataRecipe

DIGITS = DataRecipe(name="digits", held_out=1)
CIFAR = DataRecipe(name="cifar100", held_out=1)


def test_digits_are_rgb_bytes_of_sixteen_pixels() -> None:
    digits = load_dataset(DIGITS, Path("unused"))
    assert digits.train.images.shape == (1397, 16, 16, 3)
    assert digits.train.images.dtype == np.uint8
    assert digits.test.images.shape == (400, 16, 16, 3)
    assert (digits.train.images.min(), digits.train.images.max()) == (0, 255)


def test_the_message_for_missing_cifar_names_archive_and_directory(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_dataset(CIFAR, tmp_path)
    assert "cifar-100-python.tar.gz" in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_damaged_cifar_file_is_refused_before_it_is_unpickled(tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    folder.mkdir()
    for name in FILE_MD5:
        (folder / name).write_bytes(b"cos\nsystem\n(S'touch hacked'\ntR.")
    with pytest.raises(DataError, match="md5"):
        load_dataset(CIFAR, tmp_path)


def test_a_failed_download_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with file_server() as server:
        server.bodies["/other.tar.gz"] = b"not the archive"
        for path, message in (("/none", "was answered with status 404"), ("/other.tar.gz", "md5")):
            monkeypatch.setattr("training.data.cifar.URL", server.url + path)
            with pytest.raises(DataError, match=message):
                load_dataset(CIFAR, tmp_path / "data", download=True)
    assert list((tmp_path / "data").iterdir()) == []


def test_a_data_root_that_cannot_be_made_is_reported_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(DataError, match="cannot be stored in") as caught:
        load_dataset(CIFAR, tmp_path / "data", download=True)
    assert "\n" not in str(caught.value)


def test_a_download_does_not_replace_an_existing_folder(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "mine.txt").write_text("keep me")
    with pytest.raises(DataError, match="move it away"):
        load_dataset(CIFAR, tmp_path, download=True)
    assert [path.name for path in tmp_path.rglob("*")] == [FOLDER, "mine.txt"]


def test_cifar_is_read_as_published(cifar_root: Path) -> None:
    cifar = load_dataset(CIFAR, cifar_root)
    assert cifar.train.images.shape == (50000, 32, 32, 3)
    assert cifar.test.images.shape == (10000, 32, 32, 3)
    assert np.bincount(cifar.test.labels).tolist() == [100] * 100
    assert cifar.classes[69] == "rocket"
    assert cifar.mean == pytest.approx((0.5071, 0.4865, 0.4409), abs=1e-4)
    assert cifar.std == pytest.approx((0.2673, 0.2564, 0.2762), abs=1e-4)


def test_held_out_is_balanced_disjoint_and_fixed_by_its_seed() -> None:
    labels = np.repeat(np.arange(10), 50)
    kept, held_out = hold_out(labels, 103, seed=3)
    assert np.intersect1d(kept, held_out).size == 0
    assert np.union1d(kept, held_out).tolist() == list(range(500))
    assert np.bincount(labels[held_out]).tolist() == [11] * 3 + [10] * 7
    assert np.array_equal(hold_out(labels, 103, seed=3)[1], held_out)
    assert not np.array_equal(hold_out(labels, 103, seed=4)[1], held_out)


def test_holding_out_a_whole_class_is_refused() -> None:
    with pytest.raises(DataError, match="class 1, which has only 1 samples"):
        hold_out(np.repeat([0, 1], [400, 1]), 300, seed=0)
    with pytest.raises(DataError, match="class plane, which has only 1 samples"):
        hold_out(np.repeat([0, 1], [400, 1]), 300, seed=0, classes=("ship", "plane"))


def test_with_small_classes_the_held_out_numbers_are_proportional_to_the_sizes() -> None:
    labels = np.repeat(np.arange(3), [600, 300, 10])
    kept, held_out = hold_out(labels, 91, seed=0)
    assert np.bincount(labels[held_out]).tolist() == [60, 30, 1]
    assert np.bincount(labels[kept]).tolist() == [540, 270, 9]


def test_channel_statistics_are_mean_and_deviation_of_every_channel() -> None:
    images = np.random.default_rng(0).integers(0, 200, (1500, 4, 3, 3), dtype=np.uint8)
    pixels = images.reshape(-1, 3) / 255.0
    mean, std = channel_statistics(images)
    assert mean == pytest.approx(tuple(pixels.mean(0)), rel=1e-12)
    assert std == pytest.approx(tuple(pixels.std(0)), rel=1e-12)


def test_a_channel_that_is_the_same_everywhere_can_be_divided_by_its_deviation() -> None:
    images = np.zeros((4, 3, 3, 3), np.uint8)
    images[:, :, 0] = 200
    images[..., 2] = 7
    mean, std = channel_statistics(images)
    assert mean[2] == pytest.approx(7 / 255)
    assert std[2] == 1 / 255
    assert std[0] > 0.3
