"""Loading a bundle: a directory with a manifest, one ONNX file per stage, a calibration table, a policy.

Every file is verified before it is used.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from exports.bundle.errors import BundleError, ExportError
from exports.bundle.gears.plan import GearPlan, read_gears
from exports.bundle.manifest import (
    FORMATS,
    MANIFEST,
    POLICY,
    ExitEntry,
    GraphEntry,
    Manifest,
    StageInput,
)
from exports.bundle.policy import Floats, Policy
from exports.bundle.untrusted.external_data import has_external_data
from exports.bundle.untrusted.protobuf import MalformedGraphError
from exports.bundle.untrusted.safe_files import (
    MAX_FILE_BYTES,
    MAX_MANIFEST_BYTES,
    MAX_POLICY_BYTES,
    one_line,
    parse_json,
    read_plain,
)
from exports.bundle.untrusted.safe_zip import DAMAGE, ArraySpec, read_arrays
from offramp.validation import first_problem

# Between two logits of an image in a calibration table: the largest number of float16.
MAX_SPREAD = float(np.finfo(np.float16).max)
# The name of the image uint8 [N, H, W, 3] as the input of a graph.
IMAGE = "image"


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
    """A verified bundle; `stages` are the bytes of the ONNX files whose hashes were checked. `gears` is None
    if the bundle has no plan of gears."""

    path: Path
    manifest: Manifest
    policy: Policy
    stages: tuple[bytes, ...]
    gears: GearPlan | None = None


def load_bundle(path: Path) -> Bundle:
    """Read and verify the bundle in directory `path`, except for its whole-network graphs.

    Raises BundleError, in one sentence that names the file and the reason, if a file is missing, in a
    future format, outside the directory, too large, or differs from its hash.
    """
    manifest = read_manifest(path)
    stages = tuple(read_graph(path, entry) for entry in manifest.exits)
    load_table(path, manifest)
    policy, gears = read_policy(path, manifest), read_gears(path, manifest)
    return Bundle(path, manifest, policy, stages, gears)


def read_manifest(path: Path) -> Manifest:
    """Read only the manifest of the bundle in `path`; raises BundleError."""
    if not path.is_dir():
        raise BundleError(f"{path} is not a bundle: there is no such directory or file.")
    file = path / MANIFEST
    content = parse_json(read_plain(path, MANIFEST, MAX_MANIFEST_BYTES), file)
    if isinstance(content, dict) and content.get("format") not in FORMATS:
        format_ = one_line(str(content.get("format"))[:100])
        known = ", ".join(map(str, FORMATS))
        raise BundleError(f"{file}: format {format_} is not one this version reads ({known}).")
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        raise BundleError(f"{file} is not valid: {_first_problem(error)}.") from error


def read_policy(path: Path, manifest: Manifest) -> Policy:
    """Read the current policy of the bundle in `path`; raises BundleError if it does not fit."""
    file = path / POLICY
    try:
        policy = Policy.model_validate(parse_json(read_plain(path, POLICY, MAX_POLICY_BYTES), file))
    except ValidationError as error:
        raise BundleError(f"{file} is not valid: {_first_problem(error)}.") from error
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
            raise BundleError(
                f"{file} keeps weights in another file, which a bundle does not allow."
            )
    except MalformedGraphError as error:
        raise BundleError(f"{file} is not an ONNX graph: {error}.") from error
    return content


def load_table(path: Path, manifest: Manifest) -> Table:
    """Read the calibration table of the bundle in `path`; raises BundleError if it does not fit."""
    entry = manifest.calibration
    content = _read_verified(path, entry.file, entry.sha256)
    exits, classes = len(manifest.exits), len(manifest.labels)
    specs = {
        "logits": ArraySpec((exits, entry.samples, classes), "f"),
        "labels": ArraySpec((entry.samples,), "iu"),
    }
    file = path / entry.file
    try:
        arrays = read_arrays(content, specs)
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
    """Write a calibration table that `as_stored` made; the logits are float16."""
    np.savez_compressed(
        file, logits=table.logits.astype(np.float16), labels=table.labels, split=np.array(split)
    )


def as_stored(table: Table) -> Table:
    """`table` as it is read back from the file. The largest of an image's logits becomes 0, which changes no
    probability, and the others are rounded to float16, by at most 0.05 %, so that the likeliest classes keep
    their distance however far from 0 they are.

    Raises ExportError if the logits of an image lie further apart than float16 reaches.
    """
    logits = table.logits - table.logits.max(axis=-1, keepdims=True)
    spreads = -logits.min(axis=(1, 2), initial=0)
    exit_ = int(spreads.argmax())
    if spreads[exit_] > MAX_SPREAD:
        raise ExportError(
            f"the logits of exit {exit_ + 1} lie up to {spreads[exit_]:.4g} apart for one image; at most "
            f"{MAX_SPREAD:g} can be calibrated."
        )
    return Table(logits.astype(np.float16).astype(np.float32), table.labels)


def features_of(stage: int) -> str:
    """The name of the output features of stage `stage`, which the next stage takes: `features1` …

    Features are numbered because a graph cannot use one name for both an input and an output.
    """
    return f"features{stage}"


def stage_input(stage: int, input_: StageInput) -> str:
    """The name of the input of stage `stage` in its graph: `image`, or the features of the previous
    stage."""
    return IMAGE if input_ == "image" else features_of(stage - 1)


def stage_outputs(stage: int, has_features: bool) -> tuple[str, ...]:
    """The names of the outputs of stage `stage`: (`features1`, `logits`) for stage 1, and so on; only
    `logits` for a stage without output features."""
    return (features_of(stage), "logits") if has_features else ("logits",)


def cam_output(exit_: int) -> str:
    """The name of the output of exit `exit_` in the graph of class-activation maps: `maps1` …"""
    return f"maps{exit_}"


def sha256(content: bytes) -> str:
    """The hash in the form that the manifest has."""
    return hashlib.sha256(content).hexdigest()


def _read_verified(path: Path, name: str, expected: str) -> bytes:
    content = read_plain(path, name, MAX_FILE_BYTES)
    if sha256(content) != expected:
        raise BundleError(f"{path / name} is damaged: its sha256 is not the manifest's.")
    return content


def _first_problem(error: ValidationError) -> str:
    return one_line(str(first_problem(error)))
