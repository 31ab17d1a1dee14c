"""A few hundred odd files have the pixels that Chromium shows, or are refused for a stated reason."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Browser

from offramp.errors import ImageError
from offramp.images import ImageSpec, decode
from tests.page.corpus import OddFile, corpus

MAX_PIXELS = 1_000_000
# Mean difference in levels of 255. Inks are interpolated in their table in another way.
LEVELS = 1.0
LEVELS_OF_INKS = 3.0
# The pixels of each file on white, row by row, or null where the browser shows nothing.
SHOW = """async (files) => Promise.all(files.map(async (file) => {
  const bytes = Uint8Array.from(atob(file), (c) => c.charCodeAt(0));
  const image = await createImageBitmap(new Blob([bytes])).catch(() => null);
  if (!image) return null;
  const canvas = new OffscreenCanvas(image.width, image.height);
  const pen = canvas.getContext("2d");
  pen.fillStyle = "white";
  pen.fillRect(0, 0, image.width, image.height);
  pen.drawImage(image, 0, 0);
  const { data } = pen.getImageData(0, 0, image.width, image.height);
  const text = Array.from(data, (value) => String.fromCharCode(value)).join("");
  return [image.width, image.height, btoa(text)];
}))"""

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def files() -> list[OddFile]:
    return list(corpus())


@pytest.fixture(scope="module")
def shown(browser: Browser, files: list[OddFile]) -> dict[str, Pixels | None]:
    """What Chromium shows of each file, by name."""
    contents = [base64.b64encode(file.shown or file.content).decode() for file in files]
    page = browser.new_page()
    answers = page.evaluate(SHOW, contents)
    page.close()
    return {file.name: _pixels(answer) for file, answer in zip(files, answers, strict=True)}


def _pixels(answer: tuple[int, int, str] | None) -> Pixels | None:
    if answer is None:
        return None
    width, height, data = answer
    return np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)[..., :3]


def test_the_corpus_has_hundreds_of_files(files: list[OddFile]) -> None:
    assert len(files) > 300
    assert len({file.name for file in files}) == len(files)


def test_whole_files_have_the_pixels_that_chromium_shows(
    files: list[OddFile], shown: dict[str, Pixels | None]
) -> None:
    wrong = {}
    for file in files:
        expected = shown[file.name]
        if file.damaged:
            continue
        if expected is None:
            wrong[file.name] = "Chromium shows nothing"
            continue
        try:
            found = decode(file.content, ImageSpec(*expected.shape[:2]), MAX_PIXELS)
        except ImageError as error:
            wrong[file.name] = str(error)
            continue
        difference = np.abs(found.astype(int) - expected).mean()
        if difference > (LEVELS_OF_INKS if "CMYK" in file.name else LEVELS):
            wrong[file.name] = f"{difference:.1f} levels"
    assert wrong == {}


def test_files_of_which_a_part_is_missing_are_damaged_at_every_size(files: list[OddFile]) -> None:
    verdicts = {}
    for file in files:
        if file.damaged:
            form = file.name.split()[0].replace("WEBP", "WebP")
            for side in (8, 224):
                with pytest.raises(ImageError) as caught:
                    decode(file.content, ImageSpec(side, side), MAX_PIXELS)
                if str(caught.value) != f"The {form} file is damaged or incomplete.":
                    verdicts[file.name] = str(caught.value)
    assert verdicts == {}
