"""The benchmarks of serving run on a tiny network; the figures are discarded."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from benchmarks import serving, threads
from benchmarks.harness.generator import load
from benchmarks.harness.load import pack
from benchmarks.harness.networks import whole_network
from exports.bundle.reader import Bundle
from serving.inference.engine import Engine
from tests.serving.tiny_bundle import EXITS


def test_serving_is_measured_from_the_stages_to_the_client(
    bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = "--quick --seconds 0.3 --repeats 5 --shares 0.5"
    file = tmp_path / "serving.json"
    serving.main([*options.split(), "--bundle", str(bundle_path), "--json", str(file)])
    result = json.loads(file.read_text())
    assert result["images"] == "generated"
    (chain,) = result["chain"]
    assert chain["stages_ms"] > 0
    assert chain["one_ms"] > 0
    (http,) = result["http"]
    assert http["in_process"] > 0
    assert http["http"] > 0
    assert [row["mode"] for row in result["open"]] == ["full depth", "last exit", "early exit"]
    for row in result["open"]:
        assert row["failed"] == 0
        assert 0 < row["p50"] <= row["p95"] <= row["p99"]
        assert row["accuracy"] is None
    assert [row["mean_exit"] for row in result["open"]][:2] == [EXITS, EXITS]
    assert result["machine"] in capsys.readouterr().out


def test_a_run_is_summarised_by_its_answers() -> None:
    report = {
        "offered": 4,
        "statuses": {"200": 3, "429": 1},
        "latencies": [1.0, 2.0, 300.0],
        "answers": [[0, 7, 1], [1, 8, 2], [0, 6, 3]],
        "late_by": [0.0, 0.1],
        "cpu_s": 0.5,
    }
    found = serving.summary(report, labels=[7, 8], seconds=2.0, slo=100.0)
    assert found["accuracy"] == pytest.approx(200 / 3)
    assert found["goodput"] == 1.0
    assert found["refused"] == 0.25
    assert found["failed"] == 0
    assert found["mean_exit"] == 2.0
    assert found["generator_cpu"] == 0.25


def test_a_busy_connection_that_is_refused_waits_for_retry_after(tmp_path: Path) -> None:
    pack([b"x"], tmp_path / "images.npz")

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\nx"):
                writer.write(b"HTTP/1.1 429 x\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def refused(seconds: float) -> int:
        async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            options = (port, tmp_path / "images.npz", seconds, "--closed", "2")
            report = await asyncio.to_thread(load, *options)
        return int(report["statuses"]["429"])

    assert asyncio.run(refused(0.3)) == 2
    assert asyncio.run(refused(1.5)) == 4


@pytest.mark.parametrize("pool", ["shared", "default"])
def test_a_thread_layout_is_measured_in_its_own_process(bundle_path: Path, pool: str) -> None:
    found = threads._in_a_process(bundle_path, 2, pool, 5)
    assert all(
        found[key] > 0
        for key in ("stages_ms", "decided_ms", "one_ms", "last_ms", "images_a_second")
    )


def test_one_session_computes_what_the_stages_do(
    bundle: Bundle, engine: Engine, images: NDArray[np.uint8]
) -> None:
    inputs, expected = images, []
    for stage in range(1, EXITS + 1):
        output = engine.compute(stage, inputs)
        expected.append(output.logits)
        inputs = output.features
    for exits, wanted in ((True, expected), (False, expected[-1:])):
        session = ort.InferenceSession(whole_network(bundle, exits=exits))
        found = session.run(None, {"image": images})
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)
