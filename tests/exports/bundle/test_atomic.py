"""An export is written completely or not at all, and is reproducible."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from exports.bundle.reader import load_bundle
from tests.commands import call


def exporting(source: Path, target: Path, *options: str, seed: str = "0") -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "offramp.cli", "export", str(source), "-o", str(target)]
    return subprocess.Popen(
        [*command, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": seed},
    )


def test_a_killed_export_leaves_no_incomplete_bundle(digits_bundle: Path, tmp_path: Path) -> None:
    target, part = tmp_path / "b", tmp_path / ".b.part"
    for sign in (part, part / "stage1.onnx", part / "manifest.json", target):
        with exporting(digits_bundle, target, "--precision", "fp16") as process:
            while process.poll() is None and not sign.exists():
                time.sleep(0.0005)
            process.send_signal(signal.SIGKILL)
        if target.exists():
            load_bundle(target)
            break
        assert {path.name for path in tmp_path.iterdir()} <= {".b.part"}
    else:
        pytest.fail("the last export ended without a bundle")
    # The export that ended removed what the killed ones left.
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_two_exports_of_one_checkpoint_differ_only_in_their_time(
    workplace: Path, tmp_path: Path
) -> None:
    source = workplace / "runs" / "digits-oto"
    options = ("--precision", "int8", "--target", "u8s8", "--graphs", "exits,routed,maps")
    # The order of sets must not matter: the processes have different seeds for hashes.
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    with exporting(source, tmp_path / "other", *options, seed=seed) as process:
        output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    done = call("export", source, "-o", tmp_path / "own", *options)
    assert done.code == 0, done.err
    exports = []
    for target in (tmp_path / "other", tmp_path / "own"):
        files = {path.name: path.read_bytes() for path in target.iterdir()}
        manifest = json.loads(files.pop("manifest.json"))
        del manifest["provenance"]["created"]
        exports.append((files, manifest))
    assert exports[0] == exports[1]
    names = {"routed.onnx", "maps.onnx", *(f"exit{k}.onnx" for k in range(1, 5))}
    assert {graph["file"] for graph in exports[0][1]["graphs"]} == names
    assert names <= set(exports[0][0])
