"""`offramp export` without its command line: from a checkpoint or a float32 bundle to a bundle.

`write_bundle` is what `offramp cascade` shares with it.
"""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from exports.bundle.errors import ExportError
from exports.bundle.manifest import (
    CALIBRATION,
    CARD,
    MANIFEST,
    MAX_TABLE_LOGITS,
    POLICY,
    CalibrationEntry,
    ExitEntry,
    GraphEntry,
    Manifest,
    format_of,
)
from exports.bundle.policy import Policy, Scaling
from exports.bundle.provenance import Operating, Provenance
from exports.bundle.reader import load_bundle, sha256, write_table
from exports.bundle.writing import policy_json
from exports.card.model_card import model_card
from exports.evaluation_data import EvaluationFolders
from exports.graphs.cam import cam_graph
from exports.graphs.onnx_tools import exit_graph
from exports.graphs.routed import routed_graph
from exports.measure import Measurement, measure
from exports.options import ExportOptions, GraphKind, Precision
from exports.precision.boundaries import feature_type
from exports.precision.convert import Converted, comparison, convert, loss
from exports.seen import warn_if_seen
from exports.source import Source, open_source
from exports.tuning.certificate import selection_size
from exports.tuning.goal import DEFAULT_CONFIDENCE, DEFAULT_DROP, Choice
from exports.tuning.select import default_policy
from exports.tuning.simulation import simulate
from offramp.files import new_directory


def export_bundle(
    source: Path,
    target: Path,
    options: ExportOptions | None = None,
    *,
    data_root: Path,
    folders: EvaluationFolders | None = None,
    drop: float = DEFAULT_DROP,
    say: Callable[[str], None] = print,
) -> Manifest:
    """Write the bundle `target` from the run directory or the float32 bundle `source`.

    A run that is followed by others (`followed_by` of its recipe) becomes one bundle with them.
    Temperatures, weights and a certified default policy come from a part of the held-out split of the
    data set, which must be under `data_root`, and the policy's certificate from the rest. A split
    that supports no certificate gives a policy that is cross-validated on all of it. Accuracies
    are measured in onnxruntime on the stages as written, on the test split or, without one, on that rest.
    Of a run with a refit the refit's weights are written; everything that needs the held-out split
    is measured with those of the first fit. The bundle is written completely or not at all.

    With `folders` the data set is not read: their images take the place of its splits, and the weights that
    are written are the ones that are measured on them. The default policy may lose the share `drop` of
    right answers against the ensemble.

    Raises ExportError if a graph differs from torch, or if the precision costs more than half a point
    and `options.allow_loss` is not set. Raises WriteError, CheckpointError, BundleError, DataError.
    """
    with new_directory(target) as folder:
        network = open_source(source, data_root, say, folders)
        written = write_bundle(folder, network, target, options or ExportOptions(), say, drop=drop)
    if folders is not None:
        warn_if_seen(
            written.manifest.exits[-1].held_out.single / 100,
            len(network.data.held_out),
            source,
            f"give images that it was not trained on instead of {folders.calibrate}",
            say,
        )
    written.report(target, say)
    return written.manifest


@dataclass(frozen=True)
class Written:
    """A bundle that was written: its manifest, and the choice of its default policy."""

    manifest: Manifest
    choice: Choice

    def report(self, target: Path, say: Callable[[str], None]) -> None:
        """Say what the default policy of the bundle `target` does, and what is promised of it."""
        manifest, origin = self.manifest, self.manifest.provenance
        default = origin.test_default
        measured = " agreement" if manifest.calibration.target == "agreement" else ""
        say(
            f"{target}: default policy {default.accuracy:.2f} %{measured} at "
            f"{default.mean_macs / manifest.exits[-1].macs:.0%} of full depth's MACs on the "
            f"{origin.evaluated_on} (ensemble of all exits: {manifest.exits[-1].test.running:.2f} %)"
        )
        for sentence in (self.choice.promise, *self.choice.notes):
            say(sentence)


