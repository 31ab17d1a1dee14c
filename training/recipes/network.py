"""The network of a recipe: backbone, exits, heads."""

from __future__ import annotations

from itertools import accumulate
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from training.recipes.part import RecipePart

# Of a bundle, too: see MAX_EXITS of exports/bundle/manifest.py.
MAX_EXITS = 32

Channels = Annotated[int, Field(ge=4, le=2048)]
Blocks = Annotated[int, Field(ge=1, le=64)]

CifarNetwork = Literal[
    "resnet10",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet152",
    "vgg8",
    "vgg13",
    "wrn-16-2",
    "wrn-40-2",
]
TorchvisionNetwork = Literal[
    "torchvision-resnet18",
    "torchvision-resnet50",
    "torchvision-mobilenet-v3",
    "torchvision-efficientnet-b0",
]
LiteNetwork = Literal["efficientnet-lite0", "efficientnet-lite2"]
# One list, so that a mistake is answered with all names.
NetworkName = Literal["resnet", CifarNetwork, LiteNetwork, TorchvisionNetwork]
HeadDesign = Literal["sepconv", "sepconv-plain", "bottleneck", "conv", "copy"]
TORCHVISION = "torchvision-"
LITE = "efficientnet-lite"
DEPTHWISE = ("torchvision-mobilenet", "torchvision-efficientnet")
RESNET = "resnet"


def stages_of(network: str) -> int:
    """The number of stages of a named backbone: three for a wide residual network, else four."""
    return 3 if network.startswith("wrn") else 4


def _has_width(network: str) -> bool:
    return network != RESNET and not network.startswith((TORCHVISION, LITE))


def _published_width(network: str) -> int | None:
    if not _has_width(network):
        return None
    return 32 if network.startswith("wrn") else 64


def _after_each_group(values: dict[str, Any]) -> tuple[int, ...] | None:
    blocks = values.get("blocks")
    return None if blocks is None else tuple(accumulate(blocks))


def _all_exits(values: dict[str, Any]) -> tuple[int, ...]:
    ends = values.get("exits_after")
    stages = stages_of(values.get("name", "")) if ends is None else len(ends)
    return tuple(range(1, stages + 1))


class NetworkRecipe(RecipePart):
    """Backbone, the stages that carry a head (1-based; all of them unless given) and the design of the
    heads.

    `width`, of the networks for small images, is the channels of the first stage (as published unless
    given). The network "resnet" has groups of basic blocks instead: `channels` and `blocks` of each
    group, each group but the first at half the side of the one before. `exits_after` are the blocks,
    counted from 1 through the whole network, after which a stage ends (each group's last unless given),
    so that an exit may follow any block. `stem` is "cifar" (3x3, the side is kept; the default) or
    "imagenet" (7x7 and a max-pool, a quarter of the side). With `side` the network resizes images to that
    many pixels first, so that small images can use a backbone made for larger ones. With `antialias` larger
    images are shrunk with Pillow's antialiased bilinear filter; without it, as in runs of earlier versions,
    each pixel comes from the four nearest ones alone.
    """

    name: NetworkName
    width: Annotated[int, Field(ge=4, le=256)] | None = Field(
        default_factory=lambda values: _published_width(values.get("name", ""))
    )
    channels: Annotated[tuple[Channels, ...], Field(min_length=1, max_length=6)] | None = None
    blocks: Annotated[tuple[Blocks, ...], Field(min_length=1, max_length=6)] | None = None
    exits_after: tuple[int, ...] | None = Field(default_factory=_after_each_group)
    stem: Literal["cifar", "imagenet"] | None = Field(
        default_factory=lambda values: "cifar" if values.get("name") == RESNET else None
    )
    side: Annotated[int, Field(ge=32, le=320)] | None = None
    antialias: Literal[True] | None = None
    exits: tuple[int, ...] = Field(default_factory=_all_exits)
    heads: HeadDesign = "sepconv"

    @model_validator(mode="after")
    def _only_a_resnet_has_groups(self) -> Self:
        general = self.name == RESNET
        for field in ("channels", "blocks", "exits_after", "stem"):
            if (getattr(self, field) is not None) != general:
                verb = "needs" if general else "takes no"
                raise ValueError(f"{self.name} {verb} {field}")
        return self

    @model_validator(mode="after")
    def _groups_fit(self) -> Self:
        if self.channels is None or self.blocks is None or self.exits_after is None:
            return self
        if len(self.channels) != len(self.blocks):
            raise ValueError(
                f"channels and blocks must have one entry a group, not {len(self.channels)} and "
                f"{len(self.blocks)}"
            )
        ends, last = self.exits_after, sum(self.blocks)
        if not ends or ends[0] < 1 or list(ends) != sorted(set(ends)) or ends[-1] != last:
            raise ValueError(
                f"exits_after must increase from 1 or more and end with {last}, the last block"
            )
        return self

    @model_validator(mode="after")
    def _exits_increase_to_the_last_stage(self) -> Self:
        if sorted(set(self.exits)) != list(self.exits) or self.exits[-1:] != (self.stages,):
            raise ValueError(f"exits must increase and end with {self.stages}, the last stage")
        if self.exits[0] < 1:
            raise ValueError("exits count from 1")
        if len(self.exits) > MAX_EXITS:
            raise ValueError(
                f"there are {len(self.exits)} exits, and at most {MAX_EXITS} can be served"
            )
        return self

    @model_validator(mode="after")
    def _only_resized_images_are_antialiased(self) -> Self:
        if self.antialias and self.side is None:
            raise ValueError("antialias needs a side, to which images are resized")
        return self

    @model_validator(mode="after")
    def _width_can_be_chosen(self) -> Self:
        if (self.width is not None) != _has_width(self.name):
            verb = "needs a" if self.width is None else "has its own width: leave out"
            raise ValueError(f"{self.name} {verb} width")
        return self

    @property
    def stages(self) -> int:
        """The number of stages of the backbone."""
        return stages_of(self.name) if self.exits_after is None else len(self.exits_after)

    @property
    def is_depthwise(self) -> bool:
        """Whether the backbone consists of depthwise convolutions."""
        return self.name.startswith((LITE, *DEPTHWISE))

    @property
    def title(self) -> str:
        """The backbone in a few words."""
        if self.channels is not None and self.blocks is not None:
            channels, blocks = ("-".join(map(str, part)) for part in (self.channels, self.blocks))
            shape = f" of channels {channels} and blocks {blocks}"
        else:
            shape = "" if self.width is None else f" of width {self.width}"
        return f"{self.name}{shape}" + ("" if self.side is None else f" at {self.side} pixels")
