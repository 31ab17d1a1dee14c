"""The servers compared with Offramp serve the same network, and their figures become tables of the docs."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax

from benchmarks.harness.forms import FORMS
from benchmarks.harness.processes import alive, tree
from benchmarks.harness.server import generated_images
from benchmarks.harness.wire import Connection, Reply
from benchmarks.peers import __main__ as comparison
from benchmarks.peers.environment import INSTALLED, REQUIREMENTS, environment, versions
from benchmarks.peers.model import LARGE, SMALL, FullNetwork
from benchmarks.peers.networks import PERMITTED_DROP, best_cascade, write_model
from benchmarks.peers.picture import draw, drawn, unanswered
from benchmarks.peers.section import ratios, section
from benchmarks.peers.servers import CASCADE, PEERS, Peer, StartError, started
from exports.bundle.reader import load_bundle, load_table
from offramp.images import ImageSpec, decode
from serving.inference.engine import Engine
from tests.exports.bundles import INT8
from tests.serving.tiny_bundle import write_tiny_bundle

PROCESSES = next(peer for peer in PEERS if peer.name == "FastAPI, processes")
CASCADE_PEER = next(peer for peer in PEERS if peer.command == CASCADE)


def test_a_peer_answers_what_the_engine_does_at_full_depth_and_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    bundle = load_bundle(write_tiny_bundle(tmp_path / "tiny"))
    engine = Engine(bundle)
    policy = bundle.policy.override(mode="exit", max_exit=engine.exits)
    spec = ImageSpec(bundle.manifest.input.height, bundle.manifest.input.width)
    files = generated_images(bundle.manifest.input, 20)
    model = write_model(bundle, tmp_path / "model")
    with started(PROCESSES, sys.executable, model, files[0], 50) as (port, process):
        found = [reply.json()["predictions"] for reply in asyncio.run(_ask(port, files))]
        processes = tree(process)
    assert len(processes) > 1
    assert not any(map(alive, processes))
    for file, (answer,) in zip(files, found, strict=True):
        (wanted,) = engine.classify(decode(file, spec, 10_000)[None], policy)
        assert answer["index"] == wanted.index
        assert answer["exit"] == wanted.exit
        assert answer["confidence"] == pytest.approx(wanted.confidence, abs=1e-5)


def test_the_cascade_answers_what_its_two_exits_do_by_the_confidence_of_the_first(
    tmp_path: Path,
) -> None:
    """The threshold keeps what it may lose, and each answer is of the right network."""
    bundle = load_bundle(INT8)
    chosen = best_cascade(bundle)
    assert chosen is not None
    table = load_table(bundle.path, bundle.manifest)
    scaled = table.logits[chosen.exit_ - 1] / bundle.manifest.exits[chosen.exit_ - 1].temperature
    confidence = softmax(scaled.astype(float), axis=1).max(axis=1)
    first, last = (table.logits[k].argmax(axis=1) for k in (chosen.exit_ - 1, -1))
    answers = np.where(confidence >= chosen.threshold, first, last)
    loss = (last == table.labels).mean() - (answers == table.labels).mean()
    assert 0 <= loss <= PERMITTED_DROP + 1e-9
    assert 0.1 < (confidence >= chosen.threshold).mean() < 0.9

    files = generated_images(bundle.manifest.input, 30)
    model = write_model(bundle, tmp_path / "model")
    with started(CASCADE_PEER, sys.executable, model, files[0], 50) as (port, process):
        found = [reply.json()["predictions"] for reply in asyncio.run(_ask(port, files))]
        processes = tree(process)
    assert len(processes) >= 3
    assert not any(map(alive, processes))
    small, large = (FullNetwork(model / name) for name in (SMALL, LARGE))
    expected = []
    for file in files:
        (answer,) = small.predict([small.decode(file)])
        if answer["confidence"] < chosen.threshold:
            (answer,) = large.predict([large.decode(file)])
        expected.append(answer)
    assert {answer["exit"] for answer in expected} == {chosen.exit_, len(bundle.stages)}
    for (answer,), wanted in zip(found, expected, strict=True):
        assert answer == {**wanted, "confidence": pytest.approx(wanted["confidence"], abs=1e-6)}


async def _ask(port: int, files: list[bytes]) -> list[Reply]:
    connection = await Connection.open("127.0.0.1", port)
    replies = [await connection.post("/classify", file) for file in files]
    connection.close()
    return replies


def test_a_peer_that_ends_at_once_reports_its_output(tmp_path: Path) -> None:
    peer = Peer("Broken", "none", "badly", ("-c", "raise SystemExit('no model here')"))
    with (
        pytest.raises(StartError, match="no model here"),
        started(peer, sys.executable, tmp_path, b"", 50),
    ):
        pass


def test_tritons_binary_answer_is_read() -> None:
    kinds = (("index", "INT64", 8), ("confidence", "FP32", 4), ("exit", "INT64", 8))
    outputs = [
        {"name": name, "datatype": kind, "parameters": {"binary_data_size": size}}
        for name, kind, size in kinds
    ]
    head = json.dumps({"outputs": outputs}).encode()
    values = (82).to_bytes(8, "little") + bytes(4) + (4).to_bytes(8, "little")
    headers = {"inference-header-content-length": str(len(head))}
    assert FORMS["tensor"].read(Reply(200, headers, head + values)) == (82, 4)


def test_every_peer_is_pinned_and_no_package_index_is_named() -> None:
    lines = [
        line for line in REQUIREMENTS.read_text("utf-8").splitlines() if not line.startswith("#")
    ]
    names = set()
    for line in lines:
        pinned = re.fullmatch(r"([a-z0-9-]+)==[0-9.]+(; .+)?", line)
        assert pinned, line
        names.add(pinned.group(1))
    assert names >= {peer.package for peer in PEERS}


def test_an_existing_environment_is_not_changed(tmp_path: Path) -> None:
    (tmp_path / INSTALLED).write_text(REQUIREMENTS.read_text("utf-8"), "utf-8")
    assert environment(tmp_path) == tmp_path / "bin" / "python"
    assert [entry.name for entry in tmp_path.iterdir()] == [INSTALLED]


def test_packages_that_are_not_installed_have_no_version() -> None:
    assert set(versions(Path(sys.executable), ["fastapi", "no-such-package"])) == {"fastapi"}


def _row(server: str, most: float, goodput: float, cpu_ms: float) -> dict[str, Any]:
    latencies = {"p50": 5.0, "p99": 9.0, "refused": 0.25, "failed": 0, "accuracy": 70.5}
    return {
        **{"bundle": "tiny fp32", "server": server, "product": server.split(",")[0]},
        **{
            "most": most,
            "most_range": [most, most],
            "cpu_ms": cpu_ms,
            "alone_ms": 2.5,
            "accuracy": 70.0,
        },
        **{"goodput": goodput, "open": [{"rate": 300.0, "goodput": goodput, **latencies}]},
    }


ROWS = [
    _row("Offramp, last exit", 400, 300, 4.0),
    _row("Offramp, early exit", 600, 500, 2.0),
    _row("LitServe, one by one", 200, 100, 5.0),
    _row("LitServe, batches", 100, 250, 8.0),
]


def test_ratios_are_to_the_best_layout_in_each_figure() -> None:
    (line,) = ratios(ROWS)
    most, goodput, cpu = ("3.00", "2.00"), ("2.00", "1.20"), ("2.50", "1.25")
    assert line == ["tiny fp32", "LitServe", *most, *goodput, *cpu]


def test_the_section_shows_capacity_and_load_and_which_peers_were_left_out() -> None:
    report = {
        **{"machine": "a machine", "versions": {"litserve": "1.2"}, "images": "generated"},
        **{"seconds": 5.0, "rounds": 3, "slo_ms": 100.0, "rows": ROWS},
        "left_out": {"PyTriton, batches": "not installed"},
    }
    text = section(report, "other.png")
    assert "(../images/other.png)" in text
    assert "**tiny fp32**" in text
    assert "| server | maximum/s (range) | p50, ms at 300/s | p99, ms | CPU, ms an answer |" in text
    assert "| server | goodput/s at 300/s | p99, ms at 300/s | refused at 300/s | failed |" in text
    assert "| LitServe, batches | 250 | 9.0 | 25% | 0 |" in text
    assert "| Offramp, early exit | 600 (600-600) | 5.0 | 9.0 | 2.00 | 70.00 | 2.50 |" in text
    assert "Left out: PyTriton, batches (not installed)." in text
    assert "litserve 1.2" in text


def test_the_picture_shows_early_exit_and_the_fastest_layout_of_each_peer(tmp_path: Path) -> None:
    shown = [row["server"] for row in drawn(ROWS, "tiny fp32")]
    assert shown == ["Offramp, early exit", "LitServe, one by one"]
    draw({"machine": "a machine", "seconds": 5.0, "rows": ROWS}, tmp_path / "peers.png")
    assert (tmp_path / "peers.png").is_file()
    assert unanswered({"rate": 100.0, "refused": 0.25, "failed": 50}, 5.0) == pytest.approx(0.35)


def test_medians_are_taken_figure_by_figure() -> None:
    rounds = [
        {"most": most, "accuracy": None, "open": [{"rate": 10.0, "p50": p50}]}
        for most, p50 in ((1.0, 30.0), (3.0, 20.0), (2.0, 70.0))
    ]
    assert comparison.medians(rounds) == {
        **{"most": 2.0, "most_range": [1.0, 3.0], "accuracy": None},
        "open": [{"rate": 10.0, "p50": 30.0}],
    }
