"""Draws the web page's sample images: generated, public domain.

    python examples/draw_samples.py [FOLDER]

Simple scenes of CIFAR-100 classes, 160 pixels a side. Some are easy for a network and some are hard, to
show different exits.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

FOLDER = Path(__file__).parents[1] / "serving" / "page" / "samples"
SIDE = 160
SCALE = 4  # drawn larger, then reduced, so that edges are smooth
FULL = SIDE * SCALE

Colour = tuple[int, int, int]
Points = list[tuple[float, float]]


class Canvas:
    """A square image whose coordinates run from 0 to 1, from the top left."""

    def __init__(self, top: Colour, bottom: Colour) -> None:
        ramp = np.linspace(0, 1, FULL)[:, None, None]
        rows = np.array(top) * (1 - ramp) + np.array(bottom) * ramp
        pixels = np.broadcast_to(rows, (FULL, FULL, 3)).astype(np.uint8)
        self.image = Image.fromarray(pixels)

    def polygon(self, points: Points, fill: Colour) -> None:
        """Fill the polygon through `points`."""
        ImageDraw.Draw(self.image).polygon([(x * FULL, y * FULL) for x, y in points], fill=fill)

    def ellipse(self, x: float, y: float, across: float, down: float, fill: Colour) -> None:
        """Fill the ellipse around (x, y) with the radii `across` and `down`."""
        box = [(x - across) * FULL, (y - down) * FULL, (x + across) * FULL, (y + down) * FULL]
        ImageDraw.Draw(self.image).ellipse(box, fill=fill)

    def shaded(
        self, x: float, y: float, across: float, down: float, light: Colour, dark: Colour
    ) -> None:
        """An ellipse lit from the upper left."""
        for step in np.linspace(1, 0, 40):
            mix = step**1.5
            fill = tuple(int(a * (1 - mix) + b * mix) for a, b in zip(light, dark, strict=True))
            shift = (1 - step) * 0.35
            self.ellipse(
                x - across * shift, y - down * shift, across * step, down * step, _colour(fill)
            )

    def soften(self, radius: float) -> None:
        """Blur what is drawn so far."""
        self.image = self.image.filter(ImageFilter.GaussianBlur(radius * SCALE))

    def finished(self) -> Image.Image:
        """The image at its final size, with a little grain."""
        small = np.asarray(self.image.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.float32)
        grain = np.random.default_rng(0).normal(0, 3, (SIDE, SIDE, 1))
        return Image.fromarray((small + grain).clip(0, 255).astype(np.uint8))


def apple() -> Canvas:
    """A red apple on white."""
    canvas = Canvas((250, 249, 246), (236, 234, 230))
    canvas.ellipse(0.5, 0.86, 0.3, 0.05, (205, 200, 195))
    canvas.soften(4)
    canvas.shaded(0.4, 0.56, 0.25, 0.31, (238, 84, 66), (150, 16, 24))
    canvas.shaded(0.6, 0.56, 0.25, 0.31, (222, 52, 46), (140, 12, 20))
    canvas.ellipse(0.5, 0.28, 0.09, 0.035, (122, 18, 22))
    canvas.polygon([(0.49, 0.29), (0.52, 0.29), (0.57, 0.12), (0.53, 0.11)], (92, 60, 34))
    canvas.polygon([(0.54, 0.19), (0.66, 0.09), (0.78, 0.11), (0.68, 0.2)], (84, 140, 50))
    canvas.ellipse(0.33, 0.43, 0.05, 0.08, (250, 170, 150))
    canvas.soften(0.7)
    return canvas


def sunflower() -> Canvas:
    """A sunflower before a green field."""
    canvas = Canvas((92, 142, 60), (50, 96, 38))
    for x, y, size in ((0.1, 0.2, 0.2), (0.85, 0.15, 0.22), (0.9, 0.85, 0.2), (0.1, 0.9, 0.25)):
        canvas.ellipse(x, y, size, size * 0.7, (64, 118, 44))
    canvas.soften(8)
    for ring, count, length, fill in (
        (0.0, 22, 0.46, (236, 164, 10)),
        (0.14, 22, 0.4, (252, 202, 32)),
    ):
        for k in range(count):
            turn = ring + 2 * math.pi * k / count
            canvas.polygon(_petal(0.5, 0.5, turn, 0.16, length, 0.055), fill)
    canvas.shaded(0.5, 0.5, 0.2, 0.2, (120, 74, 26), (52, 28, 12))
    canvas.ellipse(0.5, 0.5, 0.08, 0.08, (74, 52, 20))
    canvas.soften(0.7)
    return canvas


def rocket() -> Canvas:
    """A rocket that rises on its flame."""
    canvas = Canvas((44, 92, 168), (150, 190, 226))
    for x, y, size in ((0.34, 0.95, 0.16), (0.5, 0.98, 0.2), (0.68, 0.95, 0.17)):
        canvas.ellipse(x, y, size, size * 0.7, (236, 236, 236))
    canvas.soften(5)
    canvas.polygon(
        [(0.44, 0.7), (0.56, 0.7), (0.53, 0.93), (0.5, 1.0), (0.47, 0.93)], (255, 176, 44)
    )
    canvas.polygon([(0.47, 0.7), (0.53, 0.7), (0.5, 0.9)], (255, 246, 190))
    canvas.soften(1.6)
    canvas.polygon([(0.43, 0.24), (0.57, 0.24), (0.57, 0.7), (0.43, 0.7)], (238, 240, 242))
    canvas.polygon([(0.52, 0.24), (0.57, 0.24), (0.57, 0.7), (0.52, 0.7)], (196, 202, 208))
    canvas.polygon([(0.43, 0.24), (0.5, 0.05), (0.57, 0.24)], (204, 44, 40))
    canvas.polygon([(0.43, 0.52), (0.34, 0.72), (0.43, 0.69)], (190, 40, 38))
    canvas.polygon([(0.57, 0.52), (0.66, 0.72), (0.57, 0.69)], (160, 30, 32))
    canvas.polygon([(0.43, 0.36), (0.57, 0.36), (0.57, 0.39), (0.43, 0.39)], (40, 44, 60))
    canvas.soften(0.6)
    return canvas


def mountain() -> Canvas:
    """Snowy peaks before a blue sky."""
    canvas = Canvas((84, 144, 214), (206, 226, 242))
    canvas.polygon([(0, 0.62), (0.22, 0.36), (0.4, 0.56), (0.6, 0.7), (0, 0.9)], (122, 136, 164))
    canvas.soften(1.5)
    ridge: Points = [
        (0.08, 0.85),
        (0.36, 0.42),
        (0.44, 0.5),
        (0.6, 0.16),
        (0.78, 0.46),
        (1.1, 0.85),
    ]
    canvas.polygon(ridge, (96, 104, 122))
    canvas.polygon([(0.6, 0.16), (0.78, 0.46), (1.1, 0.85), (0.7, 0.85), (0.64, 0.5)], (64, 72, 92))
    canvas.polygon(
        [
            (0.6, 0.16),
            (0.5, 0.37),
            (0.54, 0.34),
            (0.57, 0.42),
            (0.62, 0.33),
            (0.66, 0.44),
            (0.72, 0.36),
        ],
        (246, 249, 252),
    )
    canvas.polygon(
        [(0.36, 0.42), (0.28, 0.54), (0.35, 0.5), (0.4, 0.55), (0.44, 0.5)], (238, 243, 248)
    )
    canvas.polygon([(0, 0.78), (0.3, 0.72), (0.7, 0.8), (1, 0.74), (1, 1), (0, 1)], (52, 84, 50))
    canvas.polygon([(0, 0.9), (0.5, 0.84), (1, 0.9), (1, 1), (0, 1)], (76, 112, 58))
    canvas.soften(1.0)
    return canvas


def fish() -> Canvas:
    """A striped fish under water; harder."""
    canvas = Canvas((30, 110, 150), (10, 50, 84))
    canvas.ellipse(0.2, 0.95, 0.3, 0.12, (90, 110, 90))
    canvas.ellipse(0.8, 1, 0.3, 0.14, (70, 96, 96))
    canvas.soften(6)
    canvas.polygon([(0.7, 0.5), (0.94, 0.3), (0.88, 0.5), (0.94, 0.7)], (236, 120, 30))
    canvas.polygon([(0.36, 0.36), (0.5, 0.2), (0.64, 0.36)], (226, 104, 24))
    canvas.polygon([(0.42, 0.64), (0.5, 0.78), (0.6, 0.64)], (216, 96, 22))
    canvas.shaded(0.44, 0.5, 0.32, 0.18, (252, 160, 60), (214, 92, 22))
    for x in (0.3, 0.52):
        canvas.polygon([(x, 0.36), (x + 0.06, 0.34), (x + 0.06, 0.66), (x, 0.64)], (250, 246, 238))
    canvas.ellipse(0.21, 0.46, 0.035, 0.035, (250, 250, 250))
    canvas.ellipse(0.205, 0.46, 0.02, 0.02, (14, 14, 18))
    canvas.soften(0.9)
    return canvas


def castle() -> Canvas:
    """A castle at dusk; harder."""
    canvas = Canvas((236, 170, 120), (250, 220, 180))
    canvas.polygon([(0, 0.8), (0.4, 0.66), (0.7, 0.68), (1, 0.8), (1, 1), (0, 1)], (70, 72, 58))
    canvas.soften(2)
    stone, dark = (110, 96, 92), (84, 72, 72)
    canvas.polygon([(0.25, 0.44), (0.75, 0.44), (0.75, 0.78), (0.25, 0.78)], stone)
    for x, w, h in ((0.2, 0.12, 0.3), (0.7, 0.12, 0.26), (0.44, 0.14, 0.2)):
        canvas.polygon([(x, h), (x + w, h), (x + w, 0.78), (x, 0.78)], stone)
        canvas.polygon([(x + w * 0.6, h), (x + w, h), (x + w, 0.78), (x + w * 0.6, 0.78)], dark)
        canvas.polygon([(x - 0.02, h), (x + w / 2, h - 0.15), (x + w + 0.02, h)], (124, 52, 46))
    for k in range(6):
        canvas.polygon(
            [
                (0.3 + 0.07 * k, 0.41),
                (0.335 + 0.07 * k, 0.41),
                (0.335 + 0.07 * k, 0.45),
                (0.3 + 0.07 * k, 0.45),
            ],
            stone,
        )
    canvas.ellipse(0.5, 0.7, 0.05, 0.08, (40, 32, 32))
    canvas.soften(0.8)
    return canvas


def cup() -> Canvas:
    """A cup on a table; harder."""
    canvas = Canvas((214, 206, 196), (176, 160, 142))
    canvas.polygon([(0, 0.74), (1, 0.7), (1, 1), (0, 1)], (120, 88, 62))
    canvas.ellipse(0.5, 0.84, 0.36, 0.06, (84, 60, 42))
    canvas.soften(4)
    canvas.ellipse(0.74, 0.52, 0.15, 0.15, (226, 232, 238))
    canvas.ellipse(0.74, 0.52, 0.095, 0.095, (190, 180, 166))
    canvas.polygon([(0.24, 0.3), (0.72, 0.3), (0.68, 0.82), (0.28, 0.82)], (232, 236, 240))
    canvas.polygon([(0.56, 0.3), (0.72, 0.3), (0.68, 0.82), (0.56, 0.82)], (198, 204, 212))
    canvas.ellipse(0.48, 0.82, 0.2, 0.04, (206, 212, 220))
    canvas.ellipse(0.48, 0.3, 0.24, 0.06, (244, 246, 248))
    canvas.ellipse(0.48, 0.31, 0.2, 0.045, (74, 46, 28))
    canvas.soften(0.8)
    return canvas


def train() -> Canvas:
    """A red train in a landscape; harder."""
    canvas = Canvas((150, 180, 206), (214, 222, 226))
    canvas.polygon([(0, 0.5), (0.5, 0.44), (1, 0.52), (1, 0.8), (0, 0.8)], (92, 120, 76))
    canvas.soften(4)
    canvas.polygon([(0, 0.78), (1, 0.76), (1, 1), (0, 1)], (122, 112, 100))
    canvas.polygon(
        [(0, 0.36), (0.66, 0.3), (0.82, 0.34), (0.9, 0.56), (0.88, 0.82), (0, 0.76)], (170, 40, 44)
    )
    canvas.polygon([(0, 0.6), (0.89, 0.66), (0.89, 0.72), (0, 0.65)], (236, 226, 200))
    canvas.polygon([(0.68, 0.36), (0.8, 0.38), (0.86, 0.55), (0.7, 0.53)], (40, 54, 76))
    for k in range(5):
        canvas.polygon(
            [
                (0.02 + 0.13 * k, 0.42 - 0.01 * k),
                (0.11 + 0.13 * k, 0.413 - 0.01 * k),
                (0.11 + 0.13 * k, 0.55),
                (0.02 + 0.13 * k, 0.55),
            ],
            (46, 60, 80),
        )
    for x in (0.12, 0.34, 0.6, 0.78):
        canvas.ellipse(x, 0.8, 0.05, 0.05, (34, 34, 38))
    canvas.polygon([(0, 0.86), (1, 0.9), (1, 0.92), (0, 0.88)], (70, 66, 64))
    canvas.soften(0.8)
    return canvas


def _petal(x: float, y: float, turn: float, start: float, end: float, wide: float) -> Points:
    along, across = (math.cos(turn), math.sin(turn)), (-math.sin(turn), math.cos(turn))

    def at(distance: float, side: float) -> tuple[float, float]:
        return (
            x + distance * along[0] + side * across[0],
            y + distance * along[1] + side * across[1],
        )

    middle = (start + end) / 2
    return [at(start, 0), at(middle, wide), at(end, 0), at(middle, -wide)]


def _colour(values: tuple[int, ...]) -> Colour:
    red, green, blue = values
    return red, green, blue


SCENES: tuple[Callable[[], Canvas], ...] = (
    *(rocket, sunflower, apple, mountain),
    *(fish, castle, cup, train),
)


def main(folder: Path) -> None:
    """Write every scene into `folder`, as WebP."""
    folder.mkdir(parents=True, exist_ok=True)
    for scene in SCENES:
        scene().finished().save(folder / f"{scene.__name__}.webp", quality=80, method=6)
    print(f"{folder}: {', '.join(scene.__name__ for scene in SCENES)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
