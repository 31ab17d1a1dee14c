"""Draws images of circles, squares and triangles, a folder per class, as example data.

    python examples/draw_shapes.py FOLDER [IMAGES_PER_CLASS]

The same images every time, 40 pixels a side: shapes of random colour and position on noise, slightly
rotated.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIDE = 40
SCALE = 4  # drawn larger, then reduced, so that edges are smooth
CORNERS = {"circle": 60, "square": 4, "triangle": 3}
# The angle of the first corner of an upright shape.
START = {"circle": 0.0, "square": math.pi / 4, "triangle": -math.pi / 2}


def draw(shape: str, rng: np.random.Generator) -> Image.Image:
    """One image of `shape`."""
    noise = rng.normal(rng.integers(40, 215), 20, (SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(noise).resize((SIDE * SCALE, SIDE * SCALE))
    radius = rng.uniform(0.3, 0.45) * SIDE * SCALE
    x, y = rng.uniform(radius, SIDE * SCALE - radius, 2)
    turn, corners = START[shape] + rng.uniform(-0.3, 0.3), CORNERS[shape]
    angles = [turn + 2 * math.pi * k / corners for k in range(corners)]
    outline = [(x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles]
    colour = tuple(int(c) for c in rng.integers(0, 256, 3))
    ImageDraw.Draw(image).polygon(outline, fill=colour)
    return image.resize((SIDE, SIDE), Image.Resampling.BOX)


def main(folder: Path, count: int) -> None:
    """Write `count` images of each shape below `folder`."""
    rng = np.random.default_rng(0)
    for shape in CORNERS:
        (folder / shape).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            draw(shape, rng).save(folder / shape / f"{number:03}.png")
    print(f"{folder}: {count} images each of {', '.join(CORNERS)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 80)
