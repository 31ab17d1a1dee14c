"""The networks have the sizes of the published architectures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import pytest
import torch
from torch import Tensor, nn

from training.models.backbone import Backbone
from training.models.build import build_backbone, build_network
from training.models.cost import count_macs, count_parameters
from training.models.heads import DESIGNS, build_heads
from training.models.multi_exit import Normalize

CLASSES = 100


@dataclass(frozen=True)
class Published:
    """Of the single-exit network at 32 pixels with 100 classes: the first stage's width, parameters (M)
    and multiply-accumulates (M), and the share of these (%) up to the end of each early stage."""

    width: int
    params: float
    macs: float
    shares: tuple[float, ...]


PUBLISHED = {
    "resnet10": Published(64, 4.95, 254, (30, 54, 77)),
    "resnet18": Published(64, 11.22, 556, (28, 52, 76)),
    "resnet34": Published(64, 21.33, 1159, (20, 44, 82)),
    "resnet50": Published(64, 23.71, 1298, (17, 43, 80)),
    "resnet152": Published(64, 58.34, 3722, (6, 23, 93)),
    "vgg8": Published(64, 3.965, 96, (2, 21, 41)),
    "vgg13": Published(64, 9.462, 285, (14, 34, 54)),
    "wrn-16-2": Published(32, 0.703, 101, (34, 67)),
    "wrn-40-2": Published(32, 2.255, 328, (33, 67)),
}

BASIC = ("resnet10", "resnet18", "resnet34")
WIDE = ("resnet50", "resnet152")
# Parameters (M) of the heads at the early exits, linear layer included.
HEADS = {
    "sepconv": {
        **dict.fromkeys(BASIC, (0.330, 0.342, 0.391)),
        **dict.fromkeys(WIDE, (4.51, 4.71, 5.50)),
    },
    "sepconv-plain": {
        **dict.fromkeys(("vgg8", "vgg13"), (0.320, 0.306, 0.254)),
        # 3840 + 13824 for the units 32 -> 64 -> 128 and 12900 for the linear layer.
        **dict.fromkeys(("wrn-16-2", "wrn-40-2"), (0.0306, 0.0267)),
    },
    "bottleneck": {
        **dict.fromkeys(BASIC, (1.18, 0.398, 0.217)),
        **dict.fromkeys(WIDE, (18.2, 5.72, 2.84)),
    },
    "conv": {
        **dict.fromkeys(BASIC, (1.60, 1.53, 1.23)),
        **dict.fromkeys(WIDE, (25.0, 23.8, 19.1)),
    },
    "copy": {
        "resnet10": (4.87, 4.64, 3.72),
        "resnet18": (11.1, 10.5, 8.4),
        "resnet34": (21.1, 20.0, 13.2),
        "resnet50": (23.5, 22.3, 15.2),
        "resnet152": (58.1, 55.8, 15.2),
    },
}
# Multiply-accumulates (M) of the SepConv heads with attention.
HEAD_MACS = {
    **dict.fromkeys(BASIC, (12.4, 8.8, 5.4)),
    **dict.fromkeys(WIDE, (188, 136, 85)),
}


@lru_cache
def published(name: str) -> Backbone:
    """The network at its published width, without memory for its weights."""
    with torch.device("meta"):
        return build_backbone(name, PUBLISHED[name].width)


def published_heads(name: str, design: str) -> list[nn.Module]:
    with torch.device("meta"):
        return build_heads(design, published(name), CLASSES)


def features(backbone: Backbone, x: Tensor) -> list[Tensor]:
    """What each stage gives."""
    maps = []
    with torch.no_grad():
        for stage in backbone.stages:
            x = stage.eval()(x)
            maps.append(x)
    return maps


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_backbone_has_the_published_parameters_and_macs(name: str) -> None:
    expected, backbone = PUBLISHED[name], published(name)
    linear = published_heads(name, "sepconv")[-1]
    params = sum(count_parameters(module) for module in (*backbone.stages, linear))
    assert params / 1e6 == pytest.approx(expected.params, rel=5e-4)

    image = torch.empty(1, 3, 32, 32, device="meta")
    maps = features(backbone, image)
    parts = zip((*backbone.stages, linear), (image, *maps), strict=True)
    *cumulative, total = accumulate(count_macs(module, x) / 1e6 for module, x in parts)
    assert total == pytest.approx(expected.macs, abs=0.6)
    shares = [100 * macs / total for macs in cumulative[:-1]]
    assert shares == pytest.approx(expected.shares, abs=0.6)


@pytest.mark.parametrize(
    ("design", "name"), [(design, name) for design, of in HEADS.items() for name in of]
)
def test_heads_have_the_published_parameters(design: str, name: str) -> None:
    sizes = [count_parameters(head) / 1e6 for head in published_heads(name, design)[:-1]]
    assert sizes == pytest.approx(HEADS[design][name], rel=0.006)


@pytest.mark.parametrize("name", HEAD_MACS)
def test_the_default_heads_have_the_published_macs(name: str) -> None:
    maps = [
        torch.empty(1, channels, 32 >> k, 32 >> k, device="meta")
        for k, channels in enumerate(published(name).channels)
    ]
    heads = zip(published_heads(name, "sepconv"), maps, strict=True)
    macs = [count_macs(head.eval(), x) / 1e6 for head, x in heads]
    assert macs[:3] == pytest.approx(HEAD_MACS[name], abs=0.05, rel=0.004)


@pytest.mark.parametrize("name", PUBLISHED)
@torch.no_grad()
def test_every_network_with_every_head_gives_logits_for_any_side(name: str) -> None:
    backbone = build_backbone(name, 4)
    maps = {side: features(backbone, torch.zeros(2, 3, side, side)) for side in (16, 32, 64)}
    for design in DESIGNS:
        for k, head in enumerate(build_heads(design, backbone, 7)):
            for side, of_stages in maps.items():
                assert head.eval()(of_stages[k]).shape == (2, 7), (design, k, side)


def test_stages_without_a_head_join_the_next_one() -> None:
    network = build_network("resnet10", 8, 5, exits=[2, 4]).eval()
    whole = build_network("resnet10", 8, 5, exits=[1, 2, 3, 4]).eval()
    assert network.exits == 2
    image = torch.zeros(1, 3, 16, 16)
    assert network.segments()[0](image).shape == whole.stages[1](whole.stages[0](image)).shape


@pytest.mark.parametrize(
    ("name", "first"), [("resnet18", 1), ("resnet50", 4), ("vgg8", 1), ("wrn-16-2", 1)]
)
def test_each_later_stage_halves_the_side_and_doubles_the_channels(name: str, first: int) -> None:
    for width in (4, 16):
        backbone = build_backbone(name, width)
        maps = features(backbone, torch.zeros(1, 3, 32, 32))
        assert [x.shape[1] for x in maps] == backbone.channels
        assert [x.shape[2] for x in maps] == [32, 16, 8, 4][: len(maps)]
        assert backbone.channels == [first * width << k for k in range(len(maps))]


def test_a_vgg_takes_64_pixels_with_the_same_weights_down_to_the_same_last_map() -> None:
    backbone = build_backbone("vgg13", 4)
    sides = {
        side: [x.shape[2] for x in features(backbone, torch.zeros(2, 3, side, side))]
        for side in (32, 64)
    }
    assert sides == {32: [32, 16, 8, 4], 64: [64, 32, 16, 4]}


def test_a_copy_head_is_as_the_later_stages_with_weights_of_its_own() -> None:
    network = build_network("vgg8", 4, 5, exits=[1, 2, 3, 4], heads="copy")
    stage, copied = network.stages[3], network.heads[2][0]
    ours, theirs = stage.state_dict(), copied.state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}
    assert not any(p is q for p in stage.parameters() for q in copied.parameters())
    assert not torch.equal(ours["1.weight"], theirs["1.weight"])


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
