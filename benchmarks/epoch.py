"""Measures training: our epoch against a plain loop's on the same device, and the parts of our time.

    python -m benchmarks.epoch

A student learns exit by exit from a teacher of the same shape (OtO, both with fresh weights, which do not
change the time). The plain loop has torchvision's transforms in a DataLoader's workers, float32 and the
default memory layout; its workers are started and its first batches made before its clock starts. The loops
alternate `--repeats` times, each for `--steps` batches; medians are reported. Images are random bytes. Writes
a JSON file; `--write-docs` puts the JSON files into docs/guide/training.md and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness.plain_loop import CLASSES, MEAN, STD, WARM_UP_BATCHES, PlainLoop, now, timed
from training.assemble import build_step
from training.data.batches import DeviceDataset
from training.data.dataset import Dataset, Split
from training.distributed import choose_device
from training.loop import Run, new_optimizer, train_epoch
from training.models.build import build_network
from training.recipes.schema import Recipe
from training.speed import compile_step, use_tensor_cores

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs" / "guide" / "training.md"
BEGIN, END = "<!-- training benchmark -->\n", "<!-- end -->\n"


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the table, write the JSON; or fill in the docs."""
    arguments = _arguments(argv)
    if arguments.write_docs:
        write_docs()
        return
    device = choose_device(arguments.device)
    images = random_images(arguments.batch * arguments.steps, arguments.side)
    contenders: dict[str, Callable[[], float]] = {
        "plain": PlainLoop(arguments, device, images).seconds,
        "ours": OurLoop(arguments, device, images).seconds,
    }
    if arguments.compile:
        contenders["compiled"] = OurLoop(arguments, device, images, compiled=True).seconds
    load = os.getloadavg()[0]
    seen: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(arguments.repeats):
        for name, seconds in contenders.items():
            seen[name].append(seconds() / arguments.steps * 1e3)
    result = {
        "machine": machine(device),
        "load_before": round(load, 2),
        "network": f"{arguments.network} of width {arguments.width}, {arguments.side} pixels",
        "batch": arguments.batch,
        "steps": arguments.steps,
        "repeats": arguments.repeats,
        "workers": arguments.workers,
        "ms_a_batch": {name: round(statistics.median(all_), 1) for name, all_ in seen.items()},
        "split_ms": OurLoop(arguments, device, images).split(),
    }
    path = arguments.json or HERE / f"epoch-{device.type}.json"
    path.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    print(section([result]))


class OurLoop:
    """Our loop: images on the device, augmented there in batches, bf16, channels_last."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        device: torch.device,
        images: Split,
        compiled: bool = False,
    ) -> None:
        shape, exits = arguments.network, [1, 2, 3, 4]
        recipe = Recipe.model_validate(
            {
                "name": "benchmark",
                "data": {"name": "cifar100", "held_out": 1},
                "network": {"name": shape, "width": arguments.width, "exits": exits},
                "objective": {"method": "oto"},
                "teacher": {"recipe": "fresh"},
                "train": {"epochs": 1, "batch_size": arguments.batch, "learning_rate": 0.01},
            }
        )
        data = Dataset("random", images, images, tuple(map(str, range(CLASSES))), MEAN, STD)
        teacher = build_network(shape, arguments.width, CLASSES, exits).eval()
        step = build_step(recipe, data, teacher, HERE, torch.from_numpy(images.labels))
        step = step.to(device).to(memory_format=torch.channels_last)
        if compiled:
            compile_step(step, device)
        split = DeviceDataset.of(images, device)
        self._run = Run(HERE, recipe, step, split, split, device)
        self._optimizer = new_optimizer(self._run, 0)
        self._warm = False

    def seconds(self) -> float:
        """One pass over the images."""
        with self._tuned():
            if not self._warm:
                self._epoch()
                self._warm = True
            return timed(self._epoch, self._run.device)

    def split(self) -> dict[str, float]:
        """Median milliseconds of a batch in each part, with the device synchronised in between."""
        run, step = self._run, self._run.step
        parts: dict[str, list[float]] = {}

        def clocked(part: str, work: Callable[..., Any], *inputs: Any) -> Any:
            began = now(run.device)
            result = work(*inputs)
            parts.setdefault(part, []).append(now(run.device) - began)
            return result

        teach = step._run_teacher
        with self._tuned():
            step.train()
            step._run_teacher = lambda inputs: clocked("teacher", teach, inputs)  # type: ignore[method-assign]
            batches = run.train.shuffled(run.recipe.train.batch_size, run.recipe.data, 0, 0)
            for _ in range(len(run.train) // run.recipe.train.batch_size):
                images, batch = clocked("data", next, batches)
                loss = clocked("student forward", step, images, batch)
                parts["student forward"][-1] -= parts["teacher"][-1]
                self._optimizer.zero_grad()
                clocked("student backward", loss.backward)
                clocked("optimiser", self._optimizer.step)
        later = {part: spent[WARM_UP_BATCHES:] or spent for part, spent in parts.items()}
        return {part: round(1e3 * statistics.median(spent), 1) for part, spent in later.items()}

    def _epoch(self) -> None:
        train_epoch(self._run, self._optimizer, 0, lambda *_: None)

    @contextmanager
    def _tuned(self) -> Iterator[None]:
        """With the GPU settings of our runs, which the plain loop does not have."""
        before = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
        if self._run.device.type == "cuda":
            use_tensor_cores()
        yield
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.benchmark = before[1]


def random_images(count: int, side: int) -> Split:
    """`count` images of random bytes."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return Split(pixels, rng.integers(0, CLASSES, count))


def machine(device: torch.device) -> str:
    """The device, the processor, its cores and torch, in one line."""
    name = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            name = line.split(":", 1)[1].strip()
            break
    place = f"{torch.cuda.get_device_name(device)} beside " if device.type == "cuda" else ""
    return f"{place}{name}, {os.cpu_count()} cores, torch {torch.__version__}"


def section(results: Sequence[dict[str, Any]]) -> str:
    """`results` as Markdown."""
    if not results:
        return "Not measured yet.\n"
    return "\n".join(_one(result) for result in results)


def _one(result: dict[str, Any]) -> str:
    times, split = result["ms_a_batch"], result["split_ms"]
    lines = [
        f"{result['machine']}; {result['network']}, teacher of the same shape, batches of "
        f"{result['batch']}: medians of {result['repeats']} turns of {result['steps']} batches, "
        f"{result['workers']} DataLoader workers.",
        "",
        "| loop | ms a batch | against plain |",
        "|---|---|---|",
        *(f"| {name} | {ms:.1f} | {times['plain'] / ms:.2f} x |" for name, ms in times.items()),
        "",
        "| part of ours | ms a batch |",
        "|---|---|",
        *(f"| {part} | {ms:.1f} |" for part, ms in split.items()),
    ]
    return "\n".join(lines) + "\n"


def written_results() -> list[dict[str, Any]]:
    """The results in the JSON files beside this module."""
    return [json.loads(path.read_text("utf-8")) for path in sorted(HERE.glob("epoch-*.json"))]


def write_docs() -> None:
    """Write the section between its markers in docs/guide/training.md."""
    before, rest = DOCS.read_text("utf-8").split(BEGIN)
    _, after = rest.split(END)
    DOCS.write_text(before + BEGIN + section(written_results()) + END + after, "utf-8")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--compile", action="store_true", help="measure torch.compile as well")
    parser.add_argument("--json", type=Path, help="default: epoch-DEVICE.json beside this file")
    parser.add_argument(
        "--write-docs", action="store_true", help="only fill in docs/guide/training.md"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
