"""Growth without HTTP: images a second and milliseconds of engines in this process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.harness.server import on_cores
from benchmarks.serving import InProcess
from benchmarks.threads import take_turns, throughput
from exports.bundle.reader import Bundle
from serving.inference.engine import Engine

BATCHES = (1, 2, 4, 8, 16, 32, 64)
EXITS = (1, 2, 4, 8)
# Eight blocks of two convolutions each, on images of 32 pixels.
BLOCKS, CHANNELS, CLASSES = (2, 2, 2, 2), (32, 64, 128, 256), 100
TURNS = 64


def by_cores(bundle: Bundle, files: list[bytes], seconds: float) -> list[dict[str, Any]]:
    """Images a second at full depth, decoded, by a thread on each of 1, 2, … cores."""
    engine = Engine(bundle)
    one = InProcess(engine, bundle.policy.override(mode="ensemble", max_exit=engine.exits), files)
    count = calls(one, seconds)
    cores = sorted(os.sched_getaffinity(0))
    found = []
    for number in range(1, len(cores) + 1):
        with on_cores(cores[:number]):
            found.append({"cores": number, "rate": throughput(one, number, count)})
    return found


def by_batch(bundle: Bundle, seconds: float) -> list[dict[str, Any]]:
    """Images a second at full depth, without decoding, on one thread, by batch size."""
    engine = Engine(bundle)
    policy = bundle.policy.override(mode="ensemble", max_exit=engine.exits)
    spec = bundle.manifest.input
    random = np.random.default_rng(0)
    found = []
    for size in BATCHES:
        images = random.integers(0, 256, (size, spec.height, spec.width, 3)).astype(np.uint8)

        def classify(images: np.ndarray = images) -> None:
            engine.classify(images, policy)

        rate = size * throughput(classify, 1, calls(classify, seconds / 2))
        found.append({"batch": size, "rate": rate})
    return found


def by_exits(seconds: float) -> list[dict[str, Any]]:
    """Milliseconds of one image through all stages of a network with 1, 2, 4 or 8 exits, on one thread. The
    ways take turns."""
    # Imported here because other measurements do not need torch.
    import torch

    from exports.graphs.stages import export_stages
    from exports.stage_runner import StageRunner
    from training.models.build import network_from_recipe
    from training.models.multi_exit import Normalize
    from training.recipes.network import NetworkRecipe

    runners = {}
    for exits in EXITS:
        torch.manual_seed(0)
        blocks = sum(BLOCKS)
        after = tuple(range(blocks // exits, blocks + 1, blocks // exits))
        recipe = NetworkRecipe(name="resnet", channels=CHANNELS, blocks=BLOCKS, exits_after=after)
        network = network_from_recipe(recipe, CLASSES).eval()
        graphs = export_stages(network, Normalize((0.5,) * 3, (0.25,) * 3), (32, 32))
        runners[exits] = StageRunner([graph.onnx for graph in graphs], threads=1)
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3)).astype(np.uint8)
    works: dict[str, Callable[[], object]] = {
        str(exits): lambda runner=runner: runner.logits(image) for exits, runner in runners.items()
    }
    return [
        {"exits": int(exits), "ms": 1000 * value}
        for exits, value in take_turns(works, max(8, round(TURNS * seconds))).items()
    ]


def calls(work: Callable[[], object], seconds: float) -> int:
    """How often `work` can be called in `seconds`, at least five times."""
    work()
    began = time.perf_counter()
    work()
    return max(5, int(seconds / max(time.perf_counter() - began, 1e-6)))
