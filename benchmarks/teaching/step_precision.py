"""Measures a training step in bfloat16 and in float32, on this processor and on lesser ones.

    python -m benchmarks.teaching.step_precision

oneDNN, which runs torch's convolutions on x86, is kept from newer instructions by ONEDNN_MAX_CPU_ISA, in
a process for each of them. One thread, fresh weights, random images; the fastest of 5 interleaved steps.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from benchmarks.harness.docs import table
from training.models.build import network_from_recipe
from training.recipes.network import NetworkRecipe
from training.speed import keep_freed_memory

# The value of ONEDNN_MAX_CPU_ISA, and what it leaves.
INSTRUCTIONS = {
    "DEFAULT": "all of this processor's",
    "AVX512_CORE_BF16": "AVX-512 with BF16",
    "AVX512_CORE": "AVX-512",
    "AVX2": "AVX2",
}
# Network, side of the images, and how many of them.
NETWORKS: dict[str, tuple[dict[str, Any], int, int]] = {
    "EfficientNet-Lite0": ({"name": "efficientnet-lite0", "exits": (4,)}, 88, 32),
    "VGG-8 of width 32, four exits": ({"name": "vgg8", "width": 32}, 32, 64),
}
STEPS = 5


def main() -> None:
    """Measure and print; with a network's name, print its milliseconds alone."""
    if len(sys.argv) > 1:
        print(*milliseconds(sys.argv[1]))
        return
    head = ["network", "instructions", "bfloat16, ms", "float32, ms", "bfloat16 / float32"]
    print(table(head, [row(name, isa) for name in NETWORKS for isa in INSTRUCTIONS]))


def row(name: str, isa: str) -> list[object]:
    """The steps of the network `name` with the instructions `isa`."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.teaching.step_precision", name],
        env=os.environ | {"ONEDNN_MAX_CPU_ISA": isa},
        capture_output=True,
        text=True,
        check=True,
    )
    bf16, fp32 = map(float, done.stdout.split())
    return [name, INSTRUCTIONS[isa], f"{bf16:.0f}", f"{fp32:.0f}", f"{bf16 / fp32:.2f}"]


def milliseconds(name: str) -> tuple[float, float]:
    """CPU milliseconds of a step of the network `name` in bfloat16 and in float32."""
    torch.set_num_threads(1)
    keep_freed_memory()
    content, side, count = NETWORKS[name]
    network = network_from_recipe(NetworkRecipe.model_validate(content), 100)
    network = network.to(memory_format=torch.channels_last).train()
    images = torch.randn(count, 3, side, side).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(count)

    def step(bf16: bool) -> float:
        started = time.process_time()
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = network(images)
        torch.stack([cross_entropy(z.float(), labels) for z in logits]).sum().backward()
        return 1e3 * (time.process_time() - started)

    step(True), step(False)
    times = [(step(True), step(False)) for _ in range(STEPS)]
    bf16, fp32 = (min(column) for column in zip(*times, strict=True))
    return bf16, fp32


if __name__ == "__main__":
    main()
