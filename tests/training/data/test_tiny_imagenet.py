"""Tiny ImageNet is read as published and decoded once; a damaged file is named."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.file_server import FileServer, file_server
from training.data import tiny_imagenet
from training.data.dataset import Dataset
from training.data.load import load_dataset
from training.data.tiny_imagenet import CACHE, FOLDER
from training.errors import DataError
from training.recipes.schema import DataRecipe

WNIDS = ("n02124075", "n01443537", "n03126707")
WORDS = (
    "n00001740\tentity\n"
    "n01443537\tgoldfish, Carassius auratus\n"
    "n02124075\tcrane\n"
    "n03126707\tcrane, lifting device\n"
)
RECIPE = DataRecipe(name="tiny-imagenet", held_out=1)


def save(path: Path, colour: object, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (64, 64), colour).save(path, "JPEG", quality=95)


def publish(root: Path) -> Path:
    """Write the published layout: 3 classes of 4 training and 2 validation images."""
    folder = root / FOLDER
    for wnid in WNIDS:
        level = 20 * sorted(WNIDS).index(wnid)
        for number in range(4):
            save(folder / "train" / wnid / "images" / f"{wnid}_{number}.JPEG", (level, 0, 100))
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text("")
    lines = []
    for number in range(6):
        save(folder / "val" / "images" / f"val_{number}.JPEG", 40 * number, "L")
        lines.append(f"val_{number}.JPEG\t{WNIDS[number % 3]}\t0\t0\t62\t62\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    (folder / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in WNIDS))
    (folder / "words.txt").write_text(WORDS)
    save(folder / "test" / "images" / "test_0.JPEG", (0, 0, 0))
    return folder


def load(root: Path, download: bool = False) -> Dataset:
    return load_dataset(RECIPE, root, download)


def test_it_is_read_as_published_with_validation_as_test(tmp_path: Path) -> None:
    publish(tmp_path)
    found = load(tmp_path)
    assert found.name == "tiny-imagenet"
    assert found.classes == ("goldfish", "crane (n02124075)", "crane (n03126707)")
    assert found.train.images.shape == (12, 64, 64, 3)
    assert found.train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert found.train.images[:, 0, 0, 0].tolist() == pytest.approx(
        [0] * 4 + [20] * 4 + [40] * 4, abs=3
    )
    assert found.test.labels.tolist() == [1, 0, 2, 1, 0, 2]
    grey = found.test.images[:, 0, 0].astype(int)
    assert grey[:, 0].tolist() == pytest.approx([0, 40, 80, 120, 160, 200], abs=2)
    assert (grey == grey[:, :1]).all()
    assert found.mean == pytest.approx((20 / 255, 0, 100 / 255), abs=0.01)


def test_the_message_for_missing_data_names_address_and_directory(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load(tmp_path)
    assert "http://cs231n.stanford.edu/tiny-imagenet-200.zip" in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "--download" in str(caught.value)


def no_decoding(*_: object) -> np.ndarray:
    raise AssertionError("decoded again")


def test_decoded_images_are_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = publish(tmp_path)
    first = load(tmp_path)
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == [
        CACHE,
        "wnids.txt",
        "words.txt",
    ]
    monkeypatch.setattr(tiny_imagenet, "read_images", no_decoding)
    second = load(tmp_path)
    assert np.array_equal(first.train.images, second.train.images)
    assert np.array_equal(first.test.images, second.test.images)


def flip_a_bit(kept: Path) -> None:
    content = bytearray(kept.read_bytes())
    content[len(content) // 2] ^= 1
    kept.write_bytes(content)


def of_other_images(kept: Path) -> None:
    save(kept.parent / "val" / "images" / "val_0.JPEG", (9, 9, 9))


def as_a_pickle(kept: Path) -> None:
    with np.load(kept) as arrays:
        key = arrays["key"]
    np.savez(kept, key=key, images=np.array([{"not": "pixels"}], dtype=object))


def of_another_shape(kept: Path) -> None:
    with np.load(kept) as arrays:
        key, images = arrays["key"], arrays["images"]
    np.savez(kept, key=key, images=images[1:])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda kept: kept.write_bytes(kept.read_bytes()[:5000]),
        lambda kept: kept.write_bytes(b""),
        flip_a_bit,
        of_other_images,
        as_a_pickle,
        of_another_shape,
    ],
)
def test_a_damaged_or_outdated_cache_is_replaced(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    folder = publish(tmp_path)
    load(tmp_path)
    spoil(folder / CACHE)
    spoilt = (folder / CACHE).read_bytes()
    found = load(tmp_path)
    assert (folder / CACHE).read_bytes() != spoilt
    (folder / CACHE).unlink()
    assert np.array_equal(load(tmp_path).test.images, found.test.images)


def test_images_are_loaded_even_if_the_cache_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = publish(tmp_path)

    def disk_is_full(file: object, **_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", disk_is_full)
    assert len(load(tmp_path).train) == 12
    assert "No space left" in capsys.readouterr().err
    assert not list(folder.glob("*decoded*"))


def cut(name: str, length: int) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:length])


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (remove("wnids.txt"), "wnids.txt"),
        (cut("wnids.txt", 0), "wnids.txt is empty"),
        (remove("words.txt"), "words.txt"),
        (cut("words.txt", 40), "words.txt has no name for n02124075"),
        (remove("val/val_annotations.txt"), "val_annotations.txt"),
        (cut("val/val_annotations.txt", 40), "val_annotations.txt has the line"),
        (cut("val/val_annotations.txt", 62), "val_annotations.txt has 0 images of n03126707"),
        (remove("val/images/val_3.JPEG"), "val_3.JPEG cannot be read"),
        (cut("val/images/val_3.JPEG", 300), "val_3.JPEG cannot be read"),
        (
            cut("train/n01443537/images/n01443537_2.JPEG", 400),
            "n01443537_2.JPEG cannot be read",
        ),
        (
            remove("train/n01443537/images/n01443537_2.JPEG"),
            "train has 3 images of n01443537",
        ),
        (lambda folder: shutil.rmtree(folder / "train"), "train has 0 images of"),
    ],
)
def test_a_damaged_file_is_named_in_one_sentence_and_nothing_is_cached(
    tmp_path: Path, spoil: Callable[[Path], None], message: str
) -> None:
    folder = publish(tmp_path)
    spoil(folder)
    with pytest.raises(DataError) as caught:
        load(tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(folder.glob("*decoded*"))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A server of the published archive, here of the small tree, whose md5 is the expected one."""
    publish(tmp_path / "published")
    archive = Path(shutil.make_archive(str(tmp_path / "tiny"), "zip", tmp_path / "published"))
    content = archive.read_bytes()
    monkeypatch.setattr(tiny_imagenet, "ARCHIVE_MD5", hashlib.md5(content).hexdigest())
    with file_server() as server:
        monkeypatch.setattr(tiny_imagenet, "URL", f"{server.url}/tiny.zip")
        server.bodies["/tiny.zip"] = content
        yield server


def test_a_download_leaves_the_images_and_nothing_else(tmp_path: Path, server: FileServer) -> None:
    assert len(load(tmp_path / "data", download=True).train) == 12
    assert [path.name for path in (tmp_path / "data").iterdir()] == [FOLDER]


def test_a_failed_download_leaves_nothing(tmp_path: Path, server: FileServer) -> None:
    content = server.bodies["/tiny.zip"]
    server.lengths["/tiny.zip"] = len(content)
    server.bodies["/tiny.zip"] = content[:-100]
    with pytest.raises(DataError, match="ended after"):
        load(tmp_path / "data", download=True)
    server.lengths.clear()
    with pytest.raises(DataError, match="md5"):
        load(tmp_path / "data", download=True)
    server.bodies.clear()
    with pytest.raises(DataError, match="was answered with status 404"):
        load(tmp_path / "data", download=True)
    assert list((tmp_path / "data").iterdir()) == []