def write_bundle(
    folder: Path,
    network: Source,
    target: Path,
    options: ExportOptions,
    say: Callable[[str], None] = print,
    *,
    drop: float = DEFAULT_DROP,
    confidence: float = DEFAULT_CONFIDENCE,
) -> Written:
    """Write `network` as a bundle into the empty directory `folder`, which will become `target`.

    The default policy may lose the share `drop` against the ensemble, certified with `confidence` if
    possible. Errors are those of `export_bundle`.
    """
    data = network.data
    _check_table(network)
    calibrated = tuple(stage.onnx for stage in network.calibrated)
    refit = network.calibrated != network.stages
    stages = tuple(stage.onnx for stage in network.stages)
    served = stages if refit else None
    measurement = measure(calibrated, data, served)
    precision, converted = _converted(network, calibrated, measurement, served, options, say)
    if converted is not None:
        stages, measurement = converted.stages, converted.measurement
        if data.target == "agreement":
            measurement = measurement.with_own_answers()
    scaling = measurement.scaling
    entries = _exit_entries(network, stages, measurement)
    costs = [entry.macs for entry in entries]
    write_table(folder / CALIBRATION, measurement.held_out, "held_out")
    table_sha256 = sha256((folder / CALIBRATION).read_bytes())
    command = shlex.join(("offramp", "tune", str(target)))
    choice = default_policy(
        measurement.held_out,
        scaling,
        costs,
        table_sha256,
        command=command,
        target=data.target,
        drop=drop,
        confidence=confidence,
        inputs=[entry.input for entry in entries],
    )
    policy = choice.policy.model_copy(update={"reject_below": network.reject_below})
    files = {entry.file: stage for entry, stage in zip(entries, stages, strict=True)}
    graph_entries = _graphs(stages, policy, scaling, options.graphs)
    files |= {entry.file: content for entry, content in graph_entries}
    for file, content in files.items():
        (folder / file).write_bytes(content)
    manifest = Manifest(
        format=format_of(entries),
        name=options.name or network.name,
        version=options.version or network.version,
        labels=network.labels,
        input=network.input,
        precision=precision,
        conversion=None if converted is None else converted.conversion,
        exits=tuple(entries),
        graphs=tuple(entry for entry, _ in graph_entries),
        ensemble_weights=scaling.weights,
        calibration=CalibrationEntry(
            file=CALIBRATION,
            sha256=table_sha256,
            samples=len(measurement.held_out.labels),
            split="held_out",
            target=data.target,
            reference=data.reference,
            chosen_on=selection_size(len(measurement.held_out.labels)),
        ),
        provenance=_provenance(network, policy, measurement, entries),
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", "utf-8")
    (folder / POLICY).write_bytes(policy_json(policy))
    (folder / CARD).write_text(
        model_card(manifest, policy, options.license_, choice.promise), "utf-8"
    )
    load_bundle(folder)
    return Written(manifest, choice)


def _check_table(network: Source) -> None:
    """Raise ExportError if the calibration table would have more logits than a bundle may have."""
    exits, images, classes = len(network.stages), len(network.data.held_out), len(network.labels)
    if exits * images * classes > MAX_TABLE_LOGITS:
        raise ExportError(
            f"{images:,} images are too many for a calibration table of {exits} exits and {classes} classes: "
            f"at most {MAX_TABLE_LOGITS // (exits * classes):,}."
        )


def _converted(
    network: Source,
    calibrated: Sequence[bytes],
    before: Measurement,
    served: Sequence[bytes] | None,
    options: ExportOptions,
    say: Callable[[str], None],
) -> tuple[Precision, Converted | None]:
    """The precision of the bundle, and the stages in it unless it is float32."""
    asked = options.precision
    precision = network.precision if asked == "auto" else asked
    if precision == "fp32":
        return precision, None
    target = options.int8_target
    converted = convert(calibrated, before, network.data, precision, target, say, served)
    say(comparison(precision, converted))
    lost = None if options.allow_loss else loss(precision, converted)
    if lost is None:
        return precision, converted
    if asked == "auto":
        say(f"{lost}: the bundle is in fp32")
        return "fp32", None
    raise ExportError(f"{lost}; no bundle was written (--allow-loss writes it anyway).")


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
    network: Source, policy: Policy, measurement: Measurement, entries: Sequence[ExitEntry]
) -> Provenance:
    costs = policy.costs([entry.input for entry in entries], [entry.macs for entry in entries])
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
