"""Draws the web page's sample images of groceries: generated, public domain.

    python examples/draw_groceries.py [FOLDER]

Crates full of fruit and vegetables, 320 pixels a side, as the network for groceries knows them from shops.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

FOLDER = Path(__file__).parents[1] / "serving" / "page" / "samples"
SIDE = 320
FULL = 640  # drawn larger, then reduced, so that edges are smooth

Colour = tuple[int, int, int]
Floats = NDArray[np.float64]
Draw = Callable[[int, np.random.Generator], Image.Image]


@dataclass(frozen=True)
class Paint:
    """The colour in even light, in full light and in shadow; how bright a reflection is, and how rough the
    skin."""

    even: Colour
    light: Colour
    dark: Colour
    gloss: float = 0.35
    rough: float = 0.0


def _rotated(size: int, angle: float) -> tuple[Floats, Floats]:
    """Coordinates from -0.5 to 0.5 along and across a thing that is turned by `angle`, each [size, size]."""
    down, right = np.mgrid[0:size, 0:size] / size - 0.5
    turn, lift = math.cos(angle), math.sin(angle)
    return right * turn + down * lift, -right * lift + down * turn


def _sprite(colours: Floats, inside: NDArray[np.bool_], soften: float) -> Image.Image:
    """`colours` [S, S, 3] where `inside` [S, S] is true, with a soft edge."""
    edge = Image.fromarray((inside * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(soften))
    image = Image.fromarray(colours.clip(0, 255).astype(np.uint8))
    image.putalpha(edge)
    return image


def round_thing(
    paint: Paint, wide: float, high: float, size: int, rng: np.random.Generator, tip: bool = False
) -> Image.Image:
    """A fruit with the radii `wide` and `high`, as shares of `size`, lit from the upper left."""
    along, across = _rotated(size, rng.uniform(-1.5, 1.5))
    inside = (along / wide) ** 2 + (across / high) ** 2 < 1
    if tip:
        stretch, width = np.abs(along) / wide, np.abs(across) / high
        inside |= (stretch > 0.8) & (stretch < 1.18) & (width < 0.73 * (1.18 - stretch))
    down, right = np.mgrid[0:size, 0:size] / size
    far = np.clip(np.hypot(right - 0.35, down - 0.3) / 0.8, 0, 1)[..., None]
    weights = ((1 - far) ** 1.2, 1 - abs(2 * far - 1), far**1.5)
    colours = sum(
        w * np.array(c) for w, c in zip(weights, (paint.light, paint.even, paint.dark), strict=True)
    ) / sum(weights)
    shine = np.exp(-(((right - 0.35) / 0.09) ** 2) - ((down - 0.3) / 0.07) ** 2)[..., None]
    colours = colours * (1 - paint.gloss * shine) + 255 * paint.gloss * shine
    pores = rng.normal(0, 1, (size // 4, size // 4)).astype(np.float32)
    pores = np.asarray(Image.fromarray(pores).resize((size, size), Image.Resampling.BILINEAR))
    return _sprite(colours * (1 + paint.rough * pores[..., None]), inside, size * 0.006)


def long_thing(
    paint: Paint,
    thick: float,
    size: int,
    rng: np.random.Generator,
    *,
    taper: float = 0.0,
    bend: float = 0.0,
    ends: Colour | None = None,
) -> Image.Image:
    """A vegetable as long as the sprite, `thick` as a share of `size`, lit from above."""
    half = 0.45
    along, across = _rotated(size, rng.normal(0.15, 0.2))
    across = across + bend * (along**2 - 0.06)
    widest = thick * (1 - taper * (along / half + 1) / 2)
    cap = np.clip((np.abs(along) - half * 0.8) / (half * 0.2), 0, 1)
    width = np.maximum(widest * np.sqrt(1 - cap**2), 1e-6)
    inside = (np.abs(across) < width) & (np.abs(along) < half)
    height = np.clip(across / width, -1, 1)
    lit = np.clip(0.75 * np.sqrt(1 - height**2) - 0.25 * height, 0, 1)[..., None]
    colours = np.array(paint.dark) * (1 - lit) + np.array(paint.even) * lit
    shine = paint.gloss * np.exp(-(((height + 0.35) / 0.13) ** 2))[..., None]
    colours = colours * (1 - shine) + np.array(paint.light) * shine
    rings = np.interp(along, np.linspace(-0.5, 0.5, 60), rng.normal(0, 1, 60).clip(-1.5, 1.5))
    colours = colours * (1 + paint.rough * rings[..., None])
    if ends is not None:
        share = np.clip((np.abs(along) - half * 0.82) / (half * 0.15), 0, 1)[..., None]
        colours = colours * (1 - share) + np.array(ends) * share
    return _sprite(colours, inside, size * 0.004)


def _place(canvas: Image.Image, sprite: Image.Image, x: float, y: float, shadow: float) -> None:
    """Put the middle of `sprite` at (x, y) pixels, with a shadow of `shadow` of its size beside it."""
    size = sprite.width
    alpha = sprite.getchannel("A")
    soft = alpha.point(lambda value: int(value * 0.58)).filter(
        ImageFilter.GaussianBlur(size * 0.03)
    )
    left, top = int(x - size / 2), int(y - size / 2)
    shift = int(size * shadow)
    canvas.paste(Image.new("RGB", sprite.size, (9, 7, 4)), (left + shift, top + shift // 2), soft)
    canvas.paste(sprite.convert("RGB"), (left, top), alpha)


def crate(draw: Draw, step: float) -> Image.Image:
    """Rows of fruit that are `step` of the image apart."""
    rng = np.random.default_rng(0)
    canvas = Image.new("RGB", (FULL, FULL), (70, 55, 40))
    for row in range(int(1 / step / 0.8) + 2):
        for column in range(int(1 / step) + 2):
            x = (column + (row % 2) / 2 - 0.5 + rng.normal(0, 0.08)) * step
            y = (row * 0.8 - 0.3 + rng.normal(0, 0.08)) * step
            _place(canvas, draw(int(FULL * step * 1.35), rng), x * FULL, y * FULL, 0.03)
    return canvas


def heap(draw: Draw) -> Image.Image:
    """Vegetables on top of each other."""
    rng = np.random.default_rng(0)
    canvas = Image.new("RGB", (FULL, FULL), (60, 60, 50))
    count = 45
    for number in range(count):
        x, y = rng.uniform(-0.1, 1.1), number / count * 1.3 - 0.15 + rng.normal(0, 0.04)
        _place(canvas, draw(int(0.9 * FULL), rng), x * FULL, y * FULL, 0.015)
    return canvas


def orange(size: int, rng: np.random.Generator) -> Image.Image:
    """An orange."""
    return round_thing(
        Paint((238, 130, 20), (255, 180, 80), (170, 70, 5), rough=0.03), 0.4, 0.39, size, rng
    )


def lime(size: int, rng: np.random.Generator) -> Image.Image:
    """A lime."""
    paint = Paint((90, 150, 40), (150, 200, 80), (30, 80, 15), rough=0.05)
    return round_thing(paint, 0.37, 0.32, size, rng, tip=True)


def apple(size: int, rng: np.random.Generator) -> Image.Image:
    """A green apple with its stalk."""
    paint = Paint((140, 185, 50), (200, 230, 120), (75, 120, 20), gloss=0.5, rough=0.03)
    sprite = round_thing(paint, 0.41, 0.39, size, rng)
    pen = ImageDraw.Draw(sprite)
    x, y = size * (0.5 + rng.normal(0, 0.05)), size * 0.27
    hollow = [x - size * 0.09, y - size * 0.035, x + size * 0.09, y + size * 0.04]
    pen.ellipse(hollow, fill=(85, 120, 30, 255))
    top = (x + size * rng.normal(0, 0.05), y - size * 0.14)
    pen.line([(x, y), top], fill=(80, 60, 30, 255), width=max(2, size // 28))
    return sprite


def tomato(size: int, rng: np.random.Generator) -> Image.Image:
    """A tomato, most often with its green star."""
    paint = Paint((215, 40, 25), (255, 110, 80), (120, 10, 8), gloss=0.6)
    sprite = round_thing(paint, 0.41, 0.39, size, rng)
    if rng.uniform() < 0.7:
        pen = ImageDraw.Draw(sprite)
        x, y = size * (0.5 + rng.normal(0, 0.06)), size * (0.42 + rng.normal(0, 0.06))
        turn = rng.uniform(0, 6)
        for leaf in np.linspace(turn, turn + 2 * math.pi, 5, endpoint=False).tolist():
            tip = (x + math.cos(leaf) * size * 0.16, y + math.sin(leaf) * size * 0.13)
            side = (-math.sin(leaf) * size * 0.025, math.cos(leaf) * size * 0.025)
            pen.polygon(
                [(x + side[0], y + side[1]), tip, (x - side[0], y - side[1])],
                fill=(60, 110, 40, 255),
            )
    return sprite


def banana(size: int, rng: np.random.Generator) -> Image.Image:
    """A banana."""
    paint = Paint((240, 205, 50), (255, 240, 150), (160, 120, 10))
    return long_thing(paint, 0.075, size, rng, bend=0.9, ends=(90, 80, 30))


def carrot(size: int, rng: np.random.Generator) -> Image.Image:
    """A carrot."""
    paint = Paint((235, 115, 25), (255, 190, 120), (150, 55, 5), rough=0.06)
    return long_thing(paint, 0.085, size, rng, taper=0.65)


SCENES: dict[str, Callable[[], Image.Image]] = {
    "bananas": lambda: heap(banana),
    "oranges": lambda: crate(orange, 0.27),
    "carrots": lambda: heap(carrot),
    "limes": lambda: crate(lime, 0.18),
    "tomatoes": lambda: crate(tomato, 0.6),
    "apples": lambda: crate(apple, 0.27),
}


def main(folder: Path) -> None:
    """Write every scene into `folder`, as WebP."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, scene in SCENES.items():
        soft = scene().filter(ImageFilter.GaussianBlur(1.2))
        small = np.asarray(soft.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)
        grain = np.random.default_rng(0).normal(0, 2, (SIDE, SIDE, 1))
        image = Image.fromarray((small + grain).clip(0, 255).astype(np.uint8))
        image.save(folder / f"{name}.webp", quality=80, method=6)
    print(f"{folder}: {', '.join(SCENES)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
