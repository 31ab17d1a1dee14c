"""Cuts two image folders for `benchmarks/photographs.py` out of Tiny ImageNet's validation images.

    python -m benchmarks.harness.tiny_folders data/tiny-imagenet-200 folders

folders/tiny-a and folders/tiny-b have 40 classes each, none in common: 40 of a class's 50 images in
`train`, 10 in `test`. They have 64 pixels, so they are small images, not photographs.
"""

from __future__ import annotations

import argparse
import shutil
from collections import defaultdict
from pathlib import Path

CLASSES, TRAIN, IMAGES = 40, 40, 50
NAMES = ("tiny-a", "tiny-b")


def main() -> None:
    """Copy the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="the directory tiny-imagenet-200")
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    files = by_class(arguments.source)
    classes = sorted(files)
    for k, name in enumerate(NAMES):
        # Every fifth class, so that both folders have animals and things: neighbours are alike.
        for label in classes[k::5][:CLASSES]:
            for number, file in enumerate(files[label]):
                split = "train" if number < TRAIN else "test"
                target = arguments.target / name / split / label
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target / file.name)


def by_class(source: Path) -> dict[str, list[Path]]:
    """The validation images of every class, in the order of val_annotations.txt."""
    files: dict[str, list[Path]] = defaultdict(list)
    for line in (source / "val" / "val_annotations.txt").read_text("utf-8").splitlines():
        name, label, *_ = line.split("\t")
        files[label].append(source / "val" / "images" / name)
    return {label: paths[:IMAGES] for label, paths in files.items()}


if __name__ == "__main__":
    main()
