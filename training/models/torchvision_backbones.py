"""torchvision's networks for ImageNet, cut into four stages where the side halves.

At 224 pixels the stages give sides of 56, 28, 14 and 7. Stage 1 holds everything up to a quarter of
the input's side: an exit before that would see edges and colours alone. What follows the last feature
map, the classifier for ImageNet, is left out.

    network           stage 1            stage 2        stage 3        stage 4
    ResNet-18, -50    stem, layer1       layer2         layer3         layer4
    MobileNetV3       features 0 to 3    4 to 6         7 to 12        13 to 16
    EfficientNet-B0   features 0 to 2    3              4 and 5        6 to 8
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn
from torchvision import models
from torchvision.models import WeightsEnum

from training.models.backbone import Backbone, NoFinalReLU
from training.models.layers import Depthwise


@dataclass(frozen=True)
class Spec:
    """How to build the network with fresh weights, its weights at torchvision, how its parts fall into
    stages (names of children, in order), the channels of each stage, and whether stages end in ReLUs."""

    build: Callable[[], nn.Module]
    weights: WeightsEnum
    parts: tuple[tuple[str, ...], ...]
    channels: tuple[int, int, int, int]
    final_relu: bool = True


def _features(*stages: Sequence[int]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(f"features.{part}" for part in stage) for stage in stages)


_RESNET = (("conv1", "bn1", "relu", "maxpool", "layer1"), ("layer2",), ("layer3",), ("layer4",))

SPECS: dict[str, Spec] = {
    "torchvision-resnet18": Spec(
        models.resnet18, models.ResNet18_Weights.DEFAULT, _RESNET, (64, 128, 256, 512)
    ),
    "torchvision-resnet50": Spec(
        models.resnet50, models.ResNet50_Weights.DEFAULT, _RESNET, (256, 512, 1024, 2048)
    ),
    "torchvision-mobilenet-v3": Spec(
        models.mobilenet_v3_large,
        models.MobileNet_V3_Large_Weights.DEFAULT,
        _features(range(4), range(4, 7), range(7, 13), range(13, 17)),
        (24, 40, 112, 960),
        final_relu=False,
    ),
    "torchvision-efficientnet-b0": Spec(
        # Without random depth: its draws would make a resumed run end differently.
        partial(models.efficientnet_b0, stochastic_depth_prob=0.0),
        models.EfficientNet_B0_Weights.DEFAULT,
        _features(range(3), range(3, 4), range(4, 6), range(6, 9)),
        (24, 40, 112, 1280),
        final_relu=False,
    ),
}


def torchvision_backbone(name: str) -> Backbone:
    """The four stages of the network `name` of SPECS, with fresh weights."""
    spec = SPECS[name]
    return Backbone(_cut(spec.build(), spec), list(spec.channels))


def load_state(stages: nn.Module, name: str, state: Mapping[str, Tensor]) -> None:
    """Fill `stages`, those of the network `name`, from a state dict of torchvision's whole network.

    Its classifier is ignored, whatever its size. Raises RuntimeError if anything else does not fit.
    """
    spec = SPECS[name]
    whole = spec.build()
    used = {part.split(".")[0] for stage in spec.parts for part in stage}
    backbone = {key: value for key, value in state.items() if key.split(".")[0] in used}
    rest = {k: v for k, v in whole.state_dict().items() if k.split(".")[0] not in used}
    whole.load_state_dict({**rest, **backbone})
    stages.load_state_dict(nn.ModuleList(_cut(whole, spec)).state_dict())


def _cut(network: nn.Module, spec: Spec) -> list[nn.Module]:
    """The stages of `network`, with its own modules but for the depthwise convolutions."""
    _adapt(network)
    stage = nn.Sequential if spec.final_relu else NoFinalReLU
    return [stage(*(network.get_submodule(part) for part in parts)) for parts in spec.parts]


def _adapt(network: nn.Module) -> None:
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv2d) and child.groups == child.in_channels > 1:
                setattr(parent, name, _depthwise(child))
            elif isinstance(child, nn.BatchNorm2d):
                # MobileNetV3's 0.01 needs hundreds of steps; runs on a user's images may be shorter.
                child.momentum = 0.1


def _depthwise(convolution: nn.Conv2d) -> Depthwise:
    kernel, stride = convolution.kernel_size[0], convolution.stride[0]
    replacement = Depthwise(convolution.in_channels, stride, kernel)
    replacement.load_state_dict(convolution.state_dict())
    return replacement
