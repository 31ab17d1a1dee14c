"""A bundle is loaded as it was written, or refused in one sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from exports.bundle.errors import BundleError
from exports.bundle.reader import load_bundle, load_table, read_manifest, sha256, write_table


@pytest.fixture
def bundle(digits_bundle: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(digits_bundle, tmp_path / "digits"))


def edit(file: Path, change: Callable[[dict[str, object]], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_an_exported_bundle_loads(digits_bundle: Path) -> None:
    bundle = load_bundle(digits_bundle)
    manifest = bundle.manifest
    assert manifest.name == "digits-oto"
    assert manifest.labels == tuple("0123456789")
    assert (manifest.input.height, manifest.input.width) == (16, 16)
    assert len(bundle.stages) == len(manifest.exits) == 4
    assert bundle.policy.exits == 4
    assert [entry.macs for entry in manifest.exits] == sorted(e.macs for e in manifest.exits)
    assert [e.feature_shape for e in manifest.exits] == [(4, 16, 16), (8, 8, 8), (16, 4, 4), None]


def test_the_calibration_table_reproduces_the_accuracies_in_the_manifest(
    digits_bundle: Path,
) -> None:
    manifest = read_manifest(digits_bundle)
    table = load_table(digits_bundle, manifest)
    assert table.logits.shape == (4, 300, 10)
    for entry, logits in zip(manifest.exits, table.logits, strict=True):
        accuracy = 100 * (logits.argmax(1) == table.labels).mean()
        assert accuracy == pytest.approx(entry.held_out.single, abs=0.5)


def flip_a_byte(bundle: Path) -> None:
    file = bundle / "stage2.onnx"
    content = bytearray(file.read_bytes())
    content[1000] ^= 1
    file.write_bytes(content)


def replace_with_a_link(bundle: Path) -> None:
    (bundle / "stage1.onnx").rename(bundle.parent / "stage1.onnx")
    (bundle / "stage1.onnx").symlink_to(bundle.parent / "stage1.onnx")


def pickled_table(bundle: Path) -> None:
    np.savez(bundle / "calibration.npz", logits=np.array([{"a": 1}]), labels=np.zeros(1))
    digest = sha256((bundle / "calibration.npz").read_bytes())
    edit(bundle / "manifest.json", lambda m: m["calibration"].update(sha256=digest))  # type: ignore[attr-defined]


def first_exit(**values: object) -> Callable[[dict[str, object]], object]:
    return lambda manifest: manifest["exits"][0].update(values)  # type: ignore[index]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (flip_a_byte, "stage2.onnx is damaged"),
        (lambda b: (b / "stage3.onnx").unlink(), "stage3.onnx cannot be read: No such file"),
        (lambda b: (b / "policy.json").unlink(), "policy.json cannot be read"),
        (replace_with_a_link, "stage1.onnx is a link"),
        (pickled_table, "calibration.npz is not a calibration table"),
        (lambda b: (b / "manifest.json").write_text("{"), "not valid JSON"),
        (lambda b: (b / "manifest.json").write_text("[1]"), "manifest.json is not valid"),
        (lambda b: edit(b / "manifest.json", lambda m: m.update(format=3)), "format 3"),
        (lambda b: edit(b / "manifest.json", first_exit(file="../../etc/passwd")), "exits.0.file"),
        (lambda b: edit(b / "manifest.json", first_exit(macs=0)), "exits.0.macs"),
        (lambda b: edit(b / "manifest.json", first_exit(extra=1)), "exits.0.extra"),
        (lambda b: edit(b / "manifest.json", first_exit(feature_shape=None)), "feature_shape"),
        (lambda b: edit(b / "manifest.json", lambda m: m.update(labels=["a", "b"])), "shape"),
        (lambda b: edit(b / "policy.json", lambda p: p.update(thresholds=[0.5] * 5)), "6 exits"),
        (lambda b: edit(b / "policy.json", lambda p: p.update(mode="never")), "mode"),
        (shutil.rmtree, "no such directory"),
    ],
)
def test_a_damaged_bundle_is_refused_in_one_sentence(
    bundle: Path, damage: Callable[[Path], object], says: str
) -> None:
    load_bundle(bundle)
    damage(bundle)
    with pytest.raises(BundleError, match=says) as caught:
        load_bundle(bundle)
    assert "\n" not in str(caught.value)


def test_writing_a_table_preserves_it(tmp_path: Path, digits_bundle: Path) -> None:
    table = load_table(digits_bundle, read_manifest(digits_bundle))
    write_table(tmp_path / "again.npz", table, "held_out")
    with np.load(tmp_path / "again.npz") as arrays:
        assert np.array_equal(arrays["logits"].astype(np.float32), table.logits)
        assert np.array_equal(arrays["labels"], table.labels)
