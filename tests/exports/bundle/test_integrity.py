"""Every fault of a bundle gives one sentence that names the file, and exit code 2."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from exports.bundle.errors import BundleError
from exports.bundle.inspection import inspect_bundle
from exports.bundle.manifest import MAX_TABLE_LOGITS
from exports.bundle.reader import load_bundle, sha256
from exports.bundle.untrusted import safe_files
from tests.commands import call
from tests.exports.bundle.damage import (
    HOSTILE_HEADERS,
    Damage,
    first_exit,
    graph,
    in_json,
    in_manifest,
    in_place_of,
    in_text,
    stage,
    table,
    table_header,
    unix_socket,
    with_external_data,
)
from tests.serving.tiny_bundle import EXITS, LABELS, write_tiny_bundle
from tests.sessions import plain_session


@pytest.fixture
def bundle(bundle_path: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(bundle_path, tmp_path / "tiny"))


FAULTS: dict[str, tuple[Damage, str]] = {
    # files
    "missing stage": (
        lambda b: (b / "stage2.onnx").unlink(),
        "stage2.onnx cannot be read: No such",
    ),
    "missing manifest": (lambda b: (b / "manifest.json").unlink(), "manifest.json cannot be read"),
    "empty stage": (lambda b: (b / "stage2.onnx").write_bytes(b""), "stage2.onnx is damaged"),
    "cut stage": (lambda b: os.truncate(b / "stage2.onnx", 99), "stage2.onnx is damaged"),
    "longer stage": (
        lambda b: (b / "stage2.onnx").open("ab").write(b"\0"),
        "stage2.onnx is damaged",
    ),
    "link": (in_place_of("stage1.onnx", lambda p: p.symlink_to("stage2.onnx")), "1.onnx is a link"),
    "linked policy": (
        in_place_of("policy.json", lambda p: p.symlink_to("/etc/passwd")),
        "policy.json is a link",
    ),
    "directory": (in_place_of("stage1.onnx", Path.mkdir), "stage1.onnx is not a plain file"),
    "pipe": (in_place_of("manifest.json", os.mkfifo), "manifest.json is not a plain file"),
    "socket": (in_place_of("stage1.onnx", unix_socket), "stage1.onnx cannot be read"),
    "large manifest": (
        in_text("manifest.json", "{", "{" + " " * safe_files.MAX_MANIFEST_BYTES),
        f"at most {safe_files.MAX_MANIFEST_BYTES} are allowed",
    ),
    "large policy": (
        in_text("policy.json", "{", "{" + " " * safe_files.MAX_POLICY_BYTES),
        f"at most {safe_files.MAX_POLICY_BYTES} are allowed",
    ),
    "large stage": (
        lambda b: os.truncate(b / "stage3.onnx", safe_files.MAX_FILE_BYTES + 1),
        f"at most {safe_files.MAX_FILE_BYTES} are allowed",
    ),
    # names
    "parent folder": (first_exit(file="../stage1.onnx"), "exits.0.file"),
    "absolute path": (first_exit(file="/etc/passwd"), "exits.0.file"),
    "subfolder": (first_exit(file="a/stage1.onnx"), "exits.0.file"),
    "backslash": (first_exit(file="..\\stage1.onnx"), "exits.0.file"),
    "zero byte": (first_exit(file="stage1.onnx\0"), "exits.0.file"),
    "line end": (first_exit(file="stage1.onnx\n"), "exits.0.file"),
    "hidden": (first_exit(file=".stage1.onnx"), "exits.0.file"),
    "table in parent folder": (
        in_manifest(lambda m: m["calibration"].update(file="../calibration.npz")),
        "calibration.file",
    ),
    "graph in parent folder": (graph(file="../exit1.onnx"), "graphs.0.file"),
    "one file for two stages": (
        first_exit(file="stage2.onnx"),
        "every file must have a name of its own",
    ),
    "policy as stage": (first_exit(file="Policy.json"), "every file must have a name of its own"),
    # JSON
    "duplicate key": (
        in_text("manifest.json", '"format":1', '"format":2,"format":1'),
        "key 'format' is duplicated",
    ),
    "duplicate key in policy": (
        in_text("policy.json", '"max_exit":3', '"max_exit":2,"max_exit":3'),
        "key 'max_exit' is duplicated",
    ),
    "NaN": (in_text("manifest.json", '"temperature":1.1', '"temperature":NaN'), "NaN is not a num"),
    "infinite weight": (
        in_manifest(lambda m: m.update(ensemble_weights=[float("inf")] * 3)),
        "Infinity is not a number",
    ),
    "overflow": (in_text("policy.json", "0.6", "1e999"), "1e999 is too large a number"),
    "integer beyond 64 bits": (first_exit(macs=1 << 64), "18446744073709551616 is too large a num"),
    "integer beyond a float": (first_exit(macs=10**400), "is too large a number"),
    "costs beyond any network": (first_exit(macs=(1 << 53) + 1), "exits.0.macs"),
    "tiny weight": (
        in_manifest(lambda m: m.update(ensemble_weights=[1e-300] * 3)),
        "ensemble_weights.0",
    ),
    "huge weight": (in_manifest(lambda m: m.update(ensemble_weights=[1e300] * 3)), "weights.0"),
    "tiny temperature": (first_exit(temperature=1e-300), "exits.0.temperature"),
    "NaN threshold": (in_text("policy.json", "0.6", "NaN"), "policy.json is not valid JSON: NaN"),
    "negative threshold": (in_text("policy.json", "0.6", "-1"), "thresholds.0"),
    "deep nesting": (
        lambda b: (b / "manifest.json").write_text("[" * 100_000),
        "manifest.json is not valid JSON",
    ),
    "long number": (
        lambda b: (b / "manifest.json").write_text("9" * 10_000),
        "manifest.json is not valid JSON",
    ),
    "not UTF-8": (
        lambda b: (b / "manifest.json").write_bytes(b'{"a":"\xff"}'),
        "manifest.json is not valid JSON",
    ),
    "surrogate": (in_text("manifest.json", '"ant"', '"\\ud800"'), "surrogates not allowed"),
    "hostile key": (in_manifest(lambda m: m.update({"\x1b[2J\n": 1})), "Extra inputs"),
    # fields
    "future format": (
        in_manifest(lambda m: m.update(format=3)),
        "format 3 is not one this version reads",
    ),
    "no format": (in_manifest(lambda m: m.pop("format")), "format None"),
    "hostile format": (in_manifest(lambda m: m.update(format="\n" * 999)), "format "),
    "unknown key": (in_manifest(lambda m: m.update(hook="os.system")), "hook: Extra inputs"),
    "unknown policy key": (
        in_json("policy.json", lambda p: p.update(hook=1)),
        "hook: Extra inputs",
    ),
    "missing exit shares": (
        in_manifest(lambda m: m["provenance"]["test_default"].update(exit_shares=[1.0])),
        "exit_shares must have one entry per exit",
    ),
    "conversion": (
        in_manifest(
            lambda m: m.update(
                conversion={"scheme": None, "images": 0, "kept": [], "held_out": [], "test": []}
            )
        ),
        "conversion",
    ),
    "graph of an unknown exit": (graph(exit=4), "exit1.onnx is of an exit that does not exist"),
    "maps of an exit": (graph(kind="maps"), "an exit that does not exist"),
    "routed graph of an exit": (graph(kind="routed"), "an exit that does not exist"),
    "huge table": (
        in_manifest(lambda m: m["calibration"].update(samples=MAX_TABLE_LOGITS)),
        "more than",
    ),
    # graphs
    "external data": (stage(with_external_data()), "stage2.onnx keeps weights in another file"),
    "external data at an absolute path": (
        stage(with_external_data("/etc/passwd")),
        "stage2.onnx keeps weights in another file",
    ),
    "not a graph": (stage(b"no graph at all"), "stage2.onnx is not an ONNX graph"),
    "onnxruntime's format": (stage(b"\x0a\x00\x00\x00ORTM"), "stage2.onnx is not an ONNX graph"),
    # the calibration table
    "NaN logits": (
        table(logits=np.full((EXITS, 20, len(LABELS)), np.nan, np.float16)),
        "calibration.npz has logits that are not numbers",
    ),
    "infinite logits": (
        table(logits=np.full((EXITS, 20, len(LABELS)), np.inf, np.float16)),
        "calibration.npz has logits that are not numbers",
    ),
    "logits beyond float32": (
        table(logits=np.full((EXITS, 20, len(LABELS)), 1e300)),
        "calibration.npz has logits that are not numbers",
    ),
    "label out of range": (table(labels=np.full(20, 7)), "labels of classes that do not exist"),
    "negative label": (table(labels=np.full(20, -1)), "labels of classes that do not exist"),
    "labels as floats": (table(labels=np.zeros(20)), "labels is of the type float64"),
    "logits of another shape": (
        table(logits=np.zeros((EXITS, 20, 9), np.float16)),
        r"logits has the shape \(3, 20, 9\), not \(3, 20, 7\)",
    ),
    **{
        f"header of {name}": (table_header(header), r"logits has (a header that cannot|the shape)")
        for name, header in HOSTILE_HEADERS.items()
    },
    "logits as objects": (
        table(logits=np.full((EXITS, 20, len(LABELS)), None)),
        "logits is of the type object",
    ),
}


@pytest.mark.parametrize(("damage", "says"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_refused_in_one_sentence(bundle: Path, damage: Damage, says: str) -> None:
    load_bundle(bundle)
    damage(bundle)
    with pytest.raises(BundleError, match=says) as caught:
        load_bundle(bundle)
    sentence = str(caught.value)
    assert sentence.isprintable()
    assert len(sentence) < 1000
    result = call("inspect", bundle)
    assert result.refused_in_one_sentence, result
    assert sentence in result.err


def test_a_device_is_refused_without_reading_it(bundle: Path) -> None:
    (bundle / "stage1.onnx").unlink()
    (bundle / "stage1.onnx").symlink_to("/dev/zero")
    with pytest.raises(BundleError, match="is a link"):
        load_bundle(bundle)
    with pytest.raises(BundleError, match="/dev/zero is not a plain file"):
        safe_files.read_plain(Path("/dev"), "zero", safe_files.MAX_FILE_BYTES)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda b: (b / "exit1.onnx").write_bytes(b"other"), "exit1.onnx is damaged"),
        (lambda b: (b / "exit1.onnx").unlink(), "exit1.onnx cannot be read"),
    ],
)
def test_inspect_verifies_the_graphs_that_the_server_does_not_read(
    bundle: Path, damage: Damage, says: str
) -> None:
    graph()(bundle)
    inspect_bundle(bundle)
    damage(bundle)
    load_bundle(bundle)
    with pytest.raises(BundleError, match=says):
        inspect_bundle(bundle)


def test_a_table_of_another_shape_is_not_inflated(bundle: Path) -> None:
    """The array's header is checked before any of its values is read."""
    content = np.zeros((EXITS, 2_000_000, len(LABELS)), np.float16)
    np.savez_compressed(bundle / "calibration.npz", logits=content, labels=np.zeros(20, np.int64))
    digest = sha256((bundle / "calibration.npz").read_bytes())
    in_manifest(lambda m: m["calibration"].update(sha256=digest))(bundle)
    with pytest.raises(BundleError, match="has the shape"):
        load_bundle(bundle)


def test_onnxruntime_itself_would_read_the_external_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why external data is refused: onnxruntime loads it from the working directory."""

    weight = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    inputs, outputs = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in ("x", "y")
    )
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    model = helper.make_model(
        helper.make_graph(nodes, "g", [inputs], [outputs], [weight]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    file = tmp_path / "graph.onnx"
    onnx.save(model, file, save_as_external_data=True, location="w.bin", size_threshold=0)
    monkeypatch.chdir(tmp_path)
    session = plain_session(file.read_bytes())
    assert session.run(None, {"x": np.ones((1, 4), np.float32)})[0].tolist() == [[4.0] * 4]
    bundle = write_tiny_bundle(tmp_path / "b", stages={1: file.read_bytes()})
    with pytest.raises(BundleError, match="keeps weights in another file"):
        load_bundle(bundle)
