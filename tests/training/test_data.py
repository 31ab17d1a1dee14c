"""Data is what it claims to be, batches follow from the seed, and the held-out split is kept out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from training.data.augment import crop_and_flip
from training.data.batches import Resident
from training.data.cifar import FILE_MD5, FOLDER
from training.data.dataset import Split, hold_out, load_dataset
from training.errors import DataError
from training.recipe import DataRecipe


def test_digits_are_rgb_bytes_of_sixteen_pixels() -> None:
    digits = load_dataset("digits", Path("unused"))
    assert digits.train.images.shape == (1397, 16, 16, 3)
    assert digits.train.images.dtype == np.uint8
    assert digits.test.images.shape == (400, 16, 16, 3)
    assert (digits.train.images.min(), digits.train.images.max()) == (0, 255)


def test_missing_cifar_says_what_to_fetch_and_where_it_goes(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_dataset("cifar100", tmp_path)
    assert "cifar-100-python.tar.gz" in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_damaged_cifar_file_is_refused_before_it_is_unpickled(tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    folder.mkdir()
    for name in FILE_MD5:
        (folder / name).write_bytes(b"cos\nsystem\n(S'touch hacked'\ntR.")
    with pytest.raises(DataError, match="md5"):
        load_dataset("cifar100", tmp_path)


def test_a_download_that_fails_or_gives_something_else_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.tar.gz"
    other.write_bytes(b"not the archive")
    for url, says in ((f"file://{tmp_path}/nothing", "could not be"), (f"file://{other}", "md5")):
        monkeypatch.setattr("training.data.cifar.URL", url)
        with pytest.raises(DataError, match=says):
            load_dataset("cifar100", tmp_path / "data", download=True)
    assert list((tmp_path / "data").iterdir()) == []


def test_cifar_is_read_as_published(cifar_root: Path) -> None:
    cifar = load_dataset("cifar100", cifar_root)
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
    with pytest.raises(DataError, match="class 1"):
        hold_out(np.array([0, 0, 0, 0, 1]), 2, seed=0)


def test_every_augmented_image_is_a_shifted_and_perhaps_mirrored_original() -> None:
    images = torch.randint(1, 256, (40, 6, 6, 3), dtype=torch.uint8)
    out = crop_and_flip(images, 2, True, torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(images, (0, 0, 2, 2, 2, 2))
    mirrored = 0
    for original, cropped in zip(padded, out, strict=True):
        crops = [original[i : i + 6, j : j + 6] for i in range(5) for j in range(5)]
        straight = any(torch.equal(cropped, crop) for crop in crops)
        flipped = any(torch.equal(cropped, crop.flip(1)) for crop in crops)
        assert straight or flipped
        mirrored += flipped and not straight
    assert 10 <= mirrored <= 30


def test_no_padding_and_no_flip_leave_images_alone() -> None:
    images = torch.randint(0, 256, (4, 5, 7, 3), dtype=torch.uint8)
    assert torch.equal(crop_and_flip(images, 0, False, torch.Generator()), images)


def test_an_epochs_batches_follow_from_seed_and_epoch() -> None:
    images = np.arange(20 * 4 * 4 * 3, dtype=np.uint8).reshape(20, 4, 4, 3)
    data = Resident.of(Split(images, np.arange(20)), torch.device("cpu"))

    recipe = DataRecipe(name="digits", held_out=1, padding=1)

    def epoch(seed: int, number: int) -> list[list[int]]:
        return [b.labels.tolist() for _, b in data.shuffled(6, recipe, seed, number)]

    assert epoch(0, 1) == epoch(0, 1)
    assert epoch(0, 1) != epoch(0, 2)
    assert epoch(0, 1) != epoch(1, 1)
    seen = [label for batch in epoch(0, 1) for label in batch]
    assert len(seen) == len(set(seen)) == 18
