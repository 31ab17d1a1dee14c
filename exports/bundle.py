"""The bundle: a directory with a manifest, one ONNX file per stage, a calibration table, a policy.

Reading verifies everything before anything is used. Nothing here needs torch or onnx.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from exports.errors import BundleError
from exports.policy import Floats, Policy, Scaling

FORMAT = 1
MANIFEST = "manifest.json"
POLICY = "policy.json"
CALIBRATION = "calibration.npz"

FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Percent = Annotated[float, Field(ge=0, le=100)]
Precision = Literal["fp32", "fp16", "int8"]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


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
    `test` are every exit's accuracy before: those in `exits` are after.
    """

    scheme: Literal["u8s8", "s8s8"] | None
    images: Annotated[int, Field(ge=0)]
    kept: tuple[str, ...]
    held_out: tuple[Accuracy, ...]
    test: tuple[Accuracy, ...]


class GraphEntry(_Table):
    """A whole network in one file, for hosts other than Offramp.

    exit: image -> logits of exit `exit`; routed: image and thresholds -> answers, each sample routed on
    its own (`exit` is None).
    """

    kind: Literal["exit", "routed"]
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
    exit_shares: tuple[float, ...]


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
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
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
        return self

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
    """Read and verify the bundle in directory `path`.

    Raises BundleError, in one sentence that names the file and the reason, if anything is missing,
    of a future format, outside the directory, or differs from its hash.
    """
    manifest = read_manifest(path)
    stages = tuple(_read_verified(path, entry.file, entry.sha256) for entry in manifest.exits)
    load_table(path, manifest)
    return Bundle(path, manifest, read_policy(path, manifest), stages)


def read_manifest(path: Path) -> Manifest:
    """Read the manifest of the bundle in `path` alone; raises BundleError."""
    if not path.is_dir():
        raise BundleError(f"{path} is not a bundle: there is no such directory.")
    file = path / MANIFEST
    content = _read(path, MANIFEST)
    try:
        found = json.loads(content)
        if isinstance(found, dict) and found.get("format") != FORMAT:
            raise BundleError(
                f"{file}: format {found.get('format')} is not one this version reads ({FORMAT})."
            )
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        raise BundleError(f"{file} is not valid: {_first(error)}.") from error
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{file} is not valid JSON: {error}.") from error


def read_policy(path: Path, manifest: Manifest) -> Policy:
    """Read the current policy of the bundle in `path`; raises BundleError if it does not fit."""
    try:
        policy = Policy.model_validate_json(_read(path, POLICY))
    except ValidationError as error:
        raise BundleError(f"{path / POLICY} is not valid: {_first(error)}.") from error
    if policy.exits != len(manifest.exits):
        raise BundleError(
            f"{path / POLICY} is for {policy.exits} exits, but the bundle has {len(manifest.exits)}."
        )
    return policy


def load_table(path: Path, manifest: Manifest) -> Table:
    """Read the calibration table of the bundle in `path`; raises BundleError if it does not fit."""
    entry = manifest.calibration
    content = _read_verified(path, entry.file, entry.sha256)
    file = path / entry.file
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            logits, labels = arrays["logits"], arrays["labels"]
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise BundleError(f"{file} is not a calibration table: {error}.") from error
    expected = (len(manifest.exits), entry.samples, len(manifest.labels))
    if logits.shape != expected or labels.shape != expected[1:2]:
        raise BundleError(f"{file} has the shape {logits.shape}, not {expected}.")
    return Table(logits.astype(np.float32), labels.astype(np.int64))


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


def sha256(content: bytes) -> str:
    """The hash as the manifest writes it."""
    return hashlib.sha256(content).hexdigest()


def _read(path: Path, name: str) -> bytes:
    file = path / name
    if file.is_symlink():
        raise BundleError(f"{file} is a link; a bundle holds plain files only.")
    try:
        return file.read_bytes()
    except OSError as error:
        raise BundleError(f"{file} cannot be read: {error.strerror}.") from error


def _read_verified(path: Path, name: str, expected: str) -> bytes:
    content = _read(path, name)
    if sha256(content) != expected:
        raise BundleError(f"{path / name} is damaged: its sha256 is not the manifest's.")
    return content


def _first(error: ValidationError) -> str:
    detail = error.errors()[0]
    where = ".".join(str(part) for part in detail["loc"])
    return f"{where}: {detail['msg']}" if where else str(detail["msg"])
