"""Image folders of plain colours."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from training.data.dataset import Dataset
from training.data.load import load_dataset
from training.recipes.schema import DataRecipe


def save_image(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (40, 36)) -> None:
    """Save an image of one colour, and make its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def fill(folder: Path, count: int, red: int, suffix: str = "png") -> None:
    """Save `count` images whose green is their number."""
    for number in range(count):
        save_image(folder / f"{number:03}.{suffix}", (red, number, 0))


def load(directory: Path, root: Path = Path("elsewhere")) -> Dataset:
    """The folder as a data set of 32 pixels."""
    return load_dataset(DataRecipe(name="folder", path=str(directory), side=32, held_out=1), root)
