"""Classifies images with a bundle's routed.onnx, numpy and onnxruntime; Offramp is not needed.

    python examples/routed.py BUNDLE IMAGES.npy

IMAGES.npy holds uint8 [N, height, width, 3] in RGB, of the size that BUNDLE/manifest.json names.
Prints one line per image: class, confidence, and the exit it left at. A graph has all of the policy fixed but
the thresholds, so it is refused if policy.json has another rule now, as `offramp tune` may have written.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime


def main(bundle: Path, images: Path) -> None:
    """Run all images as one batch; each leaves at its own exit."""
    labels = json.loads((bundle / "manifest.json").read_text("utf-8"))["labels"]
    policy = json.loads((bundle / "policy.json").read_text("utf-8"))
    options = onnxruntime.SessionOptions()
    # int8 answers are wrong without it on x86 without VNNI; with VNNI leave it out, for it is slower.
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(
        bundle / "routed.onnx", options, providers=["CPUExecutionProvider"]
    )
    rule = json.loads(session.get_modelmeta().custom_metadata_map.get("policy", "{}"))
    if not rule:
        print("routed.onnx does not say its rule: it may not be policy.json's", file=sys.stderr)
    for name, value in rule.items():
        if policy.get(name) != value:
            sys.exit(f"{name} of routed.onnx is {value}, of policy.json {policy.get(name)}")
    feeds = {"image": np.load(images), "thresholds": np.array(policy["thresholds"], np.float32)}
    names = ["probabilities", "exit", "confidence"]
    for probabilities, exit_, confidence in zip(*session.run(names, feeds), strict=True):
        print(f"{labels[probabilities.argmax()]} {confidence:.6f} {exit_}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
