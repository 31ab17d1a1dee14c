"""A cache keeps whole views for one teacher and one augmentation, and gives back nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from offramp.errors import WriteError
from training.recipes.schema import DataRecipe
from training.teachers.cache import ViewCache
from training.teachers.key import TrainingImages, key_content

LOGITS = torch.arange(2 * 5 * 3).view(2, 5, 3).half()
DATA = DataRecipe(name="digits", held_out=100)


def content(data: DataRecipe = DATA, **teacher: Any) -> dict[str, Any]:
    images = TrainingImages(data, 5, 16, 16)
    return key_content(images, {"weights": "0" * 64, **teacher}, exits=2, classes=3)


def refuse(sentence: str) -> None:
    raise AssertionError(sentence)


def test_a_stored_view_is_read_back_with_what_its_key_is_made_of_beside_it(tmp_path: Path) -> None:
    cache = ViewCache(tmp_path, content())
    assert cache.read(3, refuse) is None
    cache.write(3, LOGITS)
    stored = ViewCache(tmp_path, content()).read(3, refuse)
    assert stored is not None
    assert torch.equal(stored, LOGITS)
    assert cache.path(3).name == "view-03.safetensors"
    assert json.loads((cache.directory / "key.json").read_text()) == content()
    assert sorted(p.name for p in cache.directory.iterdir()) == ["key.json", cache.path(3).name]


def test_a_view_takes_two_bytes_for_each_logit(tmp_path: Path) -> None:
    assert ViewCache(tmp_path, content()).view_bytes == 2 * 5 * 3 * 2


@pytest.mark.parametrize(
    "other",
    [
        content(weights="1" * 64),
        content(precision="bf16"),
        content(DATA.model_copy(update={"padding": 2})),
        content(DATA.model_copy(update={"autoaugment": "cifar10"})),
        content(DATA.model_copy(update={"held_out": 101})),
        content(DATA.model_copy(update={"held_out_seed": 1})),
    ],
)
def test_another_teacher_augmentation_or_split_has_another_key(other: dict[str, Any]) -> None:
    first, second = ViewCache(Path(), content()), ViewCache(Path(), other)
    assert first.directory != second.directory


def test_the_same_content_has_the_same_key_in_every_version() -> None:
    """A change of this key makes all caches useless; if the logits change, raise `FORMAT` instead."""
    expected = "64bdb0cef32bc0583fc75492dc64033c5935dae361276041bf577b8be7bd4b19"
    assert ViewCache(Path(), content()).key == expected


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def make_float32(path: Path) -> None:
    save_file({"logits": load_file(path)["logits"].float()}, path)


def lose_a_sample(path: Path) -> None:
    save_file({"logits": load_file(path)["logits"][:, 1:].contiguous()}, path)


def rename(path: Path) -> None:
    save_file({"features": load_file(path)["logits"]}, path)


def come_from_another_view(path: Path) -> None:
    path.write_bytes(path.with_name("view-01.safetensors").read_bytes())


@pytest.mark.parametrize(
    "damage",
    [cut, empty, flip_a_bit, make_float32, lose_a_sample, rename, come_from_another_view],
)
def test_a_damaged_or_strange_file_is_reported_in_one_sentence_and_not_used(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    cache = ViewCache(tmp_path, content())
    cache.write(0, LOGITS)
    cache.write(1, LOGITS + 1)
    damage(cache.path(0))
    said: list[str] = []
    assert cache.read(0, said.append) is None
    assert len(said) == 1
    assert "is computed again" in said[0]
    assert cache.read(1, refuse) is not None


def test_a_full_disk_leaves_no_half_view(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    cache = ViewCache(tmp_path, content())
    monkeypatch.setattr("training.teachers.cache.save_file", full)
    with pytest.raises(WriteError, match="No space left"):
        cache.write(0, LOGITS)
    assert [path.name for path in cache.directory.iterdir()] == ["key.json"]
