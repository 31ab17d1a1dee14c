"""`offramp cascade` without its command line: from ONNX classifiers to a bundle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exports.bundle.certificate import Reference
from exports.bundle.errors import ExportError
from exports.bundle.manifest import MAX_TABLE_LOGITS, InputSpec, Manifest
from exports.bundle.untrusted.safe_files import one_line
from exports.graphs.cost import uncounted_operators
from exports.imported.calibration import calibration_data
from exports.imported.labels import Labels, mapping, output_labels, without_background
from exports.imported.multi_exit.fitting import fit_stages
from exports.imported.multi_exit.source import MultiExitNetwork, read_multi_exit, split_paths
from exports.imported.options import Described, NetworkOptions, common_rule, describe
from exports.imported.parts import (
    Part,
    check_order,
    imported_source,
    say_what_is_near_chance,
    stage_milliseconds,
)
from exports.imported.saving import check_saving
from exports.imported.stage import (
    Imported,
    as_logits,
    build_stage,
    detect_outputs,
    run_original,
    stage_graph,
    verify_stage,
)
from exports.options import ExportOptions, ResizeRule
from exports.photos import Photos, list_photos, read_photos
from exports.pipeline import write_bundle
from exports.seen import warn_if_seen
from exports.source import Source, bundle_name
from exports.spread import evenly_spread
from offramp.files import new_directory

# Images on which a stage is compared with its file.
VERIFIED_IMAGES = 16


@dataclass(frozen=True)
class CascadeOptions:
    """What is known of all networks together.

    `exits` are those to keep of a bundle or a run, all by default. `rule` is how images of another shape are
    fitted, by default as the networks say. Where the images have no labels, the answers of `reference` stand
    for them, by default the last network's.
    """

    exits: int | None = None
    rule: ResizeRule | None = None
    reference: Reference | None = None
    allow_no_saving: bool = False


def build_cascade(
    networks: Sequence[Path],
    network_options: Sequence[NetworkOptions],
    photos: Path,
    target: Path,
    options: CascadeOptions,
    export: ExportOptions,
    say: Callable[[str], None] = print,
) -> Manifest:
    """Write the bundle `target` whose stages are the ONNX classifiers `networks`, cheap first. The first
    one may be a bundle or a run with several exits; `network_options` are of the others.

    Every network takes the image, and resizes and normalises it as its options say. `photos` is a directory
    with a subfolder per class, or of images without labels. Temperatures, weights, policy and certificate are
    fitted as `export_bundle` does. The bundle is written completely or not at all.

    Raises ExportError if a file is no classifier for the labels, differs from its stages on the images, or
    costs less than the one before it; and if the default policy saves less than MIN_SAVING of the last
    network's cost and `options.allow_no_saving` is not set. Raises WriteError, DataError, MissingExtraError.
    """
    with new_directory(target) as folder:
        parts, source, milliseconds = _open_networks(
            networks, network_options, photos, options, say
        )
        written = write_bundle(folder, source, target, export, say)
        say_what_is_near_chance(written.manifest, parts, say)
        if source.data.target == "labels":
            warn_if_seen(
                written.manifest.exits[-1].held_out.single / 100,
                len(source.data.held_out),
                networks[-1],
                f"give images that it was not trained on instead of {photos}",
                say,
            )
        sentence = check_saving(
            "cascade", written, source, networks[-1], milliseconds, options.allow_no_saving
        )
    written.report(target, say)
    say(f"{sentence}.")
    return written.manifest


def _open_networks(
    paths: Sequence[Path],
    network_options: Sequence[NetworkOptions],
    directory: Path,
    options: CascadeOptions,
    say: Callable[[str], None],
) -> tuple[list[Part], Source, tuple[float, ...]]:
    """The networks, what they are as a source of an export, and the milliseconds of each stage."""
    folder = list_photos(directory)
    if folder.classes is None and len(paths) < 2:
        raise ExportError(
            f"{directory} has no subfolders with the names of classes, and without labels a single network "
            "has none to agree with."
        )
    if folder.classes is not None and options.reference is not None:
        raise ExportError(
            f"--agree-with is for images without labels, but {directory} has subfolders for classes."
        )
    first, files = split_paths(paths, options.exits)
    begins = None if first is None else read_multi_exit(first, options.exits, folder, say)
    described = [
        describe(path, given, say) for path, given in zip(files, network_options, strict=True)
    ]
    rule = options.rule or _common_rule(begins, described)
    side = max([d.preprocessing.resized for d in described] + ([begins.side] if begins else []))
    known = folder.names or (begins.labels if begins else ())
    named = tuple(d.options.labels or known for d in described)
    if not all(named):
        raise ExportError("the names of the classes are not known: give --labels FILE.")
    classes = without_background(named[-1])
    photos = read_photos(folder, side, rule, classes, say)
    exits = len(files) + (len(begins.stages) if begins else 0)
    if exits * len(photos.images) * len(classes) > MAX_TABLE_LOGITS:
        raise ExportError(
            f"{len(photos.images)} images are too many for a calibration table of {len(classes)} classes."
        )
    parts = []
    if begins is not None:
        fitted = fit_stages(begins, classes, _spread(photos.images), say)
        parts.append(Part(begins.path, fitted.stages, fitted.recipes))
    for one, own in zip(described, named, strict=True):
        imported = import_network(one, photos, own, classes, say)
        parts.append(Part(one.network.path, (imported.graph,), (recipe_of(imported),)))
    stages = tuple(stage for part in parts for stage in part.stages)
    milliseconds = stage_milliseconds(stages, photos.images[:1])
    check_order(parts, milliseconds, say)
    source = imported_source(
        bundle_name("-".join(path.stem for path in paths)),
        classes,
        InputSpec(height=side, width=side, resize=rule),
        stages,
        calibration_data(
            directory.resolve().name,
            photos,
            [stage.onnx for stage in stages],
            options.reference or "last",
        ),
        [recipe for part in parts for recipe in part.recipes],
        seed=0 if begins is None else begins.seed,
    )
    return parts, source, milliseconds


def _common_rule(
    begins: MultiExitNetwork | None,
    described: Sequence[Described],
) -> ResizeRule:
    """The rule of the networks, which is that of the first one where the others have none."""
    if begins is not None:
        own = begins.input.resize
        others = {one.config.rule for one in described} - {None, own}
        if others:
            raise ExportError(
                f"{begins.path} has the rule {own} for images of another shape, and another network has "
                f"{others.pop()}: give --resize."
            )
        return own
    return common_rule(described, None)


def import_network(
    one: Described, photos: Photos, own: Labels, classes: Labels, say: Callable[[str], None]
) -> Imported:
    """The network as a stage, which gives the same logits on images."""
    network, preprocessing = one.network, one.preprocessing
    images = _spread(photos.images)
    values = run_original(network, preprocessing, images)
    outputs = one.options.outputs or detect_outputs(values, network)
    positions = mapping(output_labels(own, values.shape[1], network.path), classes, network.path)
    expected = as_logits(values, outputs, positions)
    side = photos.images.shape[1]
    content = build_stage(network, preprocessing, side, outputs, positions, len(classes))
    difference = verify_stage(network, content, images, expected)
    if uncounted := uncounted_operators(network.model):
        names = one_line(", ".join(uncounted))
        say(f"{network.path}: {names} are not counted, so that it costs more than is said here")
    say(
        f"{network.path}: {outputs} of {values.shape[1]} classes; the stage agrees with the file on "
        f"{len(images)} images: logits at most {difference:.1e} apart"
    )
    return Imported(network, preprocessing, outputs, stage_graph(network, content, images[:1]))


def _spread(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """VERIFIED_IMAGES of `images`, as far apart as possible."""
    return images[evenly_spread(len(images), VERIFIED_IMAGES)]


def recipe_of(one: Imported) -> dict[str, Any]:
    """The origin of a stage, for the manifest."""
    return {
        "name": one.network.path.name,
        "onnx": {
            "file": one.network.path.name,
            "sha256": one.network.sha256,
            "preprocessing": str(one.preprocessing),
            "outputs": one.outputs,
        },
        "input": one.preprocessing.model_dump(mode="json"),
    }
