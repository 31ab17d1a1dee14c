"""From a checkpoint, or a float32 bundle, to a bundle."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from exports.bundle.manifest import (
    CALIBRATION,
    FORMAT,
    MANIFEST,
    POLICY,
    CalibrationEntry,
    ExitEntry,
    GraphEntry,
    Manifest,
    Operating,
    Precision,
    Provenance,
)
from exports.bundle.policy import Policy, simulate
from exports.bundle.reader import load_bundle, sha256, write_table
from exports.card.model_card import model_card
from exports.graphs.cam import cam_graph
from exports.graphs.onnx_tools import exit_graph
from exports.graphs.routed import routed_graph
from exports.measure import Measured, measure
from exports.precision.boundaries import feature_type
from exports.precision.convert import Target, check_loss, comparison, convert
from exports.source import Source, open_source
from exports.tuning.select import default_policy
from offramp.files import new_directory

GraphKind = Literal["exits", "routed", "maps"]


def export_bundle(
    source: Path,
    target: Path,
    *,
    data_root: Path,
    name: str | None = None,
    version: str | None = None,
    license_: str = "unknown",
    precision: Precision = "fp32",
    scheme: Target = "auto",
    graphs: Sequence[GraphKind] = (),
    allow_loss: bool = False,
    say: Callable[[str], None] = print,
) -> Manifest:
    """Write the bundle `target` from the run directory or the float32 bundle `source`.

    Temperatures, weights and the default policy come from one half of the held-out split of the data,
    which must be under `data_root`, and the policy's certificate from the other; accuracies are
    measured in onnxruntime on the stages as written. `graphs` are whole networks to write too,
    `license_` is the weights' on the card. The bundle appears whole or not at all.

    Raises ExportError if `target` exists, a graph differs from torch, or the precision costs more
    than half a point (unless `allow_loss`); CheckpointError, BundleError, DataError.
    """
    with new_directory(target) as folder:
        found = open_source(source, data_root, say)
        exact = tuple(stage.onnx for stage in found.stages)
        stages, measured, record = exact, measure(exact, found.data), None
        if precision != "fp32":
            made = convert(exact, measured, found.data, precision, scheme, say)
            stages, measured, record = made.stages, made.measured, made.record
            say(comparison(precision, made))
            if not allow_loss:
                check_loss(precision, made)
        entries = _exit_entries(found, stages, measured)
        costs = [entry.macs for entry in entries]
        write_table(folder / CALIBRATION, measured.held_out, "held_out")
        table_sha256 = sha256((folder / CALIBRATION).read_bytes())
        policy, promise = default_policy(measured.held_out, measured.scaling, costs, table_sha256)
        files = {entry.file: stage for entry, stage in zip(entries, stages, strict=True)}
        whole = _graphs(stages, policy, measured, graphs)
        files |= {entry.file: content for entry, content in whole}
        for file, content in files.items():
            (folder / file).write_bytes(content)
        manifest = Manifest(
            format=FORMAT,
            name=name or found.name,
            version=version or found.version,
            labels=found.labels,
            input=found.input,
            precision=precision,
            conversion=record,
            exits=tuple(entries),
            graphs=tuple(entry for entry, _ in whole),
            ensemble_weights=measured.scaling.weights,
            calibration=CalibrationEntry(
                file=CALIBRATION,
                sha256=table_sha256,
                samples=len(measured.held_out.labels),
                split="held_out",
            ),
            provenance=_provenance(found, policy, measured, costs),
        )
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", "utf-8")
        (folder / POLICY).write_text(policy.model_dump_json(indent=2) + "\n", "utf-8")
        (folder / "README.md").write_text(model_card(manifest, policy, license_), "utf-8")
        load_bundle(folder)
    default = manifest.provenance.test_default
    say(
        f"{target}: default policy {default.accuracy:.2f} % at "
        f"{default.mean_macs / manifest.exits[-1].macs:.0%} of full depth's MACs on the test split"
    )
    say(promise)
    return manifest


def _exit_entries(found: Source, stages: Sequence[bytes], measured: Measured) -> list[ExitEntry]:
    entries: list[ExitEntry] = []
    macs = params = 0
    held_out, test = measured.accuracies(measured.held_out), measured.accuracies(measured.test)
    for k, (graph, content) in enumerate(zip(found.stages, stages, strict=True)):
        macs, params = macs + graph.macs, params + graph.params
        entries.append(
            ExitEntry(
                file=f"stage{k + 1}.onnx",
                sha256=sha256(content),
                feature_shape=graph.feature_shape,
                feature_type=feature_type(content) if graph.feature_shape else "float32",
                macs=macs,
                params=params,
                temperature=measured.scaling.temperatures[k],
                running_temperature=measured.scaling.running_temperatures[k],
                held_out=held_out[k],
                test=test[k],
            )
        )
    return entries


def _graphs(
    stages: Sequence[bytes], policy: Policy, measured: Measured, kinds: Sequence[GraphKind]
) -> list[tuple[GraphEntry, bytes]]:
    """The whole-network files that were asked for, with their entries."""
    found: list[tuple[GraphEntry, bytes]] = []
    if "exits" in kinds:
        for k in range(1, len(stages) + 1):
            content = exit_graph(stages, k)
            entry = GraphEntry(kind="exit", exit=k, file=f"exit{k}.onnx", sha256=sha256(content))
            found.append((entry, content))
    if "routed" in kinds:
        content = routed_graph(stages, policy, measured.scaling)
        entry = GraphEntry(kind="routed", exit=None, file="routed.onnx", sha256=sha256(content))
        found.append((entry, content))
    if "maps" in kinds:
        content = cam_graph(stages)
        entry = GraphEntry(kind="maps", exit=None, file="maps.onnx", sha256=sha256(content))
        found.append((entry, content))
    return found


def _provenance(
    found: Source, policy: Policy, measured: Measured, costs: Sequence[int]
) -> Provenance:
    outcome = simulate(policy, measured.test.logits, measured.scaling)
    return Provenance(
        recipe=found.recipe,
        dataset=found.data.name,
        splits=found.data.counts,
        seed=found.seed,
        test_default=Operating(
            accuracy=round(100 * outcome.accuracy(measured.test.labels), 2),
            mean_macs=outcome.mean_cost(costs),
            exit_shares=outcome.shares(len(costs)),
        ),
        tools=found.tools,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
