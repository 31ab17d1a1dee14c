"""The recipe for an image folder, chosen by the number of images and their size."""

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
    TrainRecipe,
)
from training.recipes.teacher import TeacherRecipe

# Images up to this shorter side get a network made for 32 pixels, larger ones one made for 224.
MAX_SMALL_SIDE = 64
LARGE_SIDES = (128, 160, 192, 224)


@dataclass(frozen=True)
class Choice:
    """Recipes in training order, the last one for the network to serve, and the reasons for their
    values, one line each."""

    recipes: tuple[Recipe, ...]
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class _Networks:
    student: NetworkRecipe
    teacher: NetworkRecipe
    pretrained: bool
    reason: str


def choose_recipes(
    name: str,
    path: str,
    counts: Mapping[str, int],
    side: int,
    *,
    from_scratch: bool = False,
    teacher: bool = False,
) -> Choice:
    """Recipes named `name` for the image folder `path`.

    `counts` are the training images of each class, `side` is the median of their shorter sides in
    pixels. `from_scratch` uses no pretrained weights; with `teacher` there are two recipes, the first
    for a larger teacher.
    """
    images = sum(counts.values())
    held_out = _held_out(images, len(counts))
    input_side = _input_side(side)
    networks = _networks(side, images, from_scratch)
    data = DataRecipe(
        name="folder",
        path=path,
        side=input_side,
        held_out=held_out,
        scale=None if side <= MAX_SMALL_SIDE else (0.35, 1.0),
        padding=input_side // 8 if side <= MAX_SMALL_SIDE else 0,
    )
    settings, schedule_reason = _schedule(images - held_out, networks.pretrained)
    start = StartRecipe(weights="torchvision") if networks.pretrained else None
    recipe = partial(Recipe, data=data, start=start, train=settings)
    reasons = [
        f"{images} training pictures in {len(counts)} classes, {_range(counts)} a class; "
        f"half of them have a shorter side of {side} pixels or more",
        _side_reason(side, input_side),
        networks.reason,
        _objective_reason(networks, teacher),
        f"{held_out} pictures are held out to set temperatures and thresholds",
        schedule_reason,
        "pictures are mirrored at random: where left and right matter, set data.flip = false",
    ]
    if not teacher:
        objective = ExitObjective(method="self_distillation", temperature=3.0, alpha=0.5)
        student = recipe(name=name, network=networks.student, objective=objective)
        return Choice((student,), tuple(reasons))
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


def _held_out(images: int, classes: int) -> int:
    """A tenth, raised to 100 but to at most a fifth; at least one per class, at most 5000."""
    return max(classes, min(max(images // 10, 100), images // 5, 5000))


def _input_side(side: int) -> int:
    if side <= MAX_SMALL_SIDE:
        return 32 if side < 48 else 64
    return max((large for large in LARGE_SIDES if large <= side), default=LARGE_SIDES[0])


def _side_reason(side: int, input_side: int) -> str:
    if side <= MAX_SMALL_SIDE:
        return f"side {input_side}: the nearer of 32 and 64 pixels"
    if input_side > side:
        return f"side {input_side}: the smallest that suits a network made for 224 pixels"
    return f"side {input_side}: the largest of 128, 160, 192 and 224 that the pictures fill"


def _networks(side: int, images: int, from_scratch: bool) -> _Networks:
    if side <= MAX_SMALL_SIDE:
        width = 16 if images < 1_000 else 32 if images < 10_000 else 64
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


def _schedule(samples: int, pretrained: bool) -> tuple[TrainRecipe, str]:
    """Epochs, batch size and learning rate for `samples` an epoch, and the reason."""
    batch = 32 if samples < 1_000 else 64 if samples < 10_000 else 128
    # With fewer samples a power of two as well: torch 2.15 crashed on odd batches on a CPU.
    batch = min(batch, 1 << (samples.bit_length() - 1))
    steps = samples // batch
    min_epochs, min_steps = (10, 200) if pretrained else (30, 200)
    epochs = max(min_epochs, math.ceil(min_steps / steps))
    settings = TrainRecipe(
        epochs=epochs,
        batch_size=batch,
        # In proportion to the batch, the usual rule. Pretrained weights need a lower rate.
        learning_rate=(0.01 if pretrained else 0.05) * batch / 64,
        weight_decay=1e-4 if pretrained else 5e-4,
    )
    return settings, (
        f"{epochs} epochs in batches of {batch}: at least {min_epochs} epochs and {min_steps} steps"
    )


def _range(counts: Mapping[str, int]) -> str:
    low, high = min(counts.values()), max(counts.values())
    return str(low) if low == high else f"{low} to {high}"
