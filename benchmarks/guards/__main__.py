"""What acts when images arrive changed: drift alarms and shadow checks of a bundle with four exits.

    OFFRAMP_DATA=data python -m benchmarks.guards          # about ten minutes on one core

The test images of CIFAR-100 run through the bundle, as they are and corrupted in five ways at five
severities. Then requests for them are simulated in random order, until a drift alarm and until the first
raise of a threshold. A server gets the images of one kind as well, and the simulation beside it. Logits are
kept in `--work`, 16 MB for each set of images, and an interrupted run goes on with them. Writes a JSON file
and a picture; `--write-docs` puts the tables into the guide and measures nothing.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.bundles import RESNET18_INT8
from benchmarks.guards.logits import LogitsCache
from benchmarks.guards.section import draw, section
from benchmarks.guards.server import measure
from benchmarks.guards.simulation import Exits, raises_of, replayed
from benchmarks.harness.corruptions import SEVERITIES, Images
from benchmarks.harness.docs import DOCS, publish
from benchmarks.promises.drift import delay
from exports.bundle.policy import Floats
from exports.bundle.reader import Bundle, Table, load_bundle, load_table
from exports.tuning.simulation import simulate
from offramp.progress import counting_bar
from serving.drift.reference import Answers, Reference
from serving.shadow.checks import PolicyCheck
from serving.shadow.promises import Promise, promises
from training.data.dataset import Split
from training.data.load import load_dataset
from training.recipes.schema import DataRecipe

RESULTS = Path(__file__).parents[1]
LEVELS = range(1, len(next(iter(SEVERITIES.values()))) + 1)
SHARE = 0.02
# The images that the server gets, after clean ones.
SERVED = ("noise", 5)
CLEAN_REQUESTS, CHANGED_REQUESTS = 2_000, 6_000


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the tables, write the JSON and the picture; or fill in the docs."""
    parser = argparse.ArgumentParser(description=__doc__)
    # The embedded bundle has a single threshold; this one has three to guard.
    parser.add_argument("--bundle", type=Path, default=RESNET18_INT8, help="of CIFAR-100")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("OFFRAMP_DATA", "data")))
    parser.add_argument("--work", type=Path, default=Path("runs") / "guards", help="of the logits")
    parser.add_argument("--images", type=int, default=10_000, help="the first of the test split")
    parser.add_argument("--trials", type=int, default=20, help="random orders of each kind")
    parser.add_argument("--requests", type=int, default=2_000_000, help="of a trial")
    parser.add_argument("--severities", type=int, nargs="+", choices=LEVELS, default=LEVELS)
    parser.add_argument("--json", type=Path, default=RESULTS / "guards.json")
    parser.add_argument("--picture", type=Path, default=DOCS / "images" / "shadow.png")
    parser.add_argument("--write-docs", action="store_true")
    publish(parser.parse_args(argv), run, section, "guide/shadow.md", "guards")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """The result as it is written."""
    bundle = load_bundle(arguments.bundle)
    test = load_dataset(DataRecipe(name="cifar100", held_out=1), arguments.data).test
    test = test.take(np.arange(min(arguments.images, len(test.labels))))
    simulation = Simulation(bundle, test, arguments.trials, arguments.requests)
    cache = LogitsCache(bundle, arguments.work)
    clean = cache.logits(test.images)
    kinds = [(kind, severity) for kind in SEVERITIES for severity in arguments.severities]
    rows = []
    with counting_bar("Sets of images") as bar:
        for kind, severity in bar.track([("clean", 0), *kinds]):
            if kind == "clean":
                rows.append(simulation.row(kind, severity, clean, None))
            else:
                changed = cache.logits(corrupted(test.images, kind, severity))
                rows.append(simulation.row(kind, severity, changed, clean))
            print(rows[-1], flush=True)
    served = corrupted(test.images, *SERVED)
    result = {
        "bundle": bundle.manifest.name,
        "images": len(test.labels),
        "share": SHARE,
        "trials": arguments.trials,
        "requests": arguments.requests,
        "permitted_drop": simulation.permitted,
        "promises": {str(one.exit_): round(one.promised, 4) for one in simulation.promises},
        "rows": rows,
        "server": on_a_server(
            arguments.bundle,
            simulation,
            (test.images, clean),
            (served, cache.logits(served)),
        ),
    }
    draw(result, arguments.picture)
    return result


def corrupted(images: Images, kind: str, severity: int) -> Images:
    """`images` corrupted as `kind` at a severity from 1."""
    return SEVERITIES[kind][severity - 1](images)


