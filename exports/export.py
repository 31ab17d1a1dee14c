"""From a checkpoint to a bundle."""

from __future__ import annotations

import datetime
import os
import platform
import tempfile
from collections.abc import Callable
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import torch

from exports.bundle import (
    CALIBRATION,
    FORMAT,
    MANIFEST,
    POLICY,
    Accuracy,
    CalibrationEntry,
    ExitEntry,
    InputSpec,
    Manifest,
    Operating,
    Provenance,
    Table,
    load_bundle,
    sha256,
    stored,
    write_table,
)
from exports.card import model_card
from exports.certificate import halves
from exports.choose import default_policy
from exports.errors import ExportError
from exports.policy import Scaling, running_ensemble, simulate
from exports.runner import StageRunner
from exports.stages import StageGraph, export_stages
from exports.tuning import fit_scaling
from exports.verify import verify
from offramp import __version__
from training.checkpoint import CheckpointConfig, load_checkpoint
from training.data.dataset import Dataset, hold_out, load_dataset
from training.models.multi_exit import Normalize
from training.recipe import Recipe


def export_bundle(
    checkpoint: Path,
    target: Path,
    *,
    data_root: Path,
    name: str | None = None,
    version: str = "1",
    say: Callable[[str], None] = print,
) -> Manifest:
    """Write the bundle `target` from the run directory `checkpoint`.

    Temperatures and the default policy come from one half of the held-out split, which must be under
    `data_root`, and the policy's certificate from the other; accuracies are measured in onnxruntime.
    The bundle appears whole or not at all.
    Raises ExportError if `target` exists or a graph differs from torch; CheckpointError, DataError.
    """
    if target.exists():
        raise ExportError(f"{target} exists already; choose another name or move it away.")
    network, config = load_checkpoint(checkpoint)
    recipe = config.recipe
    dataset = load_dataset(recipe.data, data_root)
    if dataset.classes != config.classes:
        raise ExportError(f"{checkpoint} was trained on other classes than {dataset.name} has.")
    if not dataset.matches(config.listing):
        raise ExportError(
            f"{checkpoint} was trained on other pictures than {dataset.name} holds now, so its held-out "
            "split is lost: bring back those it was trained on, or train again."
        )
    _, held_out_index = hold_out(
        dataset.train.labels, recipe.data.held_out, recipe.data.held_out_seed
    )
    held_out = dataset.train.take(held_out_index)
    normalize = Normalize(config.mean, config.std)

    say(f"exporting {network.exits} stages")
    graphs = export_stages(network, normalize, config.image_size)
    runner = StageRunner([graph.onnx for graph in graphs])
    difference = verify(runner, network, normalize, held_out.images)
    say(f"onnxruntime agrees with torch: logits at most {difference:.1e} apart")
    table = Table(runner.logits(held_out.images), held_out.labels)
    test = Table(runner.logits(dataset.test.images), dataset.test.labels)

    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        whole = Path(scratch) / target.name
        whole.mkdir()
        manifest, promise = _write(whole, graphs, table, test, config, dataset, name, version)
        load_bundle(whole)
        _flush(whole)
        os.rename(whole, target)
    default = manifest.provenance.test_default
    say(
        f"{target}: default policy {default.accuracy:.2f} % at "
        f"{default.mean_macs / manifest.exits[-1].macs:.0%} of full depth's MACs on the test split"
    )
    say(promise)
    return manifest


def _write(
    folder: Path,
    graphs: list[StageGraph],
    table: Table,
    test: Table,
    config: CheckpointConfig,
    dataset: Dataset,
    name: str | None,
    version: str,
) -> tuple[Manifest, str]:
    recipe = config.recipe
    write_table(folder / CALIBRATION, table, "held_out")
    table = stored(table)
    # What is certified on one half must not have been fitted on it.
    scaling = fit_scaling(table.take(halves(len(table.labels))[0]))
    entries = _exit_entries(graphs, table, test, scaling)
    costs = [entry.macs for entry in entries]
    table_sha256 = sha256((folder / CALIBRATION).read_bytes())
    policy, promise = default_policy(table, scaling, costs, table_sha256)
    outcome = simulate(policy, test.logits, scaling)
    manifest = Manifest(
        format=FORMAT,
        name=name or recipe.name.replace("/", "-"),
        version=version,
        labels=config.classes,
        input=InputSpec(height=config.image_size[0], width=config.image_size[1]),
        precision="fp32",
        exits=tuple(entries),
        ensemble_weights=scaling.weights,
        calibration=CalibrationEntry(
            file=CALIBRATION,
            sha256=table_sha256,
            samples=len(table.labels),
            split="held_out",
        ),
        provenance=Provenance(
            recipe=_portable(recipe),
            dataset=dataset.name,
            splits={
                "train": len(dataset.train) - len(table.labels),
                "held_out": len(table.labels),
                "test": len(test.labels),
            },
            seed=recipe.seed,
            test_default=Operating(
                accuracy=round(100 * outcome.accuracy(test.labels), 2),
                mean_macs=outcome.mean_cost(costs),
                exit_shares=outcome.shares(len(entries)),
            ),
            tools={
                "offramp": __version__,
                "python": platform.python_version(),
                "torch": torch.__version__,
                "onnx": version_of("onnx"),
                "onnxruntime": version_of("onnxruntime"),
            },
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        ),
    )
    for entry, graph in zip(entries, graphs, strict=True):
        (folder / entry.file).write_bytes(graph.onnx)
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", "utf-8")
    (folder / POLICY).write_text(policy.model_dump_json(indent=2) + "\n", "utf-8")
    (folder / "README.md").write_text(model_card(manifest, policy), "utf-8")
    return manifest, promise


def _portable(recipe: Recipe) -> dict[str, Any]:
    """The recipe without the directories of the machine it was run on."""
    content = recipe.model_dump(mode="json")
    for table, key in (("data", "path"), ("start", "weights")):
        if (content[table] or {}).get(key):
            content[table][key] = Path(content[table][key]).name
    return content


def _exit_entries(
    graphs: list[StageGraph], table: Table, test: Table, scaling: Scaling
) -> list[ExitEntry]:
    entries: list[ExitEntry] = []
    macs = params = 0
    for k, graph in enumerate(graphs, 1):
        macs, params = macs + graph.macs, params + graph.params
        entries.append(
            ExitEntry(
                file=f"stage{k}.onnx",
                sha256=sha256(graph.onnx),
                feature_shape=graph.feature_shape,
                macs=macs,
                params=params,
                temperature=scaling.temperatures[k - 1],
                running_temperature=scaling.running_temperatures[k - 1],
                held_out=_accuracy(table, k, scaling),
                test=_accuracy(test, k, scaling),
            )
        )
    return entries


def _accuracy(table: Table, exit_: int, scaling: Scaling) -> Accuracy:
    running = running_ensemble(list(table.logits), exit_, scaling.weights)
    single = table.logits[exit_ - 1]
    figures = [100 * float((z.argmax(-1) == table.labels).mean()) for z in (single, running)]
    return Accuracy(single=round(figures[0], 2), running=round(figures[1], 2))


def _flush(folder: Path) -> None:
    for file in folder.iterdir():
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
