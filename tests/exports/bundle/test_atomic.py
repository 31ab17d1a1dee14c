"""An export is written completely or not at all, and is reproducible."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from exports.bundle.reader import load_bundle
from tests.commands import call
from tests.training.processes import Offramp


def test_a_killed_export_leaves_no_incomplete_bundle(digits_bundle: Path, tmp_path: Path) -> None:
    place = tmp_path / "bundles"
    place.mkdir()
    target, part = place / "b", place / ".b.part"
    options = ("--precision", "fp16")
    for sign in (part, part / "stage1.onnx", part / "manifest.json", target):
        process = Offramp("export", str(digits_bundle), "-o", str(target), *options, cwd=tmp_path)
        while process.running and not sign.exists():
            time.sleep(0.0005)
        process.kill()
        if target.exists():
            load_bundle(target)
            break
        assert {path.name for path in place.iterdir()} <= {".b.part"}, process.output
    else:
        pytest.fail("the last export ended without a bundle")
    # The export that ended removed what the killed ones left.
    assert [path.name for path in place.iterdir()] == ["b"]


def test_two_exports_of_one_checkpoint_differ_only_in_their_time(
    workplace: Path, tmp_path: Path
) -> None:
    source = workplace / "runs" / "digits-oto"
    options = ("--precision", "int8", "--target", "u8s8", "--graphs", "exits,routed,maps")
    # The order of sets must not matter: the processes have different seeds for hashes.
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    other = subprocess.run(
        [
            *(sys.executable, "-m", "offramp.cli", "export", source),
            "-o",
            tmp_path / "other",
            *options,
        ],
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert other.returncode == 0, other.stderr
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
