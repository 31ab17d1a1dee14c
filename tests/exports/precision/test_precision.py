"""Bundles below float32: their loss of accuracy is measured, limited and reported."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from exports.bundle.errors import ExportError
from exports.bundle.manifest import Accuracy, Conversion
from exports.bundle.policy import Scaling
from exports.bundle.reader import Bundle, Table, load_bundle
from exports.bundle.resolve import embedded
from exports.measure import Measurement
from exports.precision.convert import Converted, check_loss
from exports.precision.quantize import prepare, quantize, saturates
from exports.precision.sensitivity import Loss, StageQuantizer, keep_sensitive
from exports.stage_runner import StageRunner
from serving.inference.engine import Engine
from tests.commands import CommandResult, call
from tests.exports.bundles import FP32
from tests.serving.tiny_bundle import write_tiny_bundle
from training.data.dataset import Split
from training.data.load import load_dataset
from training.recipes.schema import DataRecipe


@pytest.fixture(scope="module")
def converted(digits_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """The digits bundle in float32, int8 and fp16."""
    folder = tmp_path_factory.mktemp("converted")
    for precision in ("int8", "fp16"):
        result = call("export", digits_bundle, "-o", folder / precision, "--precision", precision)
        assert result.code == 0, result.err
        assert "same class" in result.out
    bundles = {precision: load_bundle(folder / precision) for precision in ("int8", "fp16")}
    return {"fp32": load_bundle(digits_bundle), **bundles}


def test_int8_takes_less_than_a_third_of_the_space() -> None:
    """Of a network whose weights weigh more than its graph does."""
    assert size(load_bundle(embedded())) < size(load_bundle(FP32)) / 3


def size(bundle: Bundle) -> int:
    """Of all stages, in bytes."""
    return sum(map(len, bundle.stages))


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_a_converted_bundle_has_the_same_interface_and_is_smaller(
    converted: dict[str, Bundle], precision: str
) -> None:
    exact, bundle = converted["fp32"], converted[precision]
    assert bundle.manifest.precision == precision
    Engine(bundle)  # checks names, types and shapes of every stage
    assert size(bundle) < size(exact)
    for name in ("name", "version", "labels", "input"):
        assert getattr(bundle.manifest, name) == getattr(exact.manifest, name)
    assert [e.macs for e in bundle.manifest.exits] == [e.macs for e in exact.manifest.exits]


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_the_manifest_records_the_cost_of_a_conversion(
    converted: dict[str, Bundle], precision: str
) -> None:
    exact, bundle = converted["fp32"].manifest, converted[precision].manifest
    record = bundle.conversion
    assert record is not None
    assert record.test == tuple(entry.test for entry in exact.exits)
    assert record.held_out == tuple(entry.held_out for entry in exact.exits)
    assert record.held_out[-1].running - bundle.exits[-1].held_out.running <= 0.5
    assert min(record.agreement) > 95
    # All images of the selection half.
    assert (record.scheme, record.images) == ({"int8": ("u8s8", 150), "fp16": (None, 0)}[precision])


def test_temperatures_and_weights_are_those_of_the_quantised_network(
    converted: dict[str, Bundle],
) -> None:
    bundle = converted["int8"]
    assert bundle.manifest.scaling != converted["fp32"].manifest.scaling
    data = load_dataset(DataRecipe(name="digits", held_out=300), Path("unused"))
    test = StageRunner(bundle.stages).logits(data.test.images)
    for entry, logits in zip(bundle.manifest.exits, test, strict=True):
        right = 100 * (logits.argmax(1) == data.test.labels).mean()
        assert right == pytest.approx(entry.test.single, abs=0.3)


def test_the_normalisation_is_not_quantised(converted: dict[str, Bundle]) -> None:
    """The uint8 pixels are not rounded again before they are normalised."""
    nodes = onnx.load_from_string(converted["int8"].stages[0]).graph.node
    first = next(i for i, node in enumerate(nodes) if node.op_type == "QuantizeLinear")
    before = [node.op_type for node in nodes[:first] if node.op_type != "DequantizeLinear"]
    assert before[:4] == ["Transpose", "Cast", "Mul", "Add"]


def no_data(bundle: Path) -> None:
    edit(bundle, lambda manifest: manifest["provenance"]["recipe"].pop("data"))


def other_split(bundle: Path) -> None:
    edit(bundle, lambda m: m["provenance"]["recipe"]["data"].update(held_out_seed=9))


def other_classes(bundle: Path) -> None:
    edit(bundle, lambda manifest: manifest["labels"].reverse())


def edit(bundle: Path, change: Callable[[dict[str, object]], object]) -> None:
    content = json.loads((bundle / "manifest.json").read_text())
    change(content)
    (bundle / "manifest.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (no_data, "does not say which data"),
        (other_split, "calibrated on other samples"),
        (other_classes, "other classes than digits has"),
    ],
)
def test_a_bundle_that_does_not_match_its_data_is_refused(
    digits_bundle: Path, tmp_path: Path, damage: Callable[[Path], None], says: str
) -> None:
    source = Path(shutil.copytree(digits_bundle, tmp_path / "source"))
    damage(source)
    result = call("export", source, "-o", tmp_path / "b", "--precision", "int8")
    assert_refused(result, says)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_bundle_below_float32_is_refused(tmp_path: Path) -> None:
    assert_refused(call("export", embedded(), "-o", tmp_path / "b"), "is in int8 already")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--target", "u8s8"), "--target u8s8 is an int8 type"),
        (("--graphs", "exits,loops"), "--graphs takes exits, routed and maps, not loops"),
    ],
)
def test_invalid_options_are_refused(
    digits_bundle: Path, tmp_path: Path, options: tuple[str, ...], says: str
) -> None:
    assert_refused(call("export", digits_bundle, "-o", tmp_path / "b", *options), says)


def assert_refused(result: CommandResult, says: str) -> None:
    assert result.refused_in_one_sentence, result
    assert says in result.err


def measurement(correct: int, samples: int = 1000) -> Measurement:
    """A network of one exit that is correct on `correct` of `samples`."""
    labels = np.zeros(samples, np.int64)
    logits = np.zeros((1, samples, 2), np.float32)
    logits[0, np.arange(samples), (np.arange(samples) >= correct).astype(int)] = 1
    table = Table(logits, labels)
    return Measurement(table, table, Scaling((1.0,), (1.0,), (1.0,)))


@pytest.mark.parametrize(("correct", "refused"), [(695, False), (694, True), (720, False)])
def test_more_than_half_a_point_lost_is_refused(correct: int, refused: bool) -> None:
    exact = (Accuracy(single=70.0, running=70.0),)
    record = Conversion(
        scheme="u8s8", images=256, kept=(), held_out=exact, test=exact, agreement=(99.0,)
    )
    result = Converted((), record, measurement(correct))
    if refused:
        with pytest.raises(ExportError, match=r"0\.60 points .* more than 0\.5; no bundle"):
            check_loss("int8", result)
    else:
        check_loss("int8", result)


@pytest.mark.parametrize(("correct", "refused"), [(68, False), (67, True)])
def test_two_of_a_hundred_samples_are_no_reason_to_refuse(correct: int, refused: bool) -> None:
    exact = (Accuracy(single=70.0, running=70.0),)
    record = Conversion(
        scheme="u8s8", images=256, kept=(), held_out=exact, test=exact, agreement=(99.0,)
    )
    result = Converted((), record, measurement(correct, samples=100))
    if refused:
        with pytest.raises(ExportError, match=r"3\.00 points"):
            check_loss("int8", result)
    else:
        check_loss("int8", result)


@pytest.mark.parametrize(("lost", "acceptable"), [(1, True), (2, True), (3, False)])
def test_one_or_two_answers_of_a_few_samples_are_chance(lost: int, acceptable: bool) -> None:
    assert Loss(lost, 0, 60).acceptable == acceptable


@pytest.mark.parametrize(
    ("lost", "won", "acceptable"),
    [(5, 0, True), (34, 19, False), (33, 22, True), (60, 10, False), (600, 560, False)],
)
def test_a_small_or_insignificant_loss_is_acceptable(lost: int, won: int, acceptable: bool) -> None:
    """Of 5000 samples 5 are 0.1 points; a loss of 11 in 55 changes is not significant; 40 are too many."""
    assert Loss(lost, won, 5000).acceptable == acceptable


def coarse_channel(stage: int) -> bytes:
    """A stage that classifies whether green or blue is brighter. In stage 1 red is a thousand times
    larger before the convolution drops it, so that one scale for the three channels is too coarse."""
    factors = np.float32([1000, 1, 1] if stage == 1 else [1, 1, 1]).reshape(1, 3, 1, 1) / 255
    weights = {
        "factors": factors if stage == 1 else np.float32(1).reshape(1, 1, 1, 1),
        "kernel": np.float32([[0, 0, 0], [0, 1, 0], [0, 0, 1]]).reshape(3, 3, 1, 1),
        "head": 50 * np.float32([[0, 0], [1, 0], [0, 1]]),
    }
    name = "image" if stage == 1 else "features1"
    features = "features1" if stage == 1 else "last"
    front = [
        helper.make_node("Cast", [name], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["wide"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["planes", "factors"], ["ready"]),
    ]
    nodes = [
        *(front if stage == 1 else []),
        helper.make_node(
            "Conv", ["ready" if stage == 1 else name, "kernel"], [features], name="conv"
        ),
        helper.make_node("GlobalAveragePool", [features], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "head"], ["logits"], name="head"),
    ]
    input_type = (
        (TensorProto.UINT8, ["n", 2, 2, 3]) if stage == 1 else (TensorProto.FLOAT, ["n", 3, 2, 2])
    )
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])]
    if stage == 1:
        outputs.insert(
            0, helper.make_tensor_value_info(features, TensorProto.FLOAT, ["n", 3, 2, 2])
        )
    graph = helper.make_graph(
        nodes,
        "stage",
        [helper.make_tensor_value_info(name, *input_type)],
        outputs,
        [numpy_helper.from_array(value, key) for key, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    content: bytes = model.SerializeToString()
    return content


def test_the_node_that_loses_accuracy_stays_in_float32() -> None:
    rng = np.random.default_rng(0)
    images: NDArray[np.uint8] = rng.integers(0, 256, (400, 2, 2, 3)).astype(np.uint8)
    green, blue = images[..., 1].mean((1, 2)), images[..., 2].mean((1, 2))
    split = Split(images, (blue > green).astype(np.int64))
    stages = (coarse_channel(1), coarse_channel(2))
    runner = StageRunner(stages)
    prepared = [
        prepare(stage, inputs) for stage, inputs in zip(stages, runner.inputs(images), strict=True)
    ]
    messages: list[str] = []
    quantizer = StageQuantizer(stages, tuple(prepared), "u8s8", reduced=False)
    kept = keep_sensitive(quantizer, split, runner.logits(images), messages.append)
    assert "conv" in kept[0]
    assert kept[1] == frozenset()
    exits = StageRunner(quantizer.build(kept)).logits(images).argmax(axis=2)
    assert ((exits == split.labels).mean(axis=1) > 0.98).all()
    assert "1 nodes left in float32" in messages[-1]


def test_weights_have_seven_bits_if_sums_would_saturate(
    tmp_path: Path, digits_bundle: Path
) -> None:
    for flags, expected in (("fma avx2", True), ("avx2 avx512_vnni", False), ("avx_vnni", False)):
        (tmp_path / "cpuinfo").write_text(f"model name : x\nflags\t\t: {flags}\n")
        assert saturates(tmp_path / "cpuinfo") == expected
    assert not saturates(tmp_path / "absent")
    bundle = load_bundle(digits_bundle)
    data = load_dataset(DataRecipe(name="digits", held_out=300), Path("unused"))
    prepared = prepare(bundle.stages[0], data.test.images[:32])
    for reduced, most in ((False, 127), (True, 64)):
        model = onnx.load_from_string(quantize(prepared, "u8s8", reduced=reduced))
        weights = [
            numpy_helper.to_array(tensor)
            for tensor in model.graph.initializer
            if tensor.data_type == TensorProto.INT8 and len(tensor.dims) == 4
        ]
        assert max(int(np.abs(w.astype(int)).max()) for w in weights) <= most


def test_the_embedded_bundle_is_the_fp32_bundle_in_int8() -> None:
    exact, bundle = load_bundle(FP32).manifest, load_bundle(embedded()).manifest
    assert (exact.precision, bundle.precision) == ("fp32", "int8")
    assert bundle.conversion is not None
    assert bundle.conversion.test == tuple(entry.test for entry in exact.exits)
    assert exact.exits[-1].test.running - bundle.exits[-1].test.running <= 0.5
    assert exact.provenance.recipe == bundle.provenance.recipe
    assert [graph.kind for graph in bundle.graphs] == ["routed", "maps"]


def test_both_bundles_agree_on_most_of_the_test_set(
    cifar_test: tuple[NDArray[np.uint8], NDArray[np.int64]],
) -> None:
    test = cifar_test[0][::10]
    exact, int8 = (StageRunner(load_bundle(p).stages).logits(test) for p in (FP32, embedded()))
    assert ((exact.argmax(2) == int8.argmax(2)).mean(axis=1) > 0.95).all()


def test_a_bundle_without_a_data_recipe_is_refused(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny")
    assert_refused(call("export", bundle, "-o", tmp_path / "b"), "does not say which data")
