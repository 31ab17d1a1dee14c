"""The networks of finished runs: exported alone in int8, run on the test split, and timed together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.embedded import interleaved_milliseconds
from benchmarks.trials.candidates import Candidate
from exports.bundle.manifest import MANIFEST
from exports.bundle.reader import Bundle, Table, load_bundle, load_table, sha256
from exports.options import ExportOptions
from exports.pipeline import export_bundle
from exports.stage_runner import StageRunner
from offramp.files import replacing, write_whole
from offramp.progress import counting_bar
from serving.inference.engine import Engine
from training.checkpoint import CONFIG, WEIGHTS, read_config
from training.data.dataset import Split
from training.data.load import load_dataset
from training.recipes.schema import Recipe

SHORT_PREFIX = "trial-"
DIGEST_DIGITS = 12


@dataclass(frozen=True)
class Network:
    """The network of a run as an int8 bundle of its own, with its logits on the held-out and test split."""

    recipe: Recipe
    bundle: Bundle
    held_out: Table
    test: Table

    @property
    def name(self) -> str:
        """The run's."""
        return self.recipe.name

    @property
    def recipe_in_words(self) -> str:
        """How it was trained: epochs, teacher, and the start if that is another run."""
        parts = [f"{self.recipe.train.epochs} epochs"]
        if self.recipe.teacher is not None:
            parts.append(self.recipe.objective.method.upper())
        if self.recipe.start is not None and self.recipe.start.recipe is not None:
            parts.append(f"from `{self.recipe.start.recipe}`")
        return ", ".join(parts)

    def with_test(self, test: Table) -> Network:
        """The same, judged on `test`."""
        return replace(self, test=test)

    def candidate(self, milliseconds: Sequence[float]) -> Candidate:
        """The network alone; `milliseconds` [K] are those of leaving at each exit."""
        return Candidate(
            networks=(self.name,),
            sides=(self.recipe.network.side,),
            training="short" if self.name.startswith(SHORT_PREFIX) else "long",
            held_out=self.held_out,
            test=self.test,
            macs=tuple(entry.macs for entry in self.bundle.manifest.exits),
            milliseconds=tuple(milliseconds),
        )


def open_networks(
    runs: Sequence[Path], work: Path, data_root: Path
) -> tuple[list[Network], NDArray[np.uint8]]:
    """The networks of `runs` in order, and the test images, uint8 [N, H, W, 3].

    What is missing in `work` is exported and run first. All runs must have the same data and held-out split:
    SystemExit otherwise. Raises CheckpointError, ExportError, DataError.
    """
    data = [read_config(run).recipe.data for run in runs]
    samples = {(d.name, d.path, d.held_out, d.held_out_seed) for d in data}
    if len(samples) > 1:
        raise SystemExit("the runs have different data or held-out splits")
    test = load_dataset(data[0], data_root).test
    with counting_bar("networks") as bar:
        return [open_network(run, work, data_root, test) for run in bar.track(runs)], test.images


def open_network(run: Path, work: Path, data_root: Path, test: Split) -> Network:
    """The network of the finished `run`, from `work` if it is there with these weights."""
    recipe = read_config(run).recipe
    digest = sha256((run / WEIGHTS).read_bytes())[:DIGEST_DIGITS]
    folder = work / f"{recipe.name}-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "bundle"
    if not (path / MANIFEST).is_file():
        # A trial is judged, not served: it is written whatever int8 costs it.
        options = ExportOptions(precision="int8", allow_loss=True)
        export_bundle(without_follower(run, folder), path, options, data_root=data_root)
    bundle = load_bundle(path)
    file = folder / "test.npy"
    if not file.is_file():
        logits = StageRunner(bundle.stages).logits(test.images)
        with replacing(file) as part, part.open("wb") as stream:
            np.save(stream, logits)
    held_out = load_table(path, bundle.manifest)
    return Network(recipe, bundle, held_out, Table(np.load(file), test.labels))


def exit_milliseconds(
    networks: Sequence[Network], images: NDArray[np.uint8], repeats: int
) -> list[tuple[float, ...]]:
    """For each network the mean milliseconds of leaving at each exit [K], one thread, one image at a time:
    the medians of `repeats` turns in which all networks alternate."""
    calls = {}
    for place, network in enumerate(networks):
        engine = Engine(network.bundle, threads=1)
        for k in range(1, engine.exits + 1):
            policy = network.bundle.policy.override(mode="exit", max_exit=k)
            calls[place, k] = partial(engine.classify, policy=policy)
    found = interleaved_milliseconds(calls, images, repeats)
    return [
        tuple(ms for (of, _), ms in found.items() if of == place) for place in range(len(networks))
    ]


def without_follower(run: Path, folder: Path) -> Path:
    """`run`, or if another run follows it a run in `folder` with the same weights and no follower."""
    config = read_config(run)
    if config.recipe.followed_by is None:
        return run
    alone = folder / config.recipe.name
    alone.mkdir(exist_ok=True)
    write_whole(alone / WEIGHTS, (run / WEIGHTS).read_bytes())
    recipe = config.recipe.model_copy(update={"followed_by": None})
    config = config.model_copy(update={"recipe": recipe})
    write_whole(alone / CONFIG, config.model_dump_json().encode())
    return alone
