"""EfficientNet-Lite is the published network, and its weights are those of one that saw ImageNet."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from math import ceil

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torchvision.models import MobileNet_V3_Large_Weights

from tests.training.models.settling import settle
from training.models.build import build_network
from training.models.cost import count_macs, count_parameters
from training.models.efficientnet_lite import (
    MEAN,
    SPECS,
    STD,
    fill_in_order,
    lite_backbone,
    load_state,
)
from training.models.heads import LinearHead
from training.models.layers import Depthwise, SamePad
from training.models.multi_exit import Normalize
from training.models.pretrained import read_weights

LITE0, LITE2 = SPECS
# Repeats, kernel, stride, expansion, channels of the groups of EfficientNet-B0 (Tan and Le 2019, table 1).
B0 = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
# Multipliers of width and depth, and the side that the weights were trained at.
SCALES = {LITE0: (1.0, 1.0, 224), LITE2: (1.1, 1.2, 260)}


def whole_network(name: str) -> nn.Sequential:
    """The four stages of `name` and the classifier for ImageNet's 1,000 classes, in eval mode."""
    network = nn.Sequential(*lite_backbone(name).stages, LinearHead(1280, 1000))
    return network.eval()


@cache
def imagenet_state(name: str) -> dict[str, Tensor]:
    return read_weights(name, "imagenet")


def pretrained(name: str) -> nn.Sequential:
    network = whole_network(name)
    fill_in_order(network, imagenet_state(name))
    return network


def reference(name: str, state: dict[str, Tensor], x: Tensor) -> Tensor:
    """The logits of `name`, written as plain functions of the tensors of `state` in their order."""
    width, depth, _ = SCALES[name]
    tensors: Iterator[Tensor] = (
        tensor for key, tensor in state.items() if not key.endswith("num_batches_tracked")
    )

    def conv(x: Tensor, stride: int = 1, *, groups: int = 1) -> Tensor:
        weight = next(tensors)
        side, kernel = x.shape[-1], weight.shape[-1]
        total = max((ceil(side / stride) - 1) * stride + kernel - side, 0)
        before, after = total // 2, total - total // 2
        x = F.conv2d(F.pad(x, (before, after, before, after)), weight, None, stride, groups=groups)
        gain, bias, mean, var = (next(tensors).view(1, -1, 1, 1) for _ in range(4))
        return (x - mean) / (var + 1e-3).sqrt() * gain + bias

    x = conv(x, 2).clamp(0, 6)
    for group, (repeats, _, stride, expand, channels) in enumerate(B0):
        inner = group not in (0, len(B0) - 1)
        for block in range(ceil(repeats * depth) if inner else repeats):
            y = x if expand == 1 else conv(x).clamp(0, 6)
            y = conv(y, stride if block == 0 else 1, groups=y.shape[1]).clamp(0, 6)
            y = conv(y)
            x = x + y if block > 0 else y
        assert x.shape[1] == int(channels * width + 4) // 8 * 8
    x = conv(x).clamp(0, 6).mean(dim=(2, 3))
    return F.linear(x, next(tensors), next(tensors))


def photograph(file: str, side: int) -> Tensor:
    """The middle square of scikit-learn's sample image `file`, normalised: [1, 3, side, side]."""
    image = Image.fromarray(load_sample_image(file))
    edge = min(image.size)
    left, top = (image.width - edge) // 2, (image.height - edge) // 2
    box = (left, top, left + edge, top + edge)
    pixels = np.array(image.resize((side, side), Image.Resampling.BICUBIC, box))
    return Normalize((MEAN,) * 3, (STD,) * 3)(torch.from_numpy(pixels)[None])


@torch.no_grad()
def top5(network: nn.Module, x: Tensor) -> list[str]:
    """ImageNet's names of the five likeliest classes."""
    names = MobileNet_V3_Large_Weights.DEFAULT.meta["categories"]
    return [names[k] for k in network(x).topk(5).indices[0].tolist()]


@pytest.mark.parametrize(
    ("name", "parameters", "macs"), [(LITE0, 4_652_008, 385.2), (LITE2, 6_092_072, 576.5)]
)
def test_parameters_and_macs_are_the_published_ones(
    name: str, parameters: int, macs: float
) -> None:
    with torch.device("meta"):
        network = whole_network(name)
        image = torch.empty(1, 3, 224, 224)
    assert count_parameters(network) == parameters
    assert count_macs(network, image) / 1e6 == pytest.approx(macs, abs=0.05)


@pytest.mark.parametrize(("name", "channels"), [(LITE0, (40, 112)), (LITE2, (48, 120))])
def test_the_side_halves_from_a_quarter_on(name: str, channels: tuple[int, int]) -> None:
    network = build_network(name, None, 5, [1, 2, 3, 4]).eval()
    seen = network.observe(torch.zeros(1, 3, 64, 64))
    shapes = [tuple(features.shape[1:]) for features in seen.features]
    second, third = channels
    assert shapes == [(24, 16, 16), (second, 8, 8), (third, 4, 4), (1280, 2, 2)]


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("side", [64, 75])
def test_logits_are_those_of_a_plain_reference(name: str, side: int) -> None:
    x = photograph("china.jpg", side)
    with torch.no_grad():
        expected = reference(name, imagenet_state(name), x)
        actual = pretrained(name)(x)
    assert expected.std() > 0.5
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_photographs_are_what_they_show() -> None:
    for name, (_, _, side) in SCALES.items():
        seen = top5(pretrained(name), photograph("china.jpg", side))
        assert seen[0] == "palace"
        assert {"bell cote", "monastery", "castle"} <= set(seen)
    # A dahlia, which ImageNet does not have, on a leaf.
    assert top5(pretrained(LITE0), photograph("flower.jpg", 224))[0] == "daisy"
    assert "bee" in top5(pretrained(LITE2), photograph("flower.jpg", 260))


