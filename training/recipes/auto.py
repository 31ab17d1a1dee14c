"""The recipe for a user's own pictures: chosen from how many there are and how large they are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from training.recipes.network import NetworkRecipe
from training.recipes.schema import (
    DataRecipe,
    ExitObjective,
    Recipe,
    StartRecipe,
    TeacherRecipe,
    TrainRecipe,
)

# Pictures up to this shorter side get a network made for 32 pixels, larger ones one made for 224.
SMALL = 64
LARGE_SIDES = (128, 160, 192, 224)


@dataclass(frozen=True)
class Choice:
    """The recipes in the order they are to be trained, the last one to be served, and why they are
    as they are, a line each."""

    recipes: tuple[Recipe, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class _Networks:
    student: NetworkRecipe
    teacher: NetworkRecipe
    pretrained: bool
    reason: str


def choose(
    name: str,
    path: str,
    counts: Mapping[str, int],
    side: int,
    *,
    from_scratch: bool = False,
    teacher: bool = False,
) -> Choice:
    """Recipes named `name` for the pictures in `path`.

    `counts` are the training pictures of each class, `side` is the median of their shorter sides in
    pixels. `from_scratch` forgoes pretrained weights; with `teacher` there are two recipes, the first
    for a larger teacher.
    """
    pictures = sum(counts.values())
    held_out = _held_out(pictures, len(counts))
    input_side = _input_side(side)
    networks = _networks(side, pictures, from_scratch)
    data = DataRecipe(
        name="folder",
        path=path,
        side=input_side,
        held_out=held_out,
        scale=None if side <= SMALL else (0.35, 1.0),
        padding=input_side // 8 if side <= SMALL else 0,
    )
    settings, pace = _pace(pictures - held_out, networks.pretrained)
    start = StartRecipe(weights="torchvision") if networks.pretrained else None
    recipe = partial(Recipe, data=data, start=start, train=settings)
    reasons = [
        f"{pictures} training pictures in {len(counts)} classes, {_range(counts)} a class; "
        f"half of them have a shorter side of {side} pixels or more",
        _side_reason(side, input_side),
        networks.reason,
        _objective_reason(networks, teacher),
        f"{held_out} pictures are held out to set temperatures and thresholds",
        pace,
        "pictures are mirrored at random: where left and right matter, set data.flip = false",
    ]
    if not teacher:
        objective = ExitObjective(method="self_distillation", temperature=3.0, alpha=0.5)
        alone = recipe(name=name, network=networks.student, objective=objective)
        return Choice((alone,), tuple(reasons))
    first = recipe(
        name=f"{name}-teacher",
        network=networks.teacher,
        objective=ExitObjective(method="cross_entropy"),
    )
    second = recipe(
        name=name,
        network=networks.student,
        objective=ExitObjective(method="oto", temperature=3.0, alpha=0.5),
        teacher=TeacherRecipe(recipe=first.name),
    )
    return Choice((first, second), tuple(reasons))


def _held_out(pictures: int, classes: int) -> int:
    """A tenth, but 100 where that is at most a fifth; one of each class at least, 5000 at most."""
    return max(classes, min(max(pictures // 10, 100), pictures // 5, 5000))


def _input_side(side: int) -> int:
    if side <= SMALL:
        return 32 if side < 48 else 64
    return max((s for s in LARGE_SIDES if s <= side), default=LARGE_SIDES[0])


def _side_reason(side: int, input_side: int) -> str:
    if side <= SMALL:
        return f"side {input_side}: the nearer of 32 and 64 pixels"
    if input_side > side:
        return f"side {input_side}: the smallest that suits a network made for 224 pixels"
    return f"side {input_side}: the largest of 128, 160, 192 and 224 that the pictures fill"


def _networks(side: int, pictures: int, from_scratch: bool) -> _Networks:
    if side <= SMALL:
        width = 16 if pictures < 1_000 else 32 if pictures < 10_000 else 64
        return _Networks(
            NetworkRecipe(name="resnet18", width=width),
            NetworkRecipe(name="resnet50", width=width),
            False,
            f"resnet18 of width {width}, from scratch: its first layers keep all of a small picture, "
            "and its width goes with the number of pictures",
        )
    teacher = NetworkRecipe(name="torchvision-resnet50")
    if from_scratch:
        return _Networks(
            NetworkRecipe(name="torchvision-resnet18"),
            teacher,
            False,
            "torchvision-resnet18, from scratch as asked",
        )
    return _Networks(
        NetworkRecipe(name="torchvision-mobilenet-v3"),
        teacher,
        True,
        "torchvision-mobilenet-v3, from pretrained weights: an eighth of ResNet-18's computation",
    )


def _objective_reason(networks: _Networks, teacher: bool) -> str:
    if not teacher:
        return "self_distillation: the deepest exit teaches the others"
    origin = "pretrained weights" if networks.pretrained else "scratch"
    return (
        f"oto: each exit learns from the same exit of a {networks.teacher.title} trained first, "
        f"from {origin}"
    )


def _pace(samples: int, pretrained: bool) -> tuple[TrainRecipe, str]:
    """Epochs, batch and learning rate for so many samples an epoch, and why."""
    batch = 32 if samples < 1_000 else 64 if samples < 10_000 else 128
    # A power of two where there are fewer samples, too: torch 2.15 has crashed on odd batches on a CPU.
    batch = min(batch, 1 << (samples.bit_length() - 1))
    steps = samples // batch
    fewest, floor = (10, 200) if pretrained else (30, 200)
    epochs = max(fewest, math.ceil(floor / steps))
    settings = TrainRecipe(
        epochs=epochs,
        batch_size=batch,
        # The usual rule: in proportion to the batch. Pretrained weights are to be changed little.
        learning_rate=(0.01 if pretrained else 0.05) * batch / 64,
        weight_decay=1e-4 if pretrained else 5e-4,
    )
    return settings, (
        f"{epochs} epochs in batches of {batch}: at least {fewest} epochs and {floor} steps"
    )


def _range(counts: Mapping[str, int]) -> str:
    low, high = min(counts.values()), max(counts.values())
    return str(low) if low == high else f"{low} to {high}"
