"""ONNX classifiers teach through views."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from exports.bundle.reader import load_bundle
from exports.graphs.onnx_tools import exit_graph
from tests.training.teachers.recipes import DATA, run, student, view_files
from training.checkpoint import load_checkpoint
from training.data.dataset import DATASET_INFO
from training.data.load import load_dataset
from training.errors import RecipeError
from training.models.multi_exit import MultiExit, Normalize
from training.planning.dry_run import dry_run
from training.planning.forecast import forecast
from training.recipes.schema import DataRecipe
from training.recipes.teacher import TeacherRecipe
from training.teachers import onnx_classifier
from training.teachers.onnx_classifier import OnnxClassifier

CPU = torch.device("cpu")
CLASSES = 3


@pytest.fixture(scope="module")
def network(workplace: Path) -> tuple[MultiExit, Normalize]:
    teacher, config = load_checkpoint(workplace / "runs" / "digits-oto")
    return teacher, Normalize(config.mean, config.std)


@pytest.fixture(scope="module")
def exported(digits_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last exit of the same network as an ONNX file that takes uint8 images."""
    stages = load_bundle(digits_bundle).stages
    path = tmp_path_factory.mktemp("onnx") / "teacher.onnx"
    path.write_bytes(exit_graph(stages, len(stages)))
    return path


def mean_colours(path: Path, shape: list[str | int], *, uint8: bool, softmax: bool = False) -> str:
    """Write a model that returns the mean of each channel, and return its path."""
    axes = [1, 2] if uint8 else [2, 3]
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["mean"], keepdims=0),
        helper.make_node("Softmax" if softmax else "Identity", ["mean"], ["output"]),
    ]
    kind = TensorProto.UINT8 if uint8 else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "means",
        [helper.make_tensor_value_info("image", kind, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [shape[0], 3])],
        [numpy_helper.from_array(np.array(axes, dtype=np.int64), "axes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, path)
    return str(path)


def classifier(*paths: str, classes: int = CLASSES, **fields: object) -> OnnxClassifier:
    recipe = TeacherRecipe.model_validate({"onnx": paths, **fields})
    return OnnxClassifier(recipe, classes, CPU)


def noise(count: int = 5, side: int = 8) -> Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8))


UINT8: dict[str, object] = {"onnx_input": "uint8-nhwc"}
NORMALISED: dict[str, object] = {"onnx_mean": [0.5, 0.4, 0.3], "onnx_std": [0.2, 0.2, 0.1]}


def test_a_model_of_uint8_images_gets_them_as_they_are(tmp_path: Path) -> None:
    path = mean_colours(tmp_path / "a.onnx", ["n", "h", "w", 3], uint8=True)
    images = noise()
    logits = classifier(path, **UINT8).logits(images)
    assert logits.shape == (1, 5, 3)
    torch.testing.assert_close(logits[0], images.float().mean((1, 2)))


def test_a_model_of_floats_gets_them_normalised(tmp_path: Path) -> None:
    path = mean_colours(tmp_path / "a.onnx", ["n", 3, "h", "w"], uint8=False)
    images = noise()
    logits = classifier(path, **NORMALISED).logits(images)
    means = images.float().mean((1, 2)) / 255
    expected = (means - torch.tensor([0.5, 0.4, 0.3])) / torch.tensor([0.2, 0.2, 0.1])
    torch.testing.assert_close(logits[0], expected)


@pytest.mark.parametrize("uint8", [True, False])
def test_images_are_resized_to_the_models_own_side(tmp_path: Path, uint8: bool) -> None:
    shape: list[str | int] = ["n", 20, 24, 3] if uint8 else ["n", 3, 20, 24]
    path = mean_colours(tmp_path / "a.onnx", shape, uint8=uint8)
    grey = torch.full((2, 8, 8, 3), 51, dtype=torch.uint8)
    given: dict[str, object] = {"onnx_mean": [0, 0, 0], "onnx_std": [1, 1, 1]}
    logits = classifier(path, **(UINT8 if uint8 else given)).logits(grey)
    torch.testing.assert_close(logits, torch.full((1, 2, 3), 51.0 if uint8 else 0.2))


def test_a_model_of_one_batch_size_gets_batches_of_that_size(tmp_path: Path) -> None:
    path = mean_colours(tmp_path / "a.onnx", [2, 8, 8, 3], uint8=True)
    images = noise(5)
    logits = classifier(path, **UINT8).logits(images)
    torch.testing.assert_close(logits[0], images.float().mean((1, 2)))


def test_several_models_teach_the_mean_of_their_probabilities(tmp_path: Path) -> None:
    images = noise(3)
    path = mean_colours(tmp_path / "a.onnx", ["n", 3, "h", "w"], uint8=False)
    narrow: dict[str, object] = {**NORMALISED, "onnx_std": [0.2, 0.2, 0.2]}
    first = classifier(path, **narrow).logits(images)[0].softmax(1)
    both = classifier(path, path, **narrow).logits(images)[0].softmax(1)
    torch.testing.assert_close(both, first)
    other = mean_colours(tmp_path / "b.onnx", [1, 3, 4, 4], uint8=False)
    second = classifier(other, **narrow).logits(images)[0].softmax(1)
    mean = classifier(path, other, **narrow).logits(images)[0].softmax(1)
    torch.testing.assert_close(mean, (first + second) / 2)


