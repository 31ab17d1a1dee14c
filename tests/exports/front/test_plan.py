"""How many images are used, and how many of them are held out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import exports.front.plan
from exports.bundle.errors import ExportError
from exports.front.plan import AgreementGoal, held_out_count, usable
from exports.photos import PhotoFolder
from exports.tuning.statistics.binomial import proportion_bound


def folder(count: int) -> PhotoFolder:
    place = Path("photos")
    files = tuple(place / f"{number:04}.png" for number in range(count))
    return PhotoFolder(place, files, tuple(f"{number % 2}" for number in range(count)))


def test_enough_images_are_held_out_to_certify_half_of_what_is_permitted() -> None:
    goal = AgreementGoal(0.99, 0.95)
    count = held_out_count(100_000, 10, goal)
    certified_on = count // 2
    assert proportion_bound(int(0.005 * certified_on), certified_on, 0.95) <= 0.01
    assert held_out_count(100_000, 10, AgreementGoal(0.95)) < count
    assert held_out_count(100_000, 10, AgreementGoal(0.99, 0.99)) > count


def test_and_at_most_a_third_of_them_and_what_a_table_holds() -> None:
    assert held_out_count(600, 10, AgreementGoal()) == 200
    assert held_out_count(10**6, 10**5, AgreementGoal(0.999)) * 8 * 10**5 <= 1 << 28


def test_images_beyond_the_memory_are_left_out_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    assert usable(folder(200), 32, said.append).files == folder(200).files
    assert said == []
    monkeypatch.setattr(exports.front.plan, "MAX_IMAGE_BYTES", 150 * 3 * 32 * 32)
    sample = usable(folder(300), 32, said.append)
    assert len(sample.files) == 150
    assert (sample.files[0].stem, sample.files[-1].stem) == ("0000", "0299")
    assert sample.classes is not None
    assert [file.stem for file in sample.files if int(file.stem) % 2] == [
        file.stem for file, name in zip(sample.files, sample.classes, strict=True) if name == "1"
    ]
    assert said[0].startswith("150 of the 300 images are used")


def test_a_name_that_is_no_text_is_refused() -> None:
    strange = Path(os.fsdecode(b"photos/\xff.png"))
    files = (*folder(200).files, strange)
    with pytest.raises(ExportError, match=r"photos/.*udcff\.png' is not UTF-8: rename it\.$"):
        usable(PhotoFolder(Path("photos"), files, None), 32, lambda _: None)
