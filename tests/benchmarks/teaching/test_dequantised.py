"""A network made from an int8 stage answers as the stage does, and can be trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
import torch
from numpy.typing import NDArray

from benchmarks.teaching import dequantised
from benchmarks.teaching.dequantised import dequantise
from exports.bundle.errors import ExportError
from exports.bundle.reader import load_bundle
from exports.bundle.resolve import CIFAR100
from exports.cascade import load_cascade
from exports.stage_runner import StageRunner
from training.models.build import build_network, network_from_recipe
from training.models.multi_exit import MultiExit, Normalize
from training.models.pretrained import load_pretrained, pixel_statistics
from training.recipes.files import load_recipe

RECIPE = "cifar100-lite0"


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    """uint8 [64, 32, 32, 3]: parts of a photograph."""
    photo = sklearn.datasets.load_sample_image("flower.jpg")
    rng = np.random.default_rng(0)
    corners = rng.integers(0, (photo.shape[0] - 32, photo.shape[1] - 32), (64, 2))
    return np.stack([photo[y : y + 32, x : x + 32] for y, x in corners])


@pytest.fixture(scope="module")
def stage() -> bytes:
    return load_bundle(CIFAR100).stages[0]


@pytest.fixture(scope="module")
def normalised(images: NDArray[np.uint8]) -> torch.Tensor:
    normalize = Normalize(*pixel_statistics(load_recipe(RECIPE).network.name))
    return normalize(torch.from_numpy(images))


@pytest.fixture(scope="module")
def network(stage: bytes, normalised: torch.Tensor) -> MultiExit:
    network = pretrained()
    dequantise(stage, network, normalised)
    return network


def pretrained() -> MultiExit:
    recipe = load_recipe(RECIPE)
    network = network_from_recipe(recipe.network, 100)
    load_pretrained(network.stages, recipe.network.name, "imagenet")
    return network


@pytest.mark.parametrize("training", [False, True])
def test_the_network_answers_as_the_stage_does(
    network: MultiExit,
    stage: bytes,
    images: NDArray[np.uint8],
    normalised: torch.Tensor,
    training: bool,
) -> None:
    # In training, batch norm goes by the batch, which is what its statistics were taken from.
    with torch.no_grad():
        found = network.train(training)(normalised)[0].numpy()
    expected = StageRunner([stage]).logits(images)[0]
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.98


def test_weights_before_a_batch_norm_are_of_the_pretrained_size(network: MultiExit) -> None:
    for ours, theirs in zip(
        network.stages.parameters(), pretrained().stages.parameters(), strict=True
    ):
        if ours.dim() == 4:
            norms, wanted = (w.detach().flatten(1).norm(dim=1) for w in (ours, theirs))
            alive = (norms > 0) & (wanted > 0)
            torch.testing.assert_close(norms[alive], wanted[alive])


def test_a_network_of_other_layers_is_refused(stage: bytes, normalised: torch.Tensor) -> None:
    other = build_network("resnet10", 4, 100, [4])
    with pytest.raises(ValueError, match="layers are not those of the network"):
        dequantise(stage, other, normalised)


def test_the_run_names_the_one_that_follows_it(
    cifar_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dequantised, "FITTED_ON", 64)
    monkeypatch.setattr(dequantised, "TESTED_ON", 8)
    stage, run = str(CIFAR100 / "stage1.onnx"), str(tmp_path / "first")
    dequantised.main([stage, RECIPE, run, "--followed-by", "second", "--data", str(cifar_root)])
    with pytest.raises(ExportError, match="second, which follows first, is not trained yet"):
        load_cascade(tmp_path / "first")
