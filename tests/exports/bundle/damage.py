"""Ways to damage a bundle: each function returns one that changes the bundle in a directory."""

from __future__ import annotations

import contextlib
import json
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from exports.bundle.reader import sha256
from tests.serving.tiny_bundle import EXITS, LABELS, stage_bytes

Damage = Callable[[Path], object]


def in_json(name: str, change: Callable[[Any], object]) -> Damage:
    """Change the content of a JSON file in place."""

    def damage(bundle: Path) -> None:
        content = json.loads((bundle / name).read_text())
        change(content)
        (bundle / name).write_text(json.dumps(content))

    return damage


def in_manifest(change: Callable[[Any], object]) -> Damage:
    return in_json("manifest.json", change)


def first_exit(**values: object) -> Damage:
    return in_manifest(lambda manifest: manifest["exits"][0].update(values))


def in_text(name: str, old: str, new: str) -> Damage:
    """Replace `old` by `new` in a text file."""

    def damage(bundle: Path) -> None:
        text = (bundle / name).read_text()
        assert old in text
        (bundle / name).write_text(text.replace(old, new, 1))

    return damage


def in_place_of(name: str, make: Damage) -> Damage:
    """Replace a file by what `make` creates."""

    def damage(bundle: Path) -> None:
        (bundle / name).unlink()
        make(bundle / name)

    return damage


def stage(content: bytes) -> Damage:
    """Replace stage 2 and its hash."""

    def damage(bundle: Path) -> None:
        (bundle / "stage2.onnx").write_bytes(content)
        in_manifest(lambda m: m["exits"][1].update(sha256=sha256(content)))(bundle)

    return damage


def table(**arrays: Any) -> Damage:
    """Replace the calibration table and its hash."""

    def damage(bundle: Path) -> None:
        logits = np.zeros((EXITS, 20, len(LABELS)), np.float16)
        content = {"logits": logits, "labels": np.zeros(20, np.int64)} | arrays
        np.savez(bundle / "calibration.npz", **content)
        digest = sha256((bundle / "calibration.npz").read_bytes())
        in_manifest(lambda m: m["calibration"].update(sha256=digest))(bundle)

    return damage


def npy(header: str) -> bytes:
    """A .npy file with this text for its header, and without values."""
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()


# Headers on which numpy raises other errors than for damaged files.
HOSTILE_HEADERS = {
    "open brackets": "(((",
    "empty type": "{'descr': (), 'fortran_order': False, 'shape': (3, 20, 7)}",
    "deep": "-" * 9000,
    "keys of two types": "{1: 2, 'descr': 3}",
    "list as key": "{[]: 1}",
    "huge shape": "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,)}",
}


def table_header(header: str) -> Damage:
    """Replace the header of the table's logits, and the table's hash."""

    def damage(bundle: Path) -> None:
        with zipfile.ZipFile(bundle / "calibration.npz", "w") as archive:
            archive.writestr("logits.npy", npy(header))
            archive.writestr("labels.npy", npy(header))
        digest = sha256((bundle / "calibration.npz").read_bytes())
        in_manifest(lambda m: m["calibration"].update(sha256=digest))(bundle)

    return damage


def graph(**values: object) -> Damage:
    """Add a whole-network graph and its manifest entry."""
    content = stage_bytes(1)
    entry = {"kind": "exit", "exit": 1, "file": "exit1.onnx", "sha256": sha256(content)} | values

    def damage(bundle: Path) -> None:
        (bundle / "exit1.onnx").write_bytes(content)
        in_manifest(lambda m: m.update(graphs=[entry]))(bundle)

    return damage


def unix_socket(path: Path) -> None:
    """Create a socket at `path`."""
    with contextlib.chdir(path.parent):  # a socket's path must be short
        socket.socket(socket.AF_UNIX).bind(path.name)


def with_external_data(where: str = "weights.bin") -> bytes:
    """A stage whose weights the onnx package moved to the file `where`."""
    model = onnx.load_from_string(stage_bytes(2))
    onnx.external_data_helper.convert_model_to_external_data(
        model, size_threshold=0, convert_attribute=True
    )
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")
        tensor.external_data[0].value = where
    return bytes(model.SerializeToString())