def test_with_one_layer_shuffled_photographs_are_anything() -> None:
    network = pretrained(LITE0)
    weight = network[2][0].body[0].weight
    order = torch.randperm(weight.shape[0], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        weight.copy_(weight[order])
    wrong = top5(network, photograph("china.jpg", 224))
    assert not {"palace", "bell cote", "monastery", "castle"} & set(wrong)
    assert "daisy" not in top5(network, photograph("flower.jpg", 224))


@pytest.mark.parametrize(
    ("side", "kernel", "zeros"),
    [(8, 3, (0, 1)), (9, 3, (1, 1)), (8, 5, (1, 2)), (9, 5, (2, 2)), (1, 3, (1, 1))],
)
def test_same_padding_puts_an_odd_zero_last(side: int, kernel: int, zeros: tuple[int, int]) -> None:
    before, after = zeros
    padded = SamePad(kernel, 2)(torch.ones(1, 1, side, side))
    assert padded[0, 0, before].tolist() == [0.0] * before + [1.0] * side + [0.0] * after
    assert padded.shape[2] == before + side + after
    assert (padded.shape[2] - kernel) // 2 + 1 == ceil(side / 2)


def test_depthwise_convolutions_and_statistics_suit_short_runs_on_a_cpu() -> None:
    for name in SPECS:
        modules = [m for stage in lite_backbone(name).stages for m in stage.modules()]
        grouped = [m for m in modules if isinstance(m, nn.Conv2d) and m.groups > 1]
        assert grouped
        assert all(isinstance(m, Depthwise) for m in grouped)
        norms = [m for m in modules if isinstance(m, nn.BatchNorm2d)]
        assert {(m.momentum, m.eps) for m in norms} == {(0.1, 1e-3)}


def test_every_parameter_learns_in_bf16() -> None:
    network = build_network(LITE0, None, 5, [1, 2, 3, 4])
    with torch.autocast("cpu", torch.bfloat16):
        logits = torch.stack(network(torch.randn(4, 3, 32, 32)))
    logits.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def changed(state: dict[str, Tensor], **by_end: Tensor | None) -> dict[str, Tensor]:
    """`state` with the tensors whose names end so replaced, or left out for None."""
    result = dict(state)
    for end, tensor in by_end.items():
        (key,) = (key for key in state if key.replace(".", "_").endswith(end))
        if tensor is None:
            del result[key]
        else:
            result[key] = tensor
    return result


@pytest.mark.parametrize(
    "change",
    [
        {"conv_head_weight": None},
        {"conv_head_weight": torch.zeros(1280, 320)},
        {"conv_head_weight": torch.zeros(1280, 320, 1, 1, dtype=torch.int64)},
        {"conv_head_weight": torch.full((1280, 320, 1, 1), torch.nan)},
        {"fc_bias": None},
    ],
)
def test_weights_that_do_not_fit_change_nothing(change: dict[str, Tensor | None]) -> None:
    stages = nn.ModuleList(lite_backbone(LITE0).stages)
    before = {key: value.clone() for key, value in stages.state_dict().items()}
    with pytest.raises(RuntimeError):
        load_state(stages, LITE0, changed(imagenet_state(LITE0), **change))
    assert all(torch.equal(value, before[key]) for key, value in stages.state_dict().items())


def test_tensors_in_another_order_are_refused() -> None:
    items = list(imagenet_state(LITE0).items())
    items[1], items[2] = items[2], items[1]  # a batch norm's weight and bias, of one shape
    with pytest.raises(RuntimeError, match="does not fit"):
        load_state(nn.ModuleList(lite_backbone(LITE0).stages), LITE0, dict(items))


def test_the_classifier_may_be_of_any_size_or_missing() -> None:
    state = imagenet_state(LITE0)
    other = changed(state, fc_weight=torch.zeros(7, 1280), fc_bias=torch.zeros(7))
    for given in (state, other, changed(state, fc_weight=None, fc_bias=None)):
        stages = nn.ModuleList(lite_backbone(LITE0).stages)
        load_state(stages, LITE0, given)
        assert torch.equal(stages[3][5].weight, state["_conv_head.weight"])


def test_preactivations_are_the_features_for_no_stage_ends_in_a_plain_relu() -> None:
    network = settle(build_network(LITE0, None, 5, [4]), torch.randn(2, 3, 32, 32))
    seen = network.observe(torch.randn(1, 3, 32, 32), preactivations=True)
    for before, after in zip(seen.preactivations, seen.features, strict=True):
        assert torch.equal(before, after)
