"""What the multi-exit network shows, keeps still, and lets gradients do."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch.nn.functional import interpolate

from training.models.build import build_network, network_from_recipe
from training.models.cost import count_parameters
from training.models.layers import Resize
from training.models.multi_exit import MultiExit
from training.recipes.network import CifarNetwork, NetworkRecipe, stages_of


def scalar_network() -> MultiExit:
    """Three stages that pass a single value on, three heads that read it."""
    stages = [torch.nn.Conv2d(1, 1, 1, bias=False) for _ in range(3)]
    heads = [torch.nn.Flatten() for _ in range(3)]
    network = MultiExit(stages, heads, (1, 2, 3))
    for parameter in network.parameters():
        torch.nn.init.ones_(parameter)
    return network


def stage_gradients(gradient_equilibrium: bool) -> list[float]:
    network = scalar_network()
    seen = network.observe(torch.ones(1, 1, 1, 1), gradient_equilibrium=gradient_equilibrium)
    torch.stack(seen.logits).sum().backward()
    return [float(stage.weight.grad) for stage in network.stages]


def test_without_equilibrium_a_stage_gets_the_sum_of_the_exits_behind_it() -> None:
    assert stage_gradients(False) == [3.0, 2.0, 1.0]


def test_with_equilibrium_a_stage_gets_their_mean() -> None:
    assert stage_gradients(True) == [1.0, 1.0, 1.0]


def test_features_of_every_stage_are_shown_with_a_head_or_without() -> None:
    network = build_network("resnet10", 8, 5, exits=[4]).eval()
    seen = network.observe(torch.randn(2, 3, 16, 16))
    assert [tuple(f.shape[1:]) for f in seen.features] == [
        (8, 16, 16),
        (16, 8, 8),
        (32, 4, 4),
        (64, 2, 2),
    ]
    assert len(seen.logits) == 1
    assert seen.embedding.shape == (2, 64)


@pytest.mark.parametrize("name", get_args(CifarNetwork))
def test_preactivations_are_what_the_last_relu_of_each_stage_gets(name: str) -> None:
    stages = stages_of(name)
    network = build_network(name, 4, 5, exits=[stages]).eval()
    seen = network.observe(torch.randn(2, 3, 16, 16), preactivations=True)
    assert len(seen.preactivations) == stages
    for before, after in zip(seen.preactivations, seen.features, strict=True):
        assert before.min() < 0
        assert torch.equal(before.relu(), after)


def test_what_is_frozen_keeps_weights_and_statistics_while_the_rest_learns() -> None:
    network = build_network("resnet10", 8, 5, exits=[1, 4])
    network.freeze([network.stages, network.heads[1]])
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    torch.stack(network(torch.randn(4, 3, 16, 16))).square().sum().backward()
    optimizer.step()
    changed = {n for n, v in network.state_dict().items() if not torch.equal(v, before[n])}
    assert changed
    assert all(name.startswith("heads.0.") for name in changed)
    assert count_parameters(network) > sum(
        p.numel() for p in network.parameters() if p.requires_grad
    )


def resizing(side: int | None, antialias: Literal[True] | None = None) -> MultiExit:
    """A small network at `side` pixels, the same weights every time."""
    torch.manual_seed(0)
    recipe = NetworkRecipe(name="resnet10", width=4, side=side, antialias=antialias)
    return network_from_recipe(recipe, classes=5).eval()


def test_a_network_with_a_side_resizes_its_images_first() -> None:
    images = torch.randn(2, 3, 16, 16)
    larger = interpolate(images, size=(32, 32), mode="bilinear", align_corners=False)
    for own, given in zip(resizing(32)(images), resizing(None)(larger), strict=True):
        torch.testing.assert_close(own, given)


@pytest.mark.parametrize("source", [48, 40, 224])
def test_an_antialiased_side_shrinks_images_as_pillow_does(source: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (source, source, 3)).astype(np.uint8)
    expected = np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.BILINEAR))
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    antialiased = Resize(32, antialias=True)(images)[0].permute(1, 2, 0).numpy()
    # Pillow rounds to whole levels after the rows and after the columns.
    assert np.abs(antialiased - expected).max() <= 1.01
    assert np.abs(Resize(32)(images)[0].permute(1, 2, 0).numpy() - expected).max() > 30
    shrunk = Resize(32, antialias=True)(images / 255)
    for own, given in zip(resizing(32, True)(images / 255), resizing(None)(shrunk), strict=True):
        torch.testing.assert_close(own, given)


def test_antialiasing_changes_nothing_where_images_grow_or_keep_their_size() -> None:
    for source in (16, 32):
        images = torch.randn(2, 3, source, source)
        plain, antialiased = Resize(32)(images), Resize(32, antialias=True)(images)
        assert torch.equal(plain, antialiased)


def test_only_resized_images_can_be_antialiased() -> None:
    with pytest.raises(ValidationError, match="antialias needs a side"):
        NetworkRecipe(name="resnet10", width=4, antialias=True)


def test_another_side_replaces_the_networks_own() -> None:
    images = torch.randn(2, 3, 16, 16)
    seen = resizing(64).observe(images, side=32)
    for replaced, own in zip(seen.logits, resizing(32)(images), strict=True):
        torch.testing.assert_close(replaced, own)


def test_the_first_segment_resizes_too() -> None:
    network, images = resizing(32), torch.randn(2, 3, 16, 16)
    features = network.segments()[0](images)
    torch.testing.assert_close(features, network.observe(images).features[0])