def on_a_server(
    bundle: Path,
    simulation: Simulation,
    clean: tuple[Images, Floats],
    changed: tuple[Images, Floats],
) -> dict[str, Any]:
    """A server of `bundle` that gets `clean` images, then `changed` ones, and the same requests simulated."""
    rng = np.random.default_rng(0)
    orders = [rng.integers(0, len(clean[0]), count) for count in (CLEAN_REQUESTS, CHANGED_REQUESTS)]
    parts = list(zip((clean[0], changed[0]), orders, strict=True))
    logits = list(zip((clean[1], changed[1]), orders, strict=True))
    return {
        "images": f"{SERVED[0]}, severity {SERVED[1]}",
        "clean_requests": CLEAN_REQUESTS,
        **measure(bundle, parts),
        "simulated": simulation.replay(logits),
    }


class Simulation:
    """Requests for images of one kind after the other, under the bundle's policy."""

    def __init__(self, bundle: Bundle, test: Split, trials: int, requests: int) -> None:
        self._bundle, self._labels = bundle, test.labels
        self._trials, self._requests = trials, requests
        table = load_table(bundle.path, bundle.manifest)
        self._reference = Reference(table, bundle.policy, bundle.manifest)
        self.promises: list[Promise] = promises(bundle.policy, table, bundle.manifest.scaling)
        certificate = bundle.policy.certificate
        self.permitted = None if certificate is None else certificate.permitted_drop

    def row(self, kind: str, severity: int, logits: Floats, clean: Floats | None) -> dict[str, Any]:
        """The figures of one kind: drop in points; shares and agreement by exit; answers until the drift
        alarm after `clean` ones, and requests until the first raise, None where there was none."""
        policy, scaling = self._bundle.policy, self._bundle.manifest.scaling
        exits = Exits.of_logits(logits, policy, scaling)
        drop, cost = self._effect(logits, list(policy.thresholds))
        left = exits.left_at(np.arange(logits.shape[1]), list(policy.thresholds))
        thresholds = list(policy.thresholds)
        raises = list(
            raises_of(exits, self._check(), thresholds, SHARE, self._requests, seed=1_000)
        )
        after, cost_after = self._effect(logits, thresholds)
        return {
            "images": kind,
            "severity": severity,
            "drop": drop,
            "cost": cost,
            "shares": [round(float((left == one.exit_).mean()), 4) for one in self.promises],
            "agreement": [
                round(float(exits.agrees[one.exit_ - 1, left == one.exit_].mean()), 4)
                for one in self.promises
            ],
            "drift": [] if clean is None else self._alarms(logits, clean),
            "raised": self.first_raises(exits, SHARE),
            "at_end": {
                "raises": sum(len(found) for _, found in raises),
                "thresholds": [round(value, 4) for value in thresholds],
                "drop": after,
                "cost": cost_after,
            },
        }

    def first_raises(self, exits: Exits, share: float) -> list[int | None]:
        """The requests until the first raise, ascending, None last."""
        found: list[int | None] = []
        for seed in range(self._trials):
            thresholds = list(self._bundle.policy.thresholds)
            found.append(
                next(
                    (
                        done
                        for done, _ in raises_of(
                            exits, self._check(), thresholds, share, self._requests, seed
                        )
                    ),
                    None,
                )
            )
        return sorted(found, key=lambda value: (value is None, value))

    def replay(self, parts: Sequence[tuple[Floats, NDArray[np.int64]]]) -> int | None:
        """The requests until the first raise if images with the logits of `parts` come in this order, and
        every early answer is checked."""
        policy, scaling = self._bundle.policy, self._bundle.manifest.scaling
        exits = [(Exits.of_logits(logits, policy, scaling), order) for logits, order in parts]
        return replayed(exits, self._check(), list(policy.thresholds))

    def _check(self) -> PolicyCheck:
        return PolicyCheck(self.promises, self._bundle.policy.thresholds)

    def _alarms(self, logits: Floats, clean: Floats) -> list[int | None]:
        usual, changed = self._answers(clean), self._answers(logits)
        found = [delay(self._reference, usual, changed, seed) for seed in range(self._trials)]
        return sorted(found, key=lambda value: (value is None, value))

    def _answers(self, logits: Floats) -> Answers:
        table = Table(logits, self._labels)
        return Reference(table, self._bundle.policy, self._bundle.manifest).answers

    def _effect(self, logits: Floats, thresholds: list[float]) -> tuple[float, float]:
        """The drop in points and the cost as a share of full depth's, under `thresholds`."""
        manifest = self._bundle.manifest
        policy = self._bundle.policy.model_copy(update={"thresholds": tuple(thresholds)})
        macs = [entry.macs for entry in manifest.exits]
        early = simulate(policy, logits, manifest.scaling)
        deepest = simulate(policy.override(mode="ensemble"), logits, manifest.scaling)
        drop = deepest.accuracy(self._labels) - early.accuracy(self._labels)
        return round(100 * drop, 3), round(early.mean_cost(macs) / macs[-1], 4)


if __name__ == "__main__":
    main()
