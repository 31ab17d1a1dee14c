"""Two stock ONNX classifiers become a cascade."""

from __future__ import annotations

from pathlib import Path

from exports.bundle.reader import load_bundle
from tests.commands import call
from tests.exports.front.conftest import LARGE_SIDE, Stock
from tests.exports.imported.classifiers import CLASSES


def test_two_networks_of_torchvision_are_a_cascade(stock: Stock, tmp_path: Path) -> None:
    networks = (stock.small, stock.large, "--labels", stock.labels, "--preprocess", "imagenet")
    target = tmp_path / "bundle"
    done = call("cascade", *networks, "--calibrate", stock.photos, "-o", target)
    assert done.code == 0, done.err
    manifest = load_bundle(target).manifest
    assert manifest.labels == CLASSES
    assert manifest.input.width == LARGE_SIDE
    assert manifest.exits[0].held_out.single > 90
    alone = manifest.exits[1].macs - manifest.exits[0].macs
    assert manifest.provenance.test_default.mean_macs < 0.95 * alone
