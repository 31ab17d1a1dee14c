"""The network that a front is placed before: its file as a stage, what that costs, and its classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from exports.bundle.errors import ExportError
from exports.imported.cascade import import_network
from exports.imported.labels import Labels, without_background
from exports.imported.options import NetworkOptions, common_rule, describe
from exports.imported.parts import stage_milliseconds
from exports.imported.stage import Imported
from exports.options import ResizeRule
from exports.photos import PhotoFolder, read_photos

# Images of the folder that are decoded to compare the stage with its file.
SAMPLE_IMAGES = 64


@dataclass(frozen=True)
class Large:
    """A classifier as the stage of a bundle whose images have `side` pixels and are fitted by `rule`.

    `milliseconds` are for one image on one thread of this machine.
    """

    path: Path
    imported: Imported
    labels: Labels
    side: int
    rule: ResizeRule
    milliseconds: float


def open_large(
    path: Path,
    options: NetworkOptions,
    folder: PhotoFolder,
    rule: ResizeRule | None,
    say: Callable[[str], None],
) -> Large:
    """The ONNX classifier `path`, prepared and verified as `offramp cascade` does, on some of the images.

    Raises ExportError as that does.
    """
    described = describe(path, options, say)
    own = options.labels or folder.names
    if not own:
        raise ExportError("the names of the classes are not known: give --labels FILE.")
    side, rule = described.preprocessing.resized, common_rule([described], rule)
    labels = without_background(own)
    photos = read_photos(folder.sample(SAMPLE_IMAGES), side, rule, labels, say)
    imported = import_network(described, photos, own, labels, say)
    (milliseconds,) = stage_milliseconds([imported.graph], photos.images[:1])
    say(
        f"{path}: {imported.graph.macs / 1e6:.4g} M MACs, {imported.graph.params / 1e6:.3g} M parameters, "
        f"{milliseconds:.3g} ms for one image on one thread here"
    )
    return Large(path, imported, labels, side, rule, milliseconds)
