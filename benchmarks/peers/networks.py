"""The networks that peers serve: a bundle at full depth as one graph, and two graphs of it as a cascade."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.model import ABOUT, CONDITION, GRAPH, LARGE, SMALL
from exports.bundle.policy import Floats
from exports.bundle.reader import IMAGE, Bundle, Table, load_table
from exports.graphs.cost import count_graph_macs
from exports.graphs.onnx_tools import exit_graph

# What the cascade may lose on the calibration table, as the default policy of a bundle: half a point.
PERMITTED_DROP = 0.005


@dataclass(frozen=True)
class Cascade:
    """Exit `exit_` as a network of its own answers where its confidence is at least `threshold`, all other
    images go to the network at full depth, which begins with the image again. `cost` is the mean in
    multiply-accumulates on the calibration table."""

    exit_: int
    threshold: float
    cost: float


def write_model(bundle: Bundle, folder: Path) -> Path:
    """Write `bundle` at full depth as one graph, image -> logits of the last exit, into `folder`, and its
    cascade into subfolders, if it has one."""
    _write_network(bundle, len(bundle.stages), folder)
    cascade = best_cascade(bundle)
    if cascade is not None:
        _write_network(bundle, cascade.exit_, folder / SMALL)
        _write_network(bundle, len(bundle.stages), folder / LARGE)
        (folder / CONDITION).write_text(json.dumps({"threshold": cascade.threshold}), "utf-8")
    return folder


def best_cascade(bundle: Bundle) -> Cascade | None:
    """The cheapest cascade of an exit and full depth that loses at most PERMITTED_DROP on the calibration
    table; None if none is cheaper than full depth alone."""
    manifest = bundle.manifest
    table = load_table(bundle.path, manifest)
    macs = [_macs(bundle, exit_) for exit_ in range(1, len(bundle.stages) + 1)]
    found: Cascade | None = None
    for exit_, entry in enumerate(manifest.exits[:-1], 1):
        confidence = _confidence(table.logits[exit_ - 1], entry.temperature)
        threshold, share = _threshold(table, exit_, confidence)
        cost = macs[exit_ - 1] + (1 - share) * macs[-1]
        if cost < (macs[-1] if found is None else found.cost):
            found = Cascade(exit_, threshold, cost)
    return found


def _threshold(table: Table, exit_: int, confidence: NDArray[np.float64]) -> tuple[float, float]:
    """The least threshold that loses at most PERMITTED_DROP, and the share of samples that it answers."""
    order = np.argsort(-confidence, kind="stable")
    right, last_right = (table.logits[k].argmax(axis=1) == table.labels for k in (exit_ - 1, -1))
    gained = np.cumsum(right[order].astype(int) - last_right[order])
    lost_little = np.flatnonzero(-gained <= PERMITTED_DROP * len(order))
    if not len(lost_little):
        return 1.0, 0.0
    last = int(lost_little[-1])
    return float(confidence[order[last]]), (last + 1) / len(order)


def _confidence(logits: Floats, temperature: float) -> NDArray[np.float64]:
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    best: NDArray[np.float64] = powers.max(axis=1) / powers.sum(axis=1)
    return best


def _macs(bundle: Bundle, exit_: int) -> int:
    size = bundle.manifest.input
    image = np.zeros((1, size.height, size.width, 3), np.uint8)
    return count_graph_macs(exit_graph(bundle.stages, exit_), {IMAGE: image})


def _write_network(bundle: Bundle, exit_: int, folder: Path) -> None:
    manifest = bundle.manifest
    about = {
        "height": manifest.input.height,
        "width": manifest.input.width,
        "resize": manifest.input.resize,
        "temperature": manifest.exits[exit_ - 1].temperature,
        "exits": exit_,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / GRAPH).write_bytes(exit_graph(bundle.stages, exit_))
    (folder / ABOUT).write_text(json.dumps(about), "utf-8")
