"""The networks have the sizes of the published architectures."""

from __future__ import annotations

import pytest
import torch

from training.models.cost import count_macs, count_parameters
from training.models.multi_exit import Normalize, build_network
from training.models.resnet import resnet_backbone

# Parameters (M) and MACs (M) of the single-exit network at 32 pixels, 100 classes.
PUBLISHED = {
    "resnet10": (4.95, 254),
    "resnet18": (11.22, 556),
    "resnet34": (21.33, 1159),
    "resnet50": (23.71, 1298),
}
# Parameters (M) of the SepConv heads with attention at exits 1 to 3, linear layer included.
HEADS = {"resnet18": (0.330, 0.342, 0.391), "resnet50": (4.51, 4.71, 5.50)}


@pytest.mark.parametrize("name", PUBLISHED)
def test_backbone_has_the_published_size(name: str) -> None:
    network = build_network(name, 64, 100, exits=[4])
    millions, macs = PUBLISHED[name]
    assert count_parameters(network) / 1e6 == pytest.approx(millions, abs=0.006)
    counted = count_macs(network.eval(), torch.zeros(1, 3, 32, 32)) / 1e6
    assert counted == pytest.approx(macs, abs=1)


@pytest.mark.parametrize("name", HEADS)
def test_heads_have_the_published_size(name: str) -> None:
    network = build_network(name, 64, 100, exits=[1, 2, 3, 4])
    sizes = [count_parameters(head) / 1e6 for head in network.heads]
    assert sizes[:3] == pytest.approx(HEADS[name], abs=0.006)


@pytest.mark.parametrize("side", [16, 32, 64])
def test_every_exit_gives_logits_for_any_side(side: int) -> None:
    network = build_network("resnet10", 8, 7, exits=[1, 2, 3, 4]).eval()
    assert [tuple(z.shape) for z in network(torch.zeros(2, 3, side, side))] == [(2, 7)] * 4


def test_stages_without_a_head_join_the_next_one() -> None:
    network = build_network("resnet10", 8, 5, exits=[2, 4]).eval()
    whole = build_network("resnet10", 8, 5, exits=[1, 2, 3, 4]).eval()
    assert network.exits == 2
    image = torch.zeros(1, 3, 16, 16)
    assert network.segments()[0](image).shape == whole.stages[1](whole.stages[0](image)).shape


def test_each_later_stage_halves_the_side_and_doubles_the_channels() -> None:
    backbone = resnet_backbone("resnet18", 16)
    x = torch.zeros(1, 3, 32, 32)
    shapes = []
    for stage in backbone.stages:
        x = stage(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [(16, 32, 32), (32, 16, 16), (64, 8, 8), (128, 4, 4)]
    assert backbone.channels == [16, 32, 64, 128]


def test_normalize_takes_bytes_to_zero_mean_and_unit_deviation() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 3, 1).expand(1, 1, 3, 3)
    out = Normalize((0.2, 0.2, 0.2), (0.4, 0.4, 0.4))(images)
    assert out.shape == (1, 3, 1, 3)
    assert out[0, 0, 0].tolist() == pytest.approx([-0.5, 0.0, 2.0], abs=1e-6)


def test_bf16_on_a_cpu_gives_the_same_logits_to_bf16_precision() -> None:
    torch.manual_seed(0)
    network = build_network("resnet10", 8, 5, exits=[1, 2, 3, 4]).eval()
    image = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        exact = network(image)
        with torch.autocast("cpu", torch.bfloat16):
            rough = network(image)
    for a, b in zip(exact, rough, strict=True):
        assert torch.allclose(a, b.float(), atol=0.05 * float(a.abs().max()) + 0.02)
