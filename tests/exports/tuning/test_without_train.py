"""`offramp tune` without the extra train, which only its picture needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.serving.tiny_bundle import write_tiny_bundle

# Runs the command as if the extra train were not installed.
WITHOUT_TRAIN = """
import sys

class Absent:
    names = "torch torchvision onnx onnxscript matplotlib sklearn scipy safetensors".split()

    def find_spec(self, name, path=None, target=None):
        if name in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
from offramp.cli import main
main()
"""


def test_only_the_picture_needs_the_extra_train(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny")

    def without_train(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", WITHOUT_TRAIN, "tune", str(bundle), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    result = without_train("--budget", "1M", "--cost", "macs")
    assert result.returncode == 0, result.stderr
    assert without_train("--max-accuracy-drop", "50", "--cost", "ms").returncode == 0
    result = without_train("--picture", tmp_path / "x.png")
    assert result.returncode == 2
    assert result.stderr == (
        "offramp: matplotlib is not installed; install it with: pip install 'offramp[train]'\n"
    )
