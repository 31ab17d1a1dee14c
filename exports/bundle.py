"""The bundle: a directory with a manifest, one ONNX file per stage, a calibration table, a policy.

Reading verifies everything before anything is used. Nothing here needs torch or onnx.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from exports.errors import BundleError
from exports.external_data import MalformedGraphError, has_external_data
from exports.files import (
    FILE_LIMIT,
    MANIFEST_LIMIT,
    POLICY_LIMIT,
    one_line,
    parse_json,
    read_plain,
)
from exports.npz import Expected, read_arrays
from exports.policy import Floats, Policy, Scaling
from exports.zips import DAMAGE

FORMAT = 1
MANIFEST = "manifest.json"
POLICY = "policy.json"
CALIBRATION = "calibration.npz"
CARD = "README.md"
# Logits of a calibration table, 1 GiB as float32: five exits on ImageNet's 50,000 validation images.
TABLE_LIMIT = 1 << 28

FILE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
MAX_NAME = 100

FileName = Annotated[str, Field(pattern=FILE_NAME, max_length=MAX_NAME)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Percent = Annotated[float, Field(ge=0, le=100)]
Share = Annotated[float, Field(ge=0, le=1)]
Precision = Literal["fp32", "fp16", "int8"]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class InputSpec(_Table):
    """The images the network takes: uint8 RGB of `height` x `width`.

    center_crop: the picture is scaled until it covers the input and what sticks out is cut evenly;
    stretch: it is scaled to the input, whatever its shape.
    """

    height: Annotated[int, Field(ge=1, le=4096)]
    width: Annotated[int, Field(ge=1, le=4096)]
    resize: Literal["center_crop", "stretch"] = "center_crop"


class Accuracy(_Table):
    """Top-1 accuracy in percent, of one exit alone and of the ensemble of all exits up to it."""

    single: Percent
    running: Percent


class ExitEntry(_Table):
    """Stage k with head k. `macs` and `params` count stages and heads 1..k: the cost of leaving here.

    `feature_shape` is (C, H, W) of what the stage hands on; None for the last.
    """

    file: FileName
    sha256: Sha256
    feature_shape: tuple[int, int, int] | None
    macs: Annotated[int, Field(gt=0)]
    params: Annotated[int, Field(gt=0)]
    temperature: Annotated[float, Field(gt=0)]
    running_temperature: Annotated[float, Field(gt=0)]
    held_out: Accuracy
    test: Accuracy


class Conversion(_Table):
    """How a bundle of less than float32 was made, and what it cost.

    `scheme` is how int8 represents (activations, weights): u8s8 or s8s8; `images` of the held-out split
    set the activations' ranges; `kept` names what stayed in float32, as stage/node. `held_out` and
    `test` are every exit's accuracy before: those in `exits` are after. `agreement` is the share of
    test images, in percent, that each exit gives the same class as before.
    """

    scheme: Literal["u8s8", "s8s8"] | None
    images: Annotated[int, Field(ge=0)]
    kept: tuple[str, ...]
    held_out: tuple[Accuracy, ...]
    test: tuple[Accuracy, ...]
    agreement: tuple[Percent, ...]


class GraphEntry(_Table):
    """A whole network in one file.

    exit: image -> logits of exit `exit`; routed: image and thresholds -> answers, each sample routed on
    its own; maps: image -> class-activation maps of every exit. `exit` is None for the last two.
    """

    kind: Literal["exit", "routed", "maps"]
    exit: Annotated[int, Field(ge=1)] | None
    file: FileName
    sha256: Sha256


class CalibrationEntry(_Table):
    """The calibration table's file."""

    file: FileName
    sha256: Sha256
    samples: Annotated[int, Field(gt=0)]
    split: str


class Operating(_Table):
    """The default policy on the test split: accuracy in percent, mean MACs, share leaving at each exit."""

    accuracy: Percent
    mean_macs: Annotated[float, Field(gt=0)]
    exit_shares: tuple[Share, ...]


class Provenance(_Table):
    """Where the bundle comes from. `test_default` belongs to the policy written by the exporter."""

    recipe: dict[str, Any]
    dataset: str
    splits: dict[str, int]
    seed: int
    test_default: Operating
    tools: dict[str, str]
    created: str


