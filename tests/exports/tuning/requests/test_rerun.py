"""Recorded images go through all exits as the server would run them."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import orjson
from PIL import Image

from exports.bundle.reader import load_bundle
from exports.stage_runner import StageRunner
from exports.tuning.requests.recorded import Key, Place
from exports.tuning.requests.rerun import run_recorded
from tests.serving.tiny_bundle import SIZE, write_tiny_bundle


def png(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def test_every_image_that_can_be_decoded_is_run(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny")
    images = np.random.default_rng(0).integers(0, 256, (40, SIZE, SIZE, 3)).astype(np.uint8)
    files = [png(pixels) for pixels in images]
    files[3] = b"no image"
    records, places = tmp_path / "requests-1.jsonl", dict[Key, Place]()
    with records.open("wb") as out:
        for n, file in enumerate(files):
            places[str(n), 0, "t"] = Place(records, out.tell())
            out.write(orjson.dumps({"file": base64.b64encode(file).decode()}) + b"\n")
        for file in (None, "x", 7):
            places[f"bad {file}", 0, "t"] = Place(records, out.tell())
            out.write(orjson.dumps({"file": file}) + b"\n")
    places["gone", 0, "t"] = Place(tmp_path / "requests-0.jsonl", 0)
    found = run_recorded(bundle, places)
    assert set(found) == {(str(n), 0, "t") for n in range(40) if n != 3}
    expected = StageRunner(load_bundle(bundle).stages).logits(images)
    for (n, _, _), logits in found.items():
        np.testing.assert_allclose(logits, expected[:, int(n)], atol=1e-4)
