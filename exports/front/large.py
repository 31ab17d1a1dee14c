"""The network that a front is placed before: its file as a stage, what that costs, and its classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from exports.bundle.errors import ExportError
from exports.imported.cascade import Described, import_network
from exports.imported.labels import Labels, without_background
from exports.imported.network import read_network
from exports.imported.options import NetworkOptions, common_rule, find_preprocessing
from exports.imported.stage import Imported
from exports.options import ResizeRule
from exports.photos import PhotoFolder, read_photos
from exports.stage_runner import StageRunner

# Pictures of the folder that are decoded to compare the stage with its file.
SAMPLE_IMAGES = 64
TIMED_ROUNDS = 20


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
    """The ONNX classifier `path`, prepared and verified as `offramp cascade` does, on some of the pictures.

    Raises ExportError as that does.
    """
    network = read_network(path)
    preprocessing, config = find_preprocessing(network, options)
    say(f"{path}: {preprocessing} ({config.origin})")
    own = options.labels or folder.names
    if not own:
        raise ExportError("the names of the classes are not known: give --labels FILE.")
    side, rule = preprocessing.resized, common_rule([config], rule, [network])
    labels = without_background(own)
    photos = read_photos(folder.sample(SAMPLE_IMAGES), side, rule, labels, say)
    described = Described(network, preprocessing, options)
    imported = import_network(described, photos, own, labels, say)
    runner = StageRunner([imported.graph.onnx], threads=1)
    (milliseconds,) = runner.stage_milliseconds(photos.images[:1], rounds=TIMED_ROUNDS)
    say(
        f"{path}: {imported.graph.macs / 1e6:.4g} M MACs, {imported.graph.params / 1e6:.3g} M parameters, "
        f"{milliseconds:.3g} ms for one image on one thread here"
    )
    return Large(path, imported, labels, side, rule, milliseconds)
