"""The routed graph gives the same answers as the engine."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from exports.bundle.errors import ExportError
from exports.bundle.policy import Combine, Measure, Mode, Policy
from exports.bundle.reader import Bundle, load_bundle
from exports.bundle.writing import policy_json
from exports.graphs.onnx_tools import exit_graph
from exports.graphs.routed import routed_graph
from exports.stage_runner import StageRunner
from serving.inference.engine import Engine
from tests.exports.bundles import INT8
from tests.serving.tiny_bundle import EXITS, SIZE, write_tiny_bundle
from tests.sessions import plain_session

EXAMPLE = Path(__file__).parents[3] / "examples" / "routed.py"
# Both add the same float32 numbers in a different order, so a measure this close to its threshold may
# fall on either side of it.
TOLERANCE = 1e-5


@pytest.fixture(scope="module", params=[(1,), (1, 2)], ids=["features", "image at stage 2"])
def tiny(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path = tmp_path_factory.mktemp("routed") / "tiny"
    return load_bundle(write_tiny_bundle(path, image_stages=request.param))


@pytest.fixture(scope="module")
def engine(tiny: Bundle) -> Engine:
    return Engine(tiny)


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    """From dark to bright, so that measures differ."""
    noise = np.random.default_rng(7).integers(0, 256, (40, SIZE, SIZE, 3))
    return (noise * np.linspace(0.05, 1, 40)[:, None, None, None]).astype(np.uint8)


def differences(
    session: ort.InferenceSession,
    engine: Engine,
    policy: Policy,
    images: NDArray[np.uint8],
    batch: int,
) -> tuple[int, int, float, float]:
    """How many exits and classes differ, and the largest difference of a probability and a confidence."""
    exits = classes = 0
    probability = confidence = 0.0
    thresholds = np.array(policy.thresholds, np.float32)
    for start in range(0, len(images), batch):
        part = images[start : start + batch]
        expected = engine.classify(part, policy)
        feeds = {"image": part, "thresholds": thresholds}
        p, e, c = session.run(["probabilities", "exit", "confidence"], feeds)
        exits += int((e != [one.exit for one in expected]).sum())
        classes += int((p.argmax(1) != [one.index for one in expected]).sum())
        meant = np.stack([one.probabilities for one in expected])
        probability = max(probability, float(np.abs(p - meant).max()))
        confidence = max(confidence, float(np.abs(c - [one.confidence for one in expected]).max()))
    return exits, classes, probability, confidence


@pytest.mark.parametrize("mode", get_args(Mode))
@pytest.mark.parametrize("measure", get_args(Measure))
@pytest.mark.parametrize("combine", get_args(Combine))
@pytest.mark.parametrize("max_exit", [2, EXITS])
def test_every_kind_of_policy_answers_as_the_engine(
    tiny: Bundle,
    engine: Engine,
    images: NDArray[np.uint8],
    mode: Mode,
    measure: Measure,
    combine: Combine,
    max_exit: int,
) -> None:
    # Modes other than early exit are thresholds that are never reached.
    thresholds = (0.6, 0.5) if mode == "early_exit" else (2.0, 2.0)
    policy = Policy(
        mode=mode, measure=measure, combine=combine, thresholds=thresholds, max_exit=max_exit
    )
    session = plain_session(routed_graph(tiny.stages, policy, tiny.manifest.scaling))
    for batch in (1, 40):
        exits, classes, probability, confidence = differences(
            session, engine, policy, images, batch
        )
        assert (exits, classes) == (0, 0)
        assert max(probability, confidence) < TOLERANCE
    feeds = {"image": images, "thresholds": np.array(thresholds, np.float32)}
    (measured,) = session.run(["measured"], feeds)
    expected = [one.measured for one in engine.classify(images, policy)]
    assert measured == pytest.approx(expected, abs=TOLERANCE)


@given(
    thresholds=st.tuples(*[st.sampled_from([0.0, 0.2, 0.45, 0.7, 0.93, 1.5])] * 2),
    chosen=st.lists(st.integers(0, 39), max_size=12),
)
def test_any_thresholds_and_any_batch_even_an_empty_one(
    tiny: Bundle,
    engine: Engine,
    images: NDArray[np.uint8],
    routed: ort.InferenceSession,
    thresholds: tuple[float, float],
    chosen: list[int],
) -> None:
    policy = tiny.policy.model_copy(update={"thresholds": thresholds})
    feeds = {"image": images[chosen], "thresholds": np.array(thresholds, np.float32)}
    probabilities, exits, confidence, measured = routed.run(None, feeds)
    expected = engine.classify(images[chosen], policy)
    assert list(exits) == [one.exit for one in expected]
    assert probabilities.shape == (len(chosen), 7)
    assert confidence == pytest.approx([one.confidence for one in expected], abs=TOLERANCE)
    assert measured == pytest.approx([one.measured for one in expected], abs=TOLERANCE)


def test_a_policy_with_reject_below_has_an_output_for_it(
    tiny: Bundle, engine: Engine, images: NDArray[np.uint8]
) -> None:
    plain = engine.classify(images, tiny.policy)
    # Between two confidences, so that rounding does not matter.
    confidences = sorted(one.confidence for one in plain)
    policy = tiny.policy.override(reject_below=float(np.mean(confidences[19:21])))
    session = plain_session(routed_graph(tiny.stages, policy, tiny.manifest.scaling))
    feeds = {"image": images, "thresholds": np.array(policy.thresholds, np.float32)}
    (unsure,) = session.run(["unsure"], feeds)
    assert unsure.tolist() == [one.unsure for one in engine.classify(images, policy)]
    assert set(unsure) == {True, False}


@pytest.fixture(scope="module")
def routed(tiny: Bundle) -> ort.InferenceSession:
    return plain_session(routed_graph(tiny.stages, tiny.policy, tiny.manifest.scaling))


def test_stages_accept_an_empty_batch(
    routed: ort.InferenceSession, images: NDArray[np.uint8]
) -> None:
    """If all samples leave early, the later stages run on no rows."""
    for thresholds, exit_ in (([0, 0], 1), ([2, 0], 2), ([2, 2], 3), ([np.inf, np.nan], 3)):
        feeds = {"image": images, "thresholds": np.array(thresholds, np.float32)}
        assert set(routed.run(["exit"], feeds)[0]) == {exit_}


def test_the_graph_has_no_loop_and_no_branch() -> None:
    graph = onnx.load(INT8 / "routed.onnx").graph
    kinds = {node.op_type for node in graph.node}
    assert not kinds & {"Loop", "If", "Scan"}
    assert not any(
        attribute.HasField("g") or attribute.graphs
        for node in graph.node
        for attribute in node.attribute
    )
    assert {"Compress", "ScatterND"} <= kinds


@pytest.mark.parametrize("exit_", range(1, EXITS + 1))
def test_an_exit_graph_gives_the_logits_of_its_exit(
    tiny: Bundle, images: NDArray[np.uint8], exit_: int
) -> None:
    content = exit_graph(tiny.stages, exit_)
    (logits,) = plain_session(content).run(["logits"], {"image": images})
    expected = StageRunner(tiny.stages).logits(images)[exit_ - 1]
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    heads = [n for n in onnx.load_from_string(content).graph.node if n.op_type == "MatMul"]
    assert len(heads) == 1


def of_another_opset(tiny: Bundle, version: int) -> tuple[bytes, ...]:
    other = onnx.load_from_string(tiny.stages[1])
    other.opset_import[0].version = version
    return tiny.stages[0], other.SerializeToString(), tiny.stages[2]


def test_stages_of_different_opsets_are_converted_to_the_newest(
    tiny: Bundle, images: NDArray[np.uint8]
) -> None:
    (before,) = {onnx.load_from_string(s).opset_import[0].version for s in tiny.stages}
    content = routed_graph(of_another_opset(tiny, before + 1), tiny.policy, tiny.manifest.scaling)
    inputs = {"image": images, "thresholds": np.array(tiny.policy.thresholds, np.float32)}
    names = ["probabilities", "exit"]
    converted = plain_session(content).run(names, inputs)
    own = routed_graph(tiny.stages, tiny.policy, tiny.manifest.scaling)
    for found, expected in zip(converted, plain_session(own).run(names, inputs), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_stages_of_an_opset_that_others_cannot_have_are_refused(tiny: Bundle) -> None:
    with pytest.raises(ExportError, match=r"stage 1 has ONNX opset .* they cannot be one graph"):
        routed_graph(of_another_opset(tiny, 99), tiny.policy, tiny.manifest.scaling)


def run_example(
    tiny: Bundle, policy: Policy, images: NDArray[np.uint8], place: Path
) -> subprocess.CompletedProcess[str]:
    """Run the example on `images` in the directory `place`, with `policy` as the bundle's policy.json and the
    graph of the tiny bundle's own."""
    bundle = place / "bundle"
    bundle.mkdir()
    (bundle / "manifest.json").write_bytes((tiny.path / "manifest.json").read_bytes())
    (bundle / "policy.json").write_bytes(policy_json(policy))
    graph = routed_graph(tiny.stages, tiny.policy, tiny.manifest.scaling)
    (bundle / "routed.onnx").write_bytes(graph)
    np.save(place / "images.npy", images)
    return subprocess.run(
        [sys.executable, str(EXAMPLE), "bundle", "images.npy"],
        cwd=place,
        env={},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_example_needs_only_onnxruntime(
    tiny: Bundle, engine: Engine, images: NDArray[np.uint8], tmp_path: Path
) -> None:
    """The script does not import Offramp; it runs in a process of its own, in another directory."""
    imports = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name)
        for node in ast.walk(ast.parse(EXAMPLE.read_text("utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert imports == {"__future__", "json", "sys", "pathlib", "numpy", "onnxruntime"}
    result = run_example(tiny, tiny.policy, images, tmp_path)
    assert result.returncode == 0, result.stderr
    rows = [line.split() for line in result.stdout.splitlines()]
    expected = engine.classify(images, tiny.policy)
    labels = tiny.manifest.labels
    assert [(r[0], int(r[2])) for r in rows] == [(labels[e.index], e.exit) for e in expected]
    assert [float(r[1]) for r in rows] == pytest.approx(
        [e.confidence for e in expected], abs=TOLERANCE
    )


def test_the_example_refuses_a_policy_of_another_rule(
    tiny: Bundle, images: NDArray[np.uint8], tmp_path: Path
) -> None:
    policy = tiny.policy.model_copy(update={"measure": "margin"})
    result = run_example(tiny, policy, images, tmp_path)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.endswith("measure of routed.onnx is max_prob, of policy.json margin\n")


@pytest.mark.parametrize("batch", [1, 64])
def test_the_routed_file_answers_as_the_engine_on_the_test_set(
    cifar_test: tuple[NDArray[np.uint8], NDArray[np.int64]], batch: int
) -> None:
    """Every tenth image in batches, and every 40th alone."""
    bundle = load_bundle(INT8)
    images = cifar_test[0][:: 10 if batch > 1 else 40]
    session = plain_session(INT8 / "routed.onnx")
    exits, classes, probability, confidence = differences(
        session, Engine(bundle), bundle.policy, images, batch
    )
    assert (exits, classes) == (0, 0)
    assert max(probability, confidence) < TOLERANCE
