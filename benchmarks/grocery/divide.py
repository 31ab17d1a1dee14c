"""Divides the photographs that were not trained on: some to calibrate a bundle on, others to judge it on.

    python -m benchmarks.grocery.divide data/grocery --work divided
    offramp export runs/grocery -o groceries --calibrate divided/calibrate --test divided/judged

As in `benchmarks.grocery`, temperatures and thresholds are chosen on val and a random half of the test split.
--work gets `calibrate` with links to these, and `judged` with links to the other half, which nothing was
trained or chosen on. Both have a folder for each class.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.grocery.images import ImageFiles, link_by_class, random_halves, read_folder
from exports.photos import list_photos

# Of decoded images, which are not needed here.
SIDE = 224


def divide(photos: Path, work: Path, seed: int) -> dict[str, int]:
    """Make the two folders in `work`; the number of photographs in each."""
    labels = list_photos(photos / "train").names
    val, test = (read_folder(photos / name, labels, SIDE) for name in ("val", "test"))
    both = ImageFiles(
        "both", val.files + test.files, np.concatenate([val.labels, test.labels]), SIDE
    )
    first = len(val.files)
    chosen_on, judged_on = random_halves(len(test.files), seed)
    calibrate = np.concatenate([np.arange(first), first + chosen_on])
    link_by_class(both, calibrate, labels, work / "calibrate")
    link_by_class(both, first + judged_on, labels, work / "judged")
    return {"calibrate": len(calibrate), "judged": len(judged_on)}


def main(argv: Sequence[str] | None = None) -> None:
    """Make the folders, and print how many photographs they have."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path, help="the folder with train, val and test")
    parser.add_argument("--work", type=Path, default=Path("work-groceries"))
    parser.add_argument("--seed", type=int, default=0, help="of the halves of the test split")
    given = parser.parse_args(argv)
    print(json.dumps(divide(given.photos, given.work, given.seed)))


if __name__ == "__main__":
    main()
