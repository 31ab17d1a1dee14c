"""`offramp export` without its command line: from a checkpoint or a float32 bundle to a bundle."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from exports.bundle.manifest import (
    CALIBRATION,
    CARD,
    MANIFEST,
    POLICY,
    CalibrationEntry,
    Conversion,
    ExitEntry,
    GraphEntry,
    Manifest,
    Operating,
    Precision,
    Provenance,
    format_of,
)
from exports.bundle.policy import Policy, Scaling, simulate
from exports.bundle.reader import load_bundle, sha256, write_table
from exports.card.model_card import model_card
from exports.graphs.cam import cam_graph
from exports.graphs.onnx_tools import exit_graph
from exports.graphs.routed import routed_graph
from exports.measure import Measurement, measure
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

    A run that is followed by others (`followed_by` of its recipe) becomes one bundle with them.
    Temperatures, weights and the default policy come from one half of the held-out split of the data
    set, which must be under `data_root`, and the policy's certificate from the other half. Accuracies
    are measured in onnxruntime on the stages as written. `graphs` are whole-network graphs to add,
    `license_` is the licence of the weights on the model card. The bundle is written completely or not
    at all.

    Raises ExportError if a graph differs from torch, or if the precision costs more than half a point
    and `allow_loss` is not set. Raises WriteError, CheckpointError, BundleError, DataError.
    """
    with new_directory(target) as folder:
        network = open_source(source, data_root, say)
        float_stages = tuple(stage.onnx for stage in network.stages)
        stages, measurement = float_stages, measure(float_stages, network.data)
        conversion: Conversion | None = None
        if precision != "fp32":
            converted = convert(float_stages, measurement, network.data, precision, scheme, say)
            stages, measurement = converted.stages, converted.measurement
            conversion = converted.conversion
            say(comparison(precision, converted))
            if not allow_loss:
                check_loss(precision, converted)
        scaling = measurement.scaling
        entries = _exit_entries(network, stages, measurement)
        costs = [entry.macs for entry in entries]
        write_table(folder / CALIBRATION, measurement.held_out, "held_out")
        table_sha256 = sha256((folder / CALIBRATION).read_bytes())
        policy, promise = default_policy(measurement.held_out, scaling, costs, table_sha256)
        files = {entry.file: stage for entry, stage in zip(entries, stages, strict=True)}
        policy = policy.model_copy(update={"reject_below": network.reject_below})
        graph_entries = _graphs(stages, policy, scaling, graphs)
        files |= {entry.file: content for entry, content in graph_entries}
        for file, content in files.items():
            (folder / file).write_bytes(content)
        manifest = Manifest(
            format=format_of(entries),
            name=name or network.name,
            version=version or network.version,
            labels=network.labels,
            input=network.input,
            precision=precision,
            conversion=conversion,
            exits=tuple(entries),
            graphs=tuple(entry for entry, _ in graph_entries),
            ensemble_weights=scaling.weights,
            calibration=CalibrationEntry(
                file=CALIBRATION,
                sha256=table_sha256,
                samples=len(measurement.held_out.labels),
                split="held_out",
            ),
            provenance=_provenance(network, policy, measurement, costs),
        )
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", "utf-8")
        (folder / POLICY).write_text(policy.model_dump_json(indent=2) + "\n", "utf-8")
        (folder / CARD).write_text(model_card(manifest, policy, license_), "utf-8")
        load_bundle(folder)
    default = manifest.provenance.test_default
    say(
        f"{target}: default policy {default.accuracy:.2f} % at "
        f"{default.mean_macs / manifest.exits[-1].macs:.0%} of full depth's MACs on the test split"
    )
    say(promise)
    return manifest


def _exit_entries(
    network: Source, stages: Sequence[bytes], measurement: Measurement
) -> list[ExitEntry]:
    entries: list[ExitEntry] = []
    macs = params = 0
    held_out = measurement.accuracies(measurement.held_out)
    test = measurement.accuracies(measurement.test)
    for k, (graph, content) in enumerate(zip(network.stages, stages, strict=True)):
        macs, params = macs + graph.macs, params + graph.params
        entries.append(
            ExitEntry(
                file=f"stage{k + 1}.onnx",
                sha256=sha256(content),
                input=graph.input,
                feature_shape=graph.feature_shape,
                feature_type=feature_type(content) if graph.feature_shape else "float32",
                macs=macs,
                params=params,
                temperature=measurement.scaling.temperatures[k],
                running_temperature=measurement.scaling.running_temperatures[k],
                held_out=held_out[k],
                test=test[k],
            )
        )
    return entries


def _graphs(
    stages: Sequence[bytes], policy: Policy, scaling: Scaling, kinds: Sequence[GraphKind]
) -> list[tuple[GraphEntry, bytes]]:
    """The whole-network graphs of `kinds`, with their manifest entries."""
    graphs: list[tuple[GraphEntry, bytes]] = []
    if "exits" in kinds:
        for k in range(1, len(stages) + 1):
            content = exit_graph(stages, k)
            entry = GraphEntry(kind="exit", exit=k, file=f"exit{k}.onnx", sha256=sha256(content))
            graphs.append((entry, content))
    if "routed" in kinds:
        content = routed_graph(stages, policy, scaling)
        entry = GraphEntry(kind="routed", exit=None, file="routed.onnx", sha256=sha256(content))
        graphs.append((entry, content))
    if "maps" in kinds:
        content = cam_graph(stages)
        entry = GraphEntry(kind="maps", exit=None, file="maps.onnx", sha256=sha256(content))
        graphs.append((entry, content))
    return graphs


def _provenance(
    network: Source, policy: Policy, measurement: Measurement, costs: Sequence[int]
) -> Provenance:
    outcome = simulate(policy, measurement.test.logits, measurement.scaling)
    return Provenance(
        recipe=network.recipe,
        followers=network.followers,
        dataset=network.data.name,
        splits=network.data.counts,
        seed=network.seed,
        test_default=Operating(
            accuracy=round(100 * outcome.accuracy(measurement.test.labels), 2),
            mean_macs=outcome.mean_cost(costs),
            exit_shares=outcome.shares(len(costs)),
        ),
        tools=network.tools,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
