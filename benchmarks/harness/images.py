"""The images that a bundle is measured with, and the bundle's name in tables."""

from __future__ import annotations

import argparse
import io
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.harness.load import pack
from benchmarks.harness.server import generated_images, png
from exports.bundle.reader import Bundle
from offramp.errors import OfframpError

IMAGES = 2000
JPEG_QUALITY = 90


@dataclass
class Images:
    """Files to classify, the same packed for the load generator, their classes if known, and what they are in
    words."""

    files: list[bytes]
    labels: list[int] | None
    packed: Path
    about: str


def add_photos(parser: argparse.ArgumentParser) -> None:
    """The options that choose photographs in place of the bundle's test split."""
    parser.add_argument("--photos", type=Path, help="subfolders named after the bundle's classes")
    parser.add_argument("--photo-side", type=int, default=1000, help="pixels of the longer side")


def images_for(bundle: Bundle, arguments: argparse.Namespace, packed: Path) -> Images:
    """The images that the command line names: `--photos`, else the test split below `--data`."""
    if arguments.photos is None:
        return test_images(bundle, arguments.data, packed)
    return photographs(bundle, arguments.photos, arguments.photo_side, packed)


def test_images(bundle: Bundle, root: Path | None, packed: Path) -> Images:
    """IMAGES of the test split of the bundle's data set below `root`, else generated ones. Those of a folder
    are its files as they are, others PNG."""
    files, labels, about = generated_images(bundle.manifest.input, 200), None, "generated"
    if root is not None:
        try:
            files, labels = _of_data_set(bundle, root)
            about = "test split"
        except (OfframpError, KeyError, ValueError) as error:
            print(f"using generated images: {error}", file=sys.stderr)
    pack(files, packed)
    return Images(files, labels, packed, about)


def photographs(bundle: Bundle, folder: Path, side: int, packed: Path) -> Images:
    """The images in the subfolders of `folder`, which are named after classes, in random order, as JPEG of
    quality JPEG_QUALITY whose longer side has `side` pixels, as cameras and browsers send them."""
    # Imported here because it loads torch.
    from exports.photos import label_positions, list_photos

    listed = list_photos(folder)
    positions = label_positions(listed, bundle.manifest.labels)
    # By class, a slow server would get other images than a fast one.
    order = np.random.default_rng(0).permutation(len(listed.files)).tolist()
    files = [_as_sent(listed.files[n], side) for n in order]
    labels = None if positions is None else positions[order].tolist()
    pack(files, packed)
    size = statistics.median(map(len, files)) / 1000
    about = f"{len(files)} photographs, JPEG of {side} pixels and {size:.0f} kB (median)"
    return Images(files, labels, packed, about)


def _as_sent(path: Path, side: int) -> bytes:
    with Image.open(path) as image:
        scale = side / max(image.size)
        size = round(image.width * scale), round(image.height * scale)
        resized = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    file = io.BytesIO()
    resized.save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()


def _of_data_set(bundle: Bundle, root: Path) -> tuple[list[bytes], list[int]]:
    # Imported here because it loads torch.
    from training.data.image_folder import list_images
    from training.data.load import load_dataset
    from training.recipes.schema import DataRecipe

    data = DataRecipe.model_validate(bundle.manifest.provenance.recipe["data"])
    if data.name != "folder":
        test = load_dataset(data, root).test.take(np.arange(IMAGES))
        return [png(pixels) for pixels in test.images], test.labels.tolist()
    assert data.path is not None
    listed = list_images(root / data.path).test
    if listed is None:
        raise ValueError(f"{root / data.path} has no test split")
    order = {name: number for number, name in enumerate(bundle.manifest.labels)}
    found = [(path, order[name]) for name, paths in listed.items() for path in paths]
    # Every class is among them.
    some = found[:: -(-len(found) // IMAGES)]
    return [path.read_bytes() for path, _ in some], [number for _, number in some]


def label(bundle: Bundle) -> str:
    """The bundle's name with its precision."""
    return f"{bundle.manifest.name} {bundle.manifest.precision}"
