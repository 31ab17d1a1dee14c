"""Gives a bundle a policy chosen on more photographs than training held out, for `benchmarks.peers`.

    python -m benchmarks.grocery.retune BUNDLE data/grocery --work work-groceries

As in `benchmarks.grocery`, the policy is chosen on val and a random half of the test split: the cheapest that
loses at most half a point. --work gets `bundle` with that policy, and `judged` with links to the pictures of
the other half, which nothing was trained or chosen on. Prints what the policy does on them, beside the last
network alone.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from benchmarks.grocery.measure import Evaluation
from benchmarks.grocery.pictures import link_by_class, read_folder
from benchmarks.grocery.policies import Aim, calibration_table, judge
from benchmarks.grocery.tuned import write_tuned
from exports.bundle.reader import load_bundle


def retune(path: Path, photos: Path, work: Path, aim: Aim, seed: int) -> dict[str, Any]:
    """Write the tuned bundle and the folder of pictures to judge it on; what its policy does on those."""
    bundle = load_bundle(path)
    labels, side = bundle.manifest.labels, bundle.manifest.input.height
    val, test = (read_folder(photos / name, labels, side) for name in ("val", "test"))
    pictures = Evaluation(val, test, work / "logits", seed)
    logits, tuned_on = pictures.calibration(bundle)["val and half of test"]
    shutil.rmtree(work / "bundle", ignore_errors=True)
    chosen = write_tuned(bundle, calibration_table(logits, tuned_on, aim), aim, work / "bundle")
    link_by_class(test, pictures.judged_on, labels, work / "judged")
    costs = [entry.macs for entry in bundle.manifest.exits]
    return {
        "tuned_on": len(tuned_on),
        "certified": chosen.policy.certificate is not None,
        **judge(chosen.policy, chosen.scaling, pictures.judged(bundle), costs),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Write the bundle, and print what its policy does."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("photos", type=Path, help="the folder with val and test")
    parser.add_argument("--work", type=Path, default=Path("work-groceries"))
    parser.add_argument("--aim", choices=get_args(Aim), default="accuracy")
    parser.add_argument("--seed", type=int, default=0, help="of the halves of the test split")
    given = parser.parse_args(argv)
    print(json.dumps(retune(given.bundle, given.photos, given.work, given.aim, given.seed)))


if __name__ == "__main__":
    main()
