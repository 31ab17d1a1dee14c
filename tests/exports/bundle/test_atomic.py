"""An export appears whole or not at all, and the same one twice is the same."""

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
from offramp.errors import WriteError
from offramp.files import new_directory


def exporting(source: Path, target: Path, *options: str, seed: str = "0") -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "offramp.cli", "export", str(source), "-o", str(target)]
    return subprocess.Popen(
        [*command, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": seed},
    )


def test_a_killed_export_leaves_no_half_bundle(digits_bundle: Path, tmp_path: Path) -> None:
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
        pytest.fail("the last export was waited for and left nothing")
    # What the killed ones left is gone with the one that was not.
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_two_exports_of_one_checkpoint_differ_in_their_time_alone(
    workplace: Path, tmp_path: Path
) -> None:
    options = ("--precision", "int8", "--target", "u8s8", "--graphs", "exits,routed,maps")
    both = []
    for seed in ("1", "2"):  # the order of sets must not show
        target = tmp_path / seed
        with exporting(workplace / "runs" / "digits-oto", target, *options, seed=seed) as process:
            said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said
        files = {path.name: path.read_bytes() for path in target.iterdir()}
        manifest = json.loads(files.pop("manifest.json"))
        del manifest["provenance"]["created"]
        both.append((files, manifest))
    assert both[0] == both[1]
    names = {"routed.onnx", "maps.onnx", *(f"exit{k}.onnx" for k in range(1, 5))}
    assert {graph["file"] for graph in both[0][1]["graphs"]} == names
    assert names <= set(both[0][0])


def test_two_exports_at_once_do_not_mix(tmp_path: Path) -> None:
    with new_directory(tmp_path / "b") as first:
        (first / "mine").write_text("1")
        with (
            pytest.raises(WriteError, match="another process is writing"),
            new_directory(tmp_path / "b"),
        ):
            pass
    assert (tmp_path / "b" / "mine").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_target_that_appears_meanwhile_is_left_alone(tmp_path: Path) -> None:
    def write() -> None:
        with new_directory(tmp_path / "b") as part:
            (part / "mine").write_text("1")
            (tmp_path / "b").mkdir()

    with pytest.raises(WriteError, match="created by another process"):
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    assert list((tmp_path / "b").iterdir()) == []
