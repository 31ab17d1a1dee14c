"""`offramp picture cam`: class-activation maps of every exit, drawn over the images."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from offramp.errors import ImageError, PictureError
from offramp.figures import INK, check_picture, save_png
from offramp.images import ImageSpec, Pixels, decode
from training.checkpoint import load_checkpoint
from training.models.multi_exit import MultiExit, Normalize
from training.pictures.gradcam import class_activation

MAX_PIXELS = 50_000_000  # of a file; the server's default
MAX_IMAGES = 40  # rows of a picture
MIN_SHOWN_SIDE = 224  # pixels; smaller images are enlarged
COLORMAP = "inferno"
CELL_INCHES = 1.55
NOTE: dict[str, Any] = {
    "xycoords": "axes fraction",
    "ha": "center",
    "va": "center",
    "size": 9,
    "color": "white",
    "bbox": {"boxstyle": "round", "facecolor": INK, "edgecolor": "none", "alpha": 0.8},
}


@dataclass(frozen=True)
class ExitMaps:
    """One exit's results for N images: maps float32 [N, H, W], predictions int64 [N], and the
    probabilities [N] of the predictions and [N] of the classes that the maps show."""

    maps: Tensor
    predictions: Tensor
    confidence: Tensor
    probability: Tensor


def picture_cam(
    run: Path,
    files: Sequence[Path],
    output: Path,
    class_name: str | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Draw the class-activation maps of every exit of the finished `run` for image `files`.

    The maps are of the class each exit predicts, or of `class_name`. Raises PictureError,
    WriteError, CheckpointError or ImageError before anything is written.
    """
    check_picture(output)
    if len(files) > MAX_IMAGES:
        raise PictureError(
            f"{len(files)} images are too many for one picture: at most {MAX_IMAGES}."
        )
    if any(output.exists() and file.exists() and output.samefile(file) for file in files):
        raise PictureError(f"{output} is one of the images; the picture would replace it.")
    network, config = load_checkpoint(run)
    target = None if class_name is None else _class_index(class_name, config.classes)
    spec = ImageSpec(*config.image_size)
    images = np.stack([_read(file, spec) for file in files])
    exits = exit_maps(network, Normalize(config.mean, config.std), images, target)
    names = [file.name for file in files]
    for i, name in enumerate(names):
        predictions = ", ".join(
            f"exit {k} {config.classes[int(exit_.predictions[i])]} {float(exit_.confidence[i]):.2f}"
            for k, exit_ in enumerate(exits, 1)
        )
        say(f"{name}: {predictions}")
    figure = draw_cam(images, names, exits, config.classes, class_name)
    save_png(figure, output, "Class-activation maps of every exit", config.recipe.name)
    say(str(output))


def exit_maps(
    network: MultiExit, normalize: Normalize, images: Pixels, target: int | None = None
) -> list[ExitMaps]:
    """Every exit's maps and predictions for images uint8 [N, H, W, 3].

    The maps show class `target`, or each exit's own prediction. Probabilities are the plain softmax,
    since a run has no temperatures yet.
    """
    inputs = normalize(torch.from_numpy(images))
    with torch.no_grad():
        probabilities = [logits.softmax(dim=1) for logits in network(inputs)]
    exits = []
    for k, p in enumerate(probabilities, 1):
        confidence, predictions = p.max(dim=1)
        classes = predictions if target is None else torch.full_like(predictions, target)
        maps = class_activation(network, inputs, k, classes)
        probability = p.gather(1, classes[:, None])[:, 0]
        exits.append(ExitMaps(maps, predictions, confidence, probability))
    return exits


