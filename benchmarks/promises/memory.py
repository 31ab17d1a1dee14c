"""The memory of a server by the number of models that it has loaded, and of decoding its largest images.

    python -m benchmarks.promises.memory          # two minutes on one core

Servers with 1, 2, 4 and 8 copies of the embedded bundle, then of a ResNet-50 of random weights, answer
batches with every model. Then a server with one worker decodes images of as many pixels as it allows. Linux
only: /proc has the memory. Writes a JSON file; `--write-docs` puts it into the guide and measures nothing.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import io
import json
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.bundles import note_on
from benchmarks.harness.docs import publish, table
from benchmarks.harness.networks import random_bundle
from benchmarks.harness.server import generated_images, machine, serving
from exports.bundle.manifest import MANIFEST
from exports.bundle.reader import Bundle, load_bundle
from exports.bundle.resolve import CIFAR100

RESULTS = Path(__file__).parents[1]
MIB = 1 << 20
LARGER = "resnet50"
BATCH = 32
BATCHES = 3
# EXIF's tag, and the value whose transpose needs a second image.
ORIENTATION, TRANSPOSED = 0x0112, 6


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the tables, write the JSON; or fill in the docs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--copies", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--pixels", type=int, default=50_000_000, help="of the largest images")
    parser.add_argument("--larger", default=LARGER, help="the network of the larger bundle")
    parser.add_argument("--json", type=Path, default=RESULTS / "memory.json")
    parser.add_argument("--write-docs", action="store_true")
    publish(parser.parse_args(argv), run, section, "guide/operations.md", "memory")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """The result as it is written."""
    with tempfile.TemporaryDirectory() as folder:
        small = load_bundle(CIFAR100)
        larger = random_bundle(Path(folder, "larger"), arguments.larger)
        models = [by_copies(bundle, arguments.copies, Path(folder)) for bundle in (small, larger)]
    return {
        "machine": machine(),
        "batch": BATCH,
        "models": models,
        "pixels": arguments.pixels,
        "images": by_image(arguments.pixels),
    }


def by_copies(bundle: Bundle, counts: Sequence[int], folder: Path) -> dict[str, Any]:
    """The memory of servers with so many copies of `bundle`; `folder` is for the copies."""
    name = bundle.manifest.name
    copies = [copy(bundle, folder / f"{name}-{number}") for number in range(max(counts))]
    rows = []
    for count in counts:
        with serving(*copies[:count], workers=1) as (port, process):
            started = resident(process)
            for path in copies[:count]:
                exercise(port, path.name, generated_images(bundle.manifest.input, BATCH))
            rows.append({"copies": count, "started": started, "answered": resident(process)})
        print(name, rows[-1], flush=True)
    files = sum(file.stat().st_size for file in bundle.path.glob("*.onnx"))
    return {"name": name, "file_bytes": files, "rows": rows}


def copy(bundle: Bundle, path: Path) -> Path:
    """Copy `bundle` to `path`, as a model of its name."""
    shutil.copytree(bundle.path, path)
    changed = bundle.manifest.model_copy(update={"name": path.name})
    (path / MANIFEST).write_text(changed.model_dump_json(), "utf-8")
    return path


def exercise(port: int, model: str, files: Sequence[bytes]) -> None:
    """Have `model` run batches of `files` through all its stages."""
    body = json.dumps({"images": [base64.b64encode(file).decode() for file in files]}).encode()
    for _ in range(BATCHES):
        post(port, f"/v1/classify?model={model}&threshold=2", body, "application/json")


def by_image(pixels: int) -> list[dict[str, Any]]:
    """The peak while a server with one worker decodes an image of `pixels`, by what it takes to decode."""
    side = int(pixels**0.5)
    plain = Image.new("RGB", (side, side), "grey")
    turned = Image.Exif()
    turned[ORIENTATION] = TRANSPOSED
    files = {
        "JPEG": encoded(plain, "JPEG"),
        "PNG": encoded(plain, "PNG"),
        "transparent PNG, turned by EXIF": encoded(plain.convert("RGBA"), "PNG", exif=turned),
    }
    rows = []
    for kind, content in files.items():
        with serving(workers=1) as (port, process):
            post(port, "/v1/classify", generated_images(load_bundle(CIFAR100).manifest.input, 1)[0])
            before = resident(process)
            post(port, "/v1/classify", content)
            rows.append({"image": kind, "before": before, "peak": peak(process)})
        print(rows[-1], flush=True)
    return rows


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The image as a file."""
    content = io.BytesIO()
    image.save(content, kind, compress_level=1, **options)
    return content.getvalue()


def post(port: int, path: str, body: bytes, kind: str = "application/octet-stream") -> None:
    """Send `body`; raises RuntimeError unless the answer is 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("POST", path, body, {"Content-Type": kind})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    if answer.status != http.client.OK:
        raise RuntimeError(text)


def resident(process: int) -> int:
    """The memory of `process` in bytes, with its share of pages that other processes use as well (PSS)."""
    return _kib(f"/proc/{process}/smaps_rollup", "Pss")


def peak(process: int) -> int:
    """The most resident memory (RSS) that `process` ever had, in bytes."""
    return _kib(f"/proc/{process}/status", "VmHWM")


def _kib(path: str, name: str) -> int:
    (value,) = re.findall(rf"^{name}:\s+(\d+) kB", Path(path).read_text(), re.MULTILINE)
    return 1024 * int(value)


def per_further(model: dict[str, Any]) -> float:
    """Bytes that each further copy takes once all have answered: the slope between the first and last row."""
    first, last = model["rows"][0], model["rows"][-1]
    return (last["answered"] - first["answered"]) / (last["copies"] - first["copies"])


def section(result: dict[str, Any]) -> str:
    """The section of the guide."""
    rows = [
        [
            model["name"],
            f"{model['file_bytes'] / MIB:.0f}",
            row["copies"],
            f"{row['started'] / MIB:.0f}",
            f"{row['answered'] / MIB:.0f}",
        ]
        for model in result["models"]
        for row in model["rows"]
    ]
    head = ("bundle", "its ONNX files", "copies", "started", "after answers")
    further = "; ".join(
        f"{model['name']} {per_further(model) / MIB:.0f} MiB, "
        f"{per_further(model) / model['file_bytes']:.1f} times its files"
        for model in result["models"]
    )
    images = [
        [
            row["image"],
            f"{(row['peak'] - row['before']) / MIB:.0f}",
            f"{(row['peak'] - row['before']) / result['pixels']:.1f}",
        ]
        for row in result["images"]
    ]
    return (
        f"MiB of memory (PSS) of a server with one worker, started and after {BATCHES} batches of "
        f"{result['batch']} images through every stage of every model "
        f"(`python -m benchmarks.promises.memory`):\n\n{table(head, rows)}\n\n"
        f"Each further copy takes: {further}.{note_on(model['name'] for model in result['models'])}\n\n"
        f"Peak while one image of {result['pixels'] / 1e6:.0f} million pixels is decoded, above what the "
        "server had before:\n\n"
        f"{table(('image', 'MiB', 'bytes a pixel'), images)}\n\n{result['machine']}.\n"
    )


if __name__ == "__main__":
    main()