def test_probabilities_become_logits_with_the_same_softmax(tmp_path: Path) -> None:
    images = noise(3)
    logits_path = mean_colours(tmp_path / "a.onnx", ["n", 3, "h", "w"], uint8=False)
    path = mean_colours(tmp_path / "b.onnx", ["n", 3, "h", "w"], uint8=False, softmax=True)
    expected = classifier(logits_path, **NORMALISED).logits(images).softmax(2)
    logits = classifier(path, onnx_output="probabilities", **NORMALISED).logits(images)
    torch.testing.assert_close(logits.softmax(2), expected)


def test_a_probability_of_zero_gives_a_finite_logit(tmp_path: Path) -> None:
    path = mean_colours(tmp_path / "a.onnx", ["n", "h", "w", 3], uint8=True, softmax=True)
    black_and_red = torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
    black_and_red[1, ..., 0] = 255
    logits = classifier(path, onnx_output="probabilities", **UINT8).logits(black_and_red)
    assert logits.isfinite().all()
    assert logits[0, 1].argmax() == 0


def test_a_model_with_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    path = mean_colours(tmp_path / "a.onnx", ["n", "h", "w", 3], uint8=True)
    with pytest.raises(RecipeError, match=r"returns \[5, 3\].*each of the 4 classes"):
        classifier(path, classes=4, **UINT8).logits(noise())


def test_a_model_with_another_input_than_the_recipes_is_refused(tmp_path: Path) -> None:
    path = mean_colours(tmp_path / "a.onnx", ["n", "h", "w", 3], uint8=True)
    with pytest.raises(RecipeError, match=r"must take one tensor\(float\) of four axes"):
        classifier(path, **NORMALISED)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"\xff" * 100)
    with pytest.raises(RecipeError, match="cannot be loaded"):
        classifier(str(tmp_path / "a.onnx"), **UINT8)


def taught_by(*paths: Path, **fields: object) -> dict[str, object]:
    return {"onnx": [str(path) for path in paths], **UINT8, **fields}


def test_an_exported_network_gives_the_logits_of_its_last_exit(
    exported: Path, network: tuple[MultiExit, Normalize]
) -> None:
    images = torch.from_numpy(
        load_dataset(DataRecipe.model_validate(DATA), Path()).train.images[:8]
    )
    logits = classifier(str(exported), classes=10, **UINT8).logits(images)
    teacher, normalize = network
    with torch.no_grad():
        expected = teacher(normalize(images))[-1]
    torch.testing.assert_close(logits[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("method", "exits", "models"), [("kd", (4,), 1), ("mskd", (1, 2, 3, 4), 2)]
)
def test_a_student_is_trained_and_the_next_one_computes_nothing(
    exported: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    exits: tuple[int],
    models: int,
) -> None:
    taught = taught_by(*[exported] * models, views=2)
    recipe = student(method, exits=exits, taught_by=taught)
    run(tmp_path, recipe)
    _, config = load_checkpoint(tmp_path / "student")
    assert len(config.test.exits) == len(exits)
    assert config.teacher_test is None
    files = view_files(tmp_path)
    assert [file.name for file in files] == ["view-00.safetensors", "view-01.safetensors"]
    assert files[0].parent.parent == tmp_path / "views"

    monkeypatch.setattr(onnx_classifier, "load_onnxruntime", None)  # is not needed
    run(tmp_path, recipe.model_copy(update={"name": "second"}))
    assert view_files(tmp_path) == files


def test_a_dry_run_times_the_models_and_fills_no_view(exported: Path, tmp_path: Path) -> None:
    recipe = student("mskd", taught_by=taught_by(exported, exported, views=2))
    found = dry_run(recipe, runs=tmp_path, device="cpu")
    assert found.teacher_image_s > 0
    assert "the teacher takes" in str(found)
    assert list(tmp_path.iterdir()) == []
    info = DATASET_INFO["digits"]
    whole = forecast([recipe], info, earlier=[recipe], runs=tmp_path, device="cpu")
    images = 2 * (info.train_images - recipe.data.held_out)
    assert whole.runs[0].seconds > images * found.teacher_image_s / 4  # on a busy machine


def test_a_changed_file_has_a_cache_of_its_own(exported: Path, tmp_path: Path) -> None:
    model = onnx.load(exported)
    one, two = tmp_path / "one.onnx", tmp_path / "two.onnx"
    for path in (one, two):
        onnx.save(model, path)
        model.producer_version = "2"
    for path in (one, two):
        name = f"from-{path.stem}"
        run(tmp_path, student("kd", name=name, exits=(4,), taught_by=taught_by(path), epochs=1))
    assert len({file.parent for file in view_files(tmp_path)}) == 2


def test_changed_weights_beside_the_file_change_the_key_too(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "apart.onnx"
    onnx.save(
        onnx.load(exported),
        path,
        save_as_external_data=True,
        location="weights",
        size_threshold=512,
    )
    recipe = student("kd", exits=(4,), taught_by=taught_by(path), epochs=1)
    run(tmp_path, recipe)
    weights = bytearray((tmp_path / "weights").read_bytes())
    weights[100] ^= 1
    (tmp_path / "weights").write_bytes(weights)
    run(tmp_path, recipe.model_copy(update={"name": "second"}))
    assert len({file.parent for file in view_files(tmp_path)}) == 2


@pytest.mark.parametrize("content", [None, b"\xff" * 100])
def test_a_missing_or_damaged_file_is_refused_before_training(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "a.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecipeError, match=r"a\.onnx cannot be read") as caught:
        run(tmp_path, student("kd", exits=(4,), taught_by=taught_by(path)))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "student").exists()