def overlay(image: Pixels, heat: NDArray[np.float32]) -> Pixels:
    """A map [h, w] in 0..1 over an image uint8 [H, W, 3], both smoothly enlarged to the same size.

    The image is drawn in grey, so all colours are the map's. Returns uint8 RGB.
    """
    large = enlarge(image)
    size = (large.shape[1], large.shape[0])
    smooth = Image.fromarray(heat).resize(size, Image.Resampling.BICUBIC)
    strength = np.clip(np.asarray(smooth), 0.0, 1.0)[..., None]
    grey = np.asarray(Image.fromarray(large).convert("L"), dtype=np.float32)[..., None]
    colour = 255.0 * colormaps[COLORMAP](strength[..., 0])[..., :3]
    share = 0.35 + 0.3 * strength
    return np.round((1.0 - share) * grey + share * colour).astype(np.uint8)


def enlarge(image: Pixels) -> Pixels:
    """The image, smoothly enlarged if its longer side has fewer than MIN_SHOWN_SIDE pixels."""
    height, width = image.shape[:2]
    scale = MIN_SHOWN_SIDE / max(height, width)
    if scale <= 1:
        return image
    size = (round(width * scale), round(height * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def draw_cam(
    images: Pixels,
    names: Sequence[str],
    exits: Sequence[ExitMaps],
    classes: Sequence[str],
    class_name: str | None,
) -> Figure:
    """A row per image: the network's input, then an overlay per exit."""
    rows, columns = len(images), len(exits) + 1
    aspect = images.shape[1] / images.shape[2]
    line = 0.24 if class_name is None else 0.38
    size = (CELL_INCHES * columns + 0.9, (CELL_INCHES * aspect + line) * rows + 0.8)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for i, image in enumerate(images):
        grid[i, 0].imshow(enlarge(image))
        _title(grid[i, 0], _shorten(names[i]) + ("\n" if class_name is not None else ""))
        for k, exit_ in enumerate(exits, 1):
            grid[i, k].imshow(overlay(image, exit_.maps[i].numpy()))
            predicted = _shorten(_words(classes[int(exit_.predictions[i])]))
            lines = f"{predicted} {float(exit_.confidence[i]):.2f}"
            if class_name is not None:
                lines += f"\n({_shorten(_words(class_name))} {float(exit_.probability[i]):.2f})"
            if not exit_.maps[i].any():
                grid[i, k].annotate("nothing", (0.5, 0.5), **NOTE)
            _title(grid[i, k], lines)
    height, width = images.shape[1:3]
    headings = [f"input\n{width} x {height}"]
    for k, exit_ in enumerate(exits, 1):
        headings.append(f"exit {k}\nmap {exit_.maps.shape[2]} x {exit_.maps.shape[1]}")
    for axes, heading in zip(grid[0], headings, strict=True):
        axes.annotate(
            heading,
            (0.5, 1.0),
            (0, 16 if class_name is None else 27),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="center",
            va="bottom",
            color=INK,
            weight="bold",
            size=9,
        )
    what = "its answer" if class_name is None else f"“{_words(class_name)}”"
    figure.suptitle(f"Where each exit finds evidence for {what}", size=11, parse_math=False)
    bar = figure.colorbar(
        ScalarMappable(cmap=COLORMAP), ax=grid, fraction=0.03, pad=0.01, ticks=[0, 1], shrink=0.8
    )
    bar.ax.set_yticklabels(["none", "peak"], size=8)
    bar.outline.set_visible(False)
    return figure


def _words(label: str) -> str:
    """A class such as "aquarium_fish" as words."""
    return label.replace("_", " ")


def _title(axes: Any, text: str) -> None:
    axes.set_title(text, size=8, color=INK, pad=3, parse_math=False)


def _shorten(text: str, limit: int = 18) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _class_index(name: str, classes: Sequence[str]) -> int:
    if name in classes:
        return classes.index(name)
    close = difflib.get_close_matches(name, classes, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(classes)}."
    raise PictureError(f"the run has no class {name!r}: {hint}")


def _read(file: Path, spec: ImageSpec) -> Pixels:
    try:
        return decode(file.read_bytes(), spec, MAX_PIXELS)
    except OSError as error:
        raise ImageError(f"{file} cannot be read: {error.strerror}.") from error
    except ImageError as error:
        raise ImageError(f"{file}: {error}") from error
