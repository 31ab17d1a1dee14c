"""Enlarged images are told from photographs by the detail they lack."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from training.data.survey import detail_ratios, effective_side, survey_folder
from training.errors import DataError

IMAGES = 6


def scene(side: int, seed: int) -> Image.Image:
    """Noise with the spectrum of photographs: amplitude falls as the inverse of the frequency."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    frequency[0, 0] = 1.0
    phases = np.exp(2j * np.pi * rng.random(frequency.shape))
    pixels = np.fft.irfft2(phases / frequency, (side, side))
    pixels = 128 + 50 * (pixels - pixels.mean()) / pixels.std()
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert("RGB")


def as_jpeg(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return Image.open(file)


def found(images: list[Image.Image]) -> int | None:
    return effective_side([detail_ratios(image) for image in images])


@pytest.mark.parametrize("method", list(Image.Resampling)[:3])
@pytest.mark.parametrize(("before", "after"), [(32, 128), (32, 256), (32, 224), (64, 256)])
def test_enlarged_images_show_the_side_they_had(
    method: Image.Resampling, before: int, after: int
) -> None:
    images = [as_jpeg(scene(before, seed).resize((after, after), method)) for seed in range(IMAGES)]
    side = found(images)
    assert side is not None
    assert side <= before
    assert before == 64 or side == 32


@pytest.mark.parametrize("side", [96, 256, 700])
def test_photographs_of_any_size_have_detail_at_their_own_side(side: int) -> None:
    assert found([as_jpeg(scene(side, seed)) for seed in range(IMAGES)]) is None


def test_a_few_enlarged_images_and_blank_ones_decide_nothing() -> None:
    enlarged = [scene(32, seed).resize((256, 256)) for seed in range(2)]
    assert found([*enlarged, *(scene(256, seed) for seed in range(4))]) is None
    blank = Image.new("RGB", (256, 256), (90, 90, 90))
    assert detail_ratios(blank) == {}
    assert found([blank] * 3) is None


def test_a_survey_names_the_side_before_the_enlargement(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(IMAGES):
            large = scene(32, number).resize((256, 300), Image.Resampling.BICUBIC)
            large.save(tmp_path / name / f"{number}.png")
    (tmp_path / "a" / "broken.png").write_bytes(b"no image")
    survey = survey_folder(tmp_path)
    assert (survey.side, survey.enlarged_from) == (256, 32)
    assert survey.counts == {"a": IMAGES + 1, "b": IMAGES}


def test_a_folder_of_heic_images_is_surveyed_in_a_new_process(tmp_path: Path) -> None:
    """Where no other image was decoded before, Pillow does not know the format yet."""
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(5):
            heic = pillow_heif.from_pillow(scene(64, number))
            heic.save(tmp_path / name / f"{number}.heic")
    code = f"""
from pathlib import Path
from training.data.survey import survey_folder
print(survey_folder(Path({str(tmp_path)!r})).side)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("64\n", "")


def test_images_that_cannot_be_read_are_passed_over_whatever_is_wrong(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(5):
            scene(48, number).save(tmp_path / name / f"{number}.png")
    avif = io.BytesIO()
    scene(64, 0).save(avif, "AVIF")
    (tmp_path / "a" / "half.avif").write_bytes(avif.getvalue()[:300])
    huge = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", len(huge) - 4) + huge + struct.pack(">I", zlib.crc32(huge))
    (tmp_path / "a" / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)
    assert survey_folder(tmp_path).side == 48


def test_if_no_image_can_be_read_the_first_ones_fault_is_told(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(5):
            (tmp_path / name / f"{number}.jpg").write_bytes(b"%PDF-1.7")
    message = r"has no image that can be read: .*0\.jpg cannot be read as an image: This is a PDF"
    with pytest.raises(DataError, match=message):
        survey_folder(tmp_path)