class Manifest(_Table):
    """manifest.json. `labels` are the class names in the order of the logits."""

    format: int
    name: FileName
    version: FileName
    labels: tuple[str, ...]
    input: InputSpec
    precision: Precision
    conversion: Conversion | None = None
    exits: Annotated[tuple[ExitEntry, ...], Field(min_length=1)]
    graphs: tuple[GraphEntry, ...] = ()
    ensemble_weights: tuple[Annotated[float, Field(gt=0)], ...]
    calibration: CalibrationEntry
    provenance: Provenance

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if len(self.ensemble_weights) != len(self.exits):
            raise ValueError("ensemble_weights must have one entry per exit")
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels):
            raise ValueError("labels must be at least two and all different")
        gives = [entry.feature_shape is not None for entry in self.exits]
        if gives != [True] * (len(gives) - 1) + [False]:
            raise ValueError("every exit but the last must have a feature_shape")
        if len(self.provenance.test_default.exit_shares) != len(self.exits):
            raise ValueError("exit_shares must have one entry per exit")
        before = self.conversion
        if before and {len(before.held_out), len(before.test), len(before.agreement)} != {
            len(self.exits)
        }:
            raise ValueError("conversion must have one accuracy per exit and split")
        for graph in self.graphs:
            reaches = range(1, len(self.exits) + 1)
            if graph.exit not in (reaches if graph.kind == "exit" else (None,)):
                raise ValueError(f"the graph {graph.file} is of an exit that does not exist")
        if self.calibration.samples * len(self.exits) * len(self.labels) > TABLE_LIMIT:
            raise ValueError(f"the calibration table has more than {TABLE_LIMIT} logits")
        if sum(graph.kind == "maps" for graph in self.graphs) > 1:
            raise ValueError("there is more than one graph of maps")
        own = [name.casefold() for name in (MANIFEST, POLICY, CARD, *self.files)]
        if len(set(own)) != len(own):
            raise ValueError("every file must have a name of its own")
        return self

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the files that have a hash here: stages, calibration table, graphs."""
        stages = [entry.file for entry in self.exits]
        return (*stages, self.calibration.file, *(graph.file for graph in self.graphs))

    @property
    def maps(self) -> GraphEntry | None:
        """The graph of class-activation maps, if the bundle offers them."""
        return next((graph for graph in self.graphs if graph.kind == "maps"), None)

    @property
    def scaling(self) -> Scaling:
        """What the policy needs to calibrate this network's logits."""
        return Scaling(
            temperatures=tuple(entry.temperature for entry in self.exits),
            running_temperatures=tuple(entry.running_temperature for entry in self.exits),
            weights=self.ensemble_weights,
        )


@dataclass(frozen=True)
class Table:
    """The calibration table: logits float32 [K, N, C] and labels int64 [N]."""

    logits: Floats
    labels: NDArray[np.int64]

    def take(self, index: NDArray[np.int64]) -> Table:
        """The samples at `index`, in its order."""
        return Table(self.logits[:, index], self.labels[index])


@dataclass(frozen=True)
class Bundle:
    """A verified bundle: `stages` are the ONNX files' bytes, as hashed."""

    path: Path
    manifest: Manifest
    policy: Policy
    stages: tuple[bytes, ...]


def load_bundle(path: Path) -> Bundle:
    """Read and verify the bundle in directory `path`, but for its whole-network graphs.

    Raises BundleError, in one sentence that names the file and the reason, if anything is missing,
    of a future format, outside the directory, too large, or differs from its hash.
    """
    manifest = read_manifest(path)
    stages = tuple(read_graph(path, entry) for entry in manifest.exits)
    load_table(path, manifest)
    return Bundle(path, manifest, read_policy(path, manifest), stages)


def read_manifest(path: Path) -> Manifest:
    """Read the manifest of the bundle in `path` alone; raises BundleError."""
    if not path.is_dir():
        raise BundleError(f"{path} is not a bundle: there is no such directory or file.")
    file = path / MANIFEST
    found = parse_json(read_plain(path, MANIFEST, MANIFEST_LIMIT), file)
    if isinstance(found, dict) and found.get("format") != FORMAT:
        given = one_line(str(found.get("format"))[:100])
        raise BundleError(f"{file}: format {given} is not one this version reads ({FORMAT}).")
    try:
        return Manifest.model_validate(found)
    except ValidationError as error:
        raise BundleError(f"{file} is not valid: {_first(error)}.") from error


