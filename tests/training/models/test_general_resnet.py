"""A residual network of any groups of blocks, with exits after any of them."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
import pytest
import torch
from torch import Tensor

from exports.graphs.stages import export_stages
from exports.stage_runner import StageRunner
from exports.verify import verify
from tests.training.models.quantised import correlations, int8_stages
from tests.training.models.settling import settle
from training.models.build import build_network, network_from_recipe
from training.models.cost import count_macs, network_cost
from training.models.heads import DESIGNS, build_heads
from training.models.multi_exit import MultiExit, Normalize
from training.models.resnet import general_resnet
from training.recipes.network import NetworkRecipe

CHANNELS, BLOCKS = (32, 64, 160, 320), (1, 2, 3, 2)
TINY = {"name": "resnet", "channels": (4, 8), "blocks": (1, 2), "exits_after": (1, 2, 3)}


def recipe(**changes: object) -> NetworkRecipe:
    return NetworkRecipe.model_validate(
        {"name": "resnet", "channels": CHANNELS, "blocks": BLOCKS, **changes}
    )


def costs(network: MultiExit, x: Tensor) -> list[float]:
    """Multiply-accumulates (M) of each exit with all that lies before it, earlier heads included."""
    parts = []
    for segment, head in zip(network.eval().segments(), network.heads, strict=True):
        macs = count_macs(segment, x)
        with torch.no_grad():
            x = segment(x)
        parts.append((macs + count_macs(head, x)) / 1e6)
    return list(accumulate(parts))


@pytest.mark.parametrize(
    ("heads", "total", "shares"),
    [
        ("sepconv-plain", 192.9, (11.9, 30.5, 72.8, 100)),
        ("sepconv", 195.0, (12.1, 30.8, 73.1, 100)),
    ],
)
def test_a_narrow_first_group_makes_the_first_exit_cheap(
    heads: str, total: float, shares: tuple[float, ...]
) -> None:
    network = recipe(heads=heads)
    assert network.exits_after == (1, 3, 6, 8)
    with torch.device("meta"):
        found = costs(network_from_recipe(network, 100), torch.empty(1, 3, 32, 32))
    assert found[-1] == pytest.approx(total, abs=0.05)
    assert [100 * macs / found[-1] for macs in found] == pytest.approx(shares, abs=0.05)
    assert network_cost(network, 32, 100)[1] == round(1e6 * found[-1])


def test_with_the_groups_of_a_resnet10_it_is_a_resnet10() -> None:
    torch.manual_seed(0)
    named = build_network("resnet10", 4, 5, [1, 2, 3, 4]).eval()
    torch.manual_seed(0)
    same = recipe(channels=(4, 8, 16, 32), blocks=(1, 1, 1, 1))
    network = network_from_recipe(same, 5).eval()
    assert list(network.state_dict()) == list(named.state_dict())
    image = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        for actual, expected in zip(network(image), named(image), strict=True):
            assert torch.equal(actual, expected)


@pytest.mark.parametrize(
    ("exits_after", "sides", "reductions"),
    [
        ((1, 3, 6, 8), (32, 16, 8, 4), (3, 2, 1)),
        # Two exits in one group, and after the last group's first block.
        ((1, 2, 3, 7, 8), (32, 16, 16, 4, 4), (3, 2, 2, 0)),
        # A stage that halves the side three times.
        ((1, 8), (32, 4), (3,)),
        ((8,), (4,), ()),
    ],
)
def test_a_head_reduces_the_side_as_often_as_the_blocks_behind_it(
    exits_after: tuple[int, ...], sides: tuple[int, ...], reductions: tuple[int, ...]
) -> None:
    narrow = tuple(channels // 8 for channels in CHANNELS)
    backbone = general_resnet(narrow, BLOCKS, exits_after, "cifar")
    maps, x = [], torch.zeros(2, 3, 32, 32)
    for stage in backbone.stages:
        maps.append(x := stage.eval()(x))
    assert [x.shape[-1] for x in maps] == list(sides)
    assert [x.shape[1] for x in maps] == backbone.channels
    for design in DESIGNS:
        heads = build_heads(design, backbone, 7)
        for head, features in zip(heads, maps, strict=True):
            assert head.eval()(features).shape == (2, 7), design
    early = build_heads("sepconv-plain", backbone, 7)[:-1]
    assert [len(head.reduce) for head in early] == list(reductions)
    for head, features in zip(early, maps[:-1], strict=True):
        assert head.eval().reduce(features).shape == maps[-1].shape


def test_the_stem_for_large_images_quarters_the_side() -> None:
    network = network_from_recipe(recipe(**TINY, stem="imagenet"), 5).eval()
    sides = [x.shape[-1] for x in network.observe(torch.zeros(1, 3, 64, 64)).features]
    assert sides == [16, 8, 8]


def test_every_parameter_learns() -> None:
    network = network_from_recipe(recipe(**TINY), 5)
    torch.stack(network(torch.randn(4, 3, 16, 16))).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_preactivations_are_what_the_last_relu_of_each_stage_gets() -> None:
    network = network_from_recipe(recipe(**TINY), 5).eval()
    seen = network.observe(torch.randn(2, 3, 16, 16), preactivations=True)
    for before, after in zip(seen.preactivations, seen.features, strict=True):
        assert before.min() < 0
        assert torch.equal(before.relu(), after)


def test_stages_may_carry_no_exit() -> None:
    network = network_from_recipe(recipe(**TINY, exits=(1, 3)), 5).eval()
    assert (network.exits, len(network.stages)) == (2, 3)
    assert network.segments()[1](torch.zeros(1, 4, 16, 16)).shape == (1, 8, 8, 8)


def test_exported_stages_agree_with_torch_and_int8_follows() -> None:
    torch.manual_seed(0)
    network = network_from_recipe(recipe(**TINY), 5)
    normalize = Normalize((0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    images = torch.randint(0, 256, (64, 16, 16, 3), dtype=torch.uint8).numpy()
    images = np.sort(images, axis=1)  # neighbours differ less than those of noise
    settle(network, normalize(torch.from_numpy(images)))
    stages = [graph.onnx for graph in export_stages(network, normalize, (16, 16))]
    assert verify(StageRunner(stages), network, normalize, images[:14]) < 1e-3
    assert min(correlations(stages, int8_stages(stages, images), images)) > 0.95
