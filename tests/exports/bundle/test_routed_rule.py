"""A routed graph says which rule it is made for, and what differs from the policy is reported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import onnx
import pytest

from exports.bundle.policy import Policy
from exports.bundle.reader import load_bundle, sha256
from exports.bundle.routed_rule import routed_remark
from exports.graphs.routed import routed_graph
from tests.commands import call
from tests.exports.bundles import INT8
from tests.serving.tiny_bundle import POLICY_DEFAULT, write_tiny_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a routed graph for its policy."""
    path = write_tiny_bundle(tmp_path_factory.mktemp("routed") / "tiny")
    tiny = load_bundle(path)
    graph = routed_graph(tiny.stages, tiny.policy, tiny.manifest.scaling)
    (path / "routed.onnx").write_bytes(graph)
    entry = {"kind": "routed", "exit": None, "file": "routed.onnx", "sha256": sha256(graph)}
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"graphs": [entry]}))
    return path


@pytest.mark.parametrize(
    ("change", "fits"),
    [
        ({}, True),
        ({"thresholds": (0.1, 2.0)}, True),
        ({"measure": "margin"}, False),
        ({"combine": "running"}, False),
        ({"mode": "ensemble"}, False),
        ({"max_exit": 2}, False),
        ({"reject_below": 0.5}, False),
    ],
)
def test_only_thresholds_may_change(bundle: Path, change: dict[str, object], fits: bool) -> None:
    policy = Policy.model_validate(POLICY_DEFAULT.model_dump() | change)
    remark = routed_remark("routed.onnx", (bundle / "routed.onnx").read_bytes(), policy)
    assert (remark is None) is fits
    if remark is not None:
        assert "routed.onnx has another rule than the policy" in remark


def test_a_graph_without_a_rule_is_uncertain() -> None:
    graph = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], []))
    graph.metadata_props.add(key="other", value="{}")
    remark = routed_remark("routed.onnx", graph.SerializeToString(), POLICY_DEFAULT)
    assert remark is not None
    assert "did not note its rule" in remark


def test_inspect_says_which_graph_does_not_fit(bundle: Path, tmp_path: Path) -> None:
    assert "another rule" not in call("inspect", bundle).out
    assert json.loads(call("inspect", bundle, "--json").out)["routed"] == []
    changed = Path(shutil.copytree(bundle, tmp_path / "changed"))
    policy = POLICY_DEFAULT.model_copy(update={"measure": "margin"})
    (changed / "policy.json").write_text(policy.model_dump_json())
    assert "another rule" in call("inspect", changed).out
    assert len(json.loads(call("inspect", changed, "--json").out)["routed"]) == 1


def test_tune_says_when_the_graph_does_not_fit_the_new_policy(bundle: Path, tmp_path: Path) -> None:
    tuned = Path(shutil.copytree(bundle, tmp_path / "tuned"))
    done = call("tune", tuned, "--min-accuracy", 0)
    assert done.code == 0, done.err
    assert load_bundle(tuned).policy.combine != POLICY_DEFAULT.combine
    assert "routed.onnx has another rule than the policy" in done.out


def test_tune_says_that_an_older_graph_has_no_rule(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(INT8, tmp_path / "copy"))
    done = call("tune", copy, "--max-accuracy-drop", 5)
    assert done.code == 0, done.err
    assert "did not note its rule" in done.out