def read_policy(path: Path, manifest: Manifest) -> Policy:
    """Read the current policy of the bundle in `path`; raises BundleError if it does not fit."""
    file = path / POLICY
    try:
        policy = Policy.model_validate(parse_json(read_plain(path, POLICY, POLICY_LIMIT), file))
    except ValidationError as error:
        raise BundleError(f"{file} is not valid: {_first(error)}.") from error
    if policy.exits != len(manifest.exits):
        raise BundleError(
            f"{file} is for {policy.exits} exits, but the bundle has {len(manifest.exits)}."
        )
    return policy


def read_graph(path: Path, entry: ExitEntry | GraphEntry) -> bytes:
    """Read a stage or a whole-network graph of the bundle in `path`.

    Raises BundleError if it differs from its hash or keeps weights in another file.
    """
    content = _read_verified(path, entry.file, entry.sha256)
    file = path / entry.file
    try:
        if has_external_data(content):
            raise BundleError(f"{file} keeps weights in another file; a bundle's graphs are whole.")
    except MalformedGraphError as error:
        raise BundleError(f"{file} is not an ONNX graph: {error}.") from error
    return content


def load_table(path: Path, manifest: Manifest) -> Table:
    """Read the calibration table of the bundle in `path`; raises BundleError if it does not fit."""
    entry = manifest.calibration
    content = _read_verified(path, entry.file, entry.sha256)
    exits, classes = len(manifest.exits), len(manifest.labels)
    expected = {
        "logits": Expected((exits, entry.samples, classes), "f"),
        "labels": Expected((entry.samples,), "iu"),
    }
    file = path / entry.file
    try:
        arrays = read_arrays(content, expected)
    except DAMAGE as error:
        reason = one_line(str(error))
        raise BundleError(f"{file} is not a calibration table: {reason}.") from error
    with np.errstate(over="ignore"):
        table = Table(arrays["logits"].astype(np.float32), arrays["labels"].astype(np.int64))
    if not np.isfinite(table.logits).all():
        raise BundleError(f"{file} has logits that are not numbers.")
    if table.labels.min() < 0 or table.labels.max() >= classes:
        raise BundleError(f"{file} has labels of classes that do not exist.")
    return table


def write_table(file: Path, table: Table, split: str) -> None:
    """Write a calibration table; logits are stored as float16, 0.05 % of their size apart."""
    np.savez_compressed(
        file, logits=table.logits.astype(np.float16), labels=table.labels, split=np.array(split)
    )


def stored(table: Table) -> Table:
    """`table` as it is read back from its file."""
    return Table(table.logits.astype(np.float16).astype(np.float32), table.labels)


def stage_input(stage: int) -> str:
    """The name of stage `stage`'s input in its graph: `image`, then `features1`, `features2` …"""
    return "image" if stage == 1 else f"features{stage - 1}"


def stage_outputs(stage: int, exits: int) -> tuple[str, ...]:
    """The names of its outputs: (`features1`, `logits`) for stage 1, and so on; the last: `logits`.

    A graph may not use one name for an input and an output, hence the numbers.
    """
    return ("logits",) if stage == exits else (f"features{stage}", "logits")


def map_output(exit_: int) -> str:
    """The name of exit `exit_`'s output in the graph of class-activation maps: `maps1` …"""
    return f"maps{exit_}"


def sha256(content: bytes) -> str:
    """The hash as the manifest writes it."""
    return hashlib.sha256(content).hexdigest()


def _read_verified(path: Path, name: str, expected: str) -> bytes:
    content = read_plain(path, name, FILE_LIMIT)
    if sha256(content) != expected:
        raise BundleError(f"{path / name} is damaged: its sha256 is not the manifest's.")
    return content


def _first(error: ValidationError) -> str:
    detail = error.errors()[0]
    where = ".".join(str(part)[:100] for part in detail["loc"])
    reason = str(detail["msg"]).removeprefix("Value error, ")
    return one_line(f"{where}: {reason}" if where else reason)
