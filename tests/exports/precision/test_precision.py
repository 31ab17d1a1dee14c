"""Bundles below float32: their interface, and the loss of accuracy that they report."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from exports.bundle.reader import Bundle, load_bundle
from exports.stage_runner import StageRunner
from serving.inference.engine import Engine
from tests.commands import CommandResult, call
from tests.exports.bundles import FP32, INT8
from tests.serving.tiny_bundle import write_tiny_bundle
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
    assert size(load_bundle(INT8)) < size(load_bundle(FP32)) / 3


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
    # All images that are chosen on.
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
    assert_refused(call("export", INT8, "-o", tmp_path / "b"), "is in int8 already")


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


def test_the_int8_bundle_is_the_fp32_bundle_converted() -> None:
    exact, bundle = load_bundle(FP32).manifest, load_bundle(INT8).manifest
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
    exact, int8 = (StageRunner(load_bundle(p).stages).logits(test) for p in (FP32, INT8))
    assert ((exact.argmax(2) == int8.argmax(2)).mean(axis=1) > 0.95).all()


def test_a_bundle_without_a_data_recipe_is_refused(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "tiny")
    assert_refused(call("export", bundle, "-o", tmp_path / "b"), "does not say which data")
