"""`offramp cascade` without its command line: from ONNX classifiers to a bundle."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from exports.bundle.certificate import REFERENCE_NAMES, Reference
from exports.bundle.errors import ExportError
from exports.bundle.manifest import MAX_TABLE_LOGITS, InputSpec, Manifest
from exports.bundle.preprocessing.spec import Preprocessing
from exports.imported.calibration import calibration_data
from exports.imported.config import ResizeRule
from exports.imported.labels import Labels, mapping, output_labels, without_background
from exports.imported.network import Network, read_network
from exports.imported.options import (
    NetworkOptions,
    common_rule,
    find_preprocessing,
)
from exports.imported.photos import Photos, list_photos, read_photos
from exports.imported.stage import (
    Imported,
    as_logits,
    build_stage,
    detect_outputs,
    run_original,
    stage_graph,
    verify_stage,
)
from exports.options import ExportOptions
from exports.pipeline import Written, write_bundle
from exports.source import Source, tool_versions
from exports.stage_runner import StageRunner
from offramp.files import new_directory

# Images on which a stage is compared with its file.
VERIFIED_IMAGES = 16
# A second network takes memory and time to load, which a smaller saving does not pay for.
MIN_SAVING = 0.05
# An accuracy below this multiple of a guess's is reported.
NEAR_CHANCE = 1.5


@dataclass(frozen=True)
class _Described:
    """A network with its preprocessing, and a line for people."""

    network: Network
    preprocessing: Preprocessing
    options: NetworkOptions


def build_cascade(
    networks: Sequence[Path],
    options: Sequence[NetworkOptions],
    photos: Path,
    target: Path,
    export: ExportOptions,
    *,
    rule: ResizeRule | None = None,
    reference: Reference | None = None,
    allow_no_saving: bool = False,
    say: Callable[[str], None] = print,
) -> Manifest:
    """Write the bundle `target` whose stages are the ONNX classifiers `networks`, cheap first.

    Every stage takes the image, and resizes and normalises it as `options` say. `photos` is a directory with
    a subfolder per class, or of images without labels; then the answers of `reference` stand for them, by
    default the last network's.
    Temperatures, weights, policy and certificate are fitted as `export_bundle` does. The bundle is written
    completely or not at all.

    Raises ExportError if a file is no classifier for the labels, differs from its stage on the images, or
    costs less than the one before it; and if the default policy saves less than MIN_SAVING of the last
    network's cost and `allow_no_saving` is not set. Raises WriteError, DataError, MissingExtraError.
    """
    with new_directory(target) as folder:
        source, milliseconds = _open_networks(networks, options, photos, rule, reference, say)
        written = write_bundle(folder, source, target, export, say)
        _say_what_is_near_chance(written.manifest, networks, say)
        sentence, saving = _saving(written, source, networks[-1], milliseconds)
        if saving < MIN_SAVING and not allow_no_saving:
            notes = " ".join(written.choice.notes)
            raise ExportError(
                f"the cascade saves less than {MIN_SAVING:.0%}: {sentence}; no bundle was written "
                f"(--allow-no-saving writes it anyway).{' ' + notes if notes else ''}"
            )
    written.report(target, say)
    say(f"{sentence}.")
    return written.manifest


def _open_networks(
    paths: Sequence[Path],
    options: Sequence[NetworkOptions],
    directory: Path,
    rule: ResizeRule | None,
    reference: Reference | None,
    say: Callable[[str], None],
) -> tuple[Source, tuple[float, ...]]:
    """The networks as a source of an export, and the milliseconds of each stage."""
    folder = list_photos(directory)
    if folder.classes is None and len(paths) < 2:
        raise ExportError(
            f"{directory} has no subfolders with the names of classes, and without labels a single network "
            "has none to agree with."
        )
    if folder.classes is not None and reference is not None:
        raise ExportError(
            f"--agree-with is for images without labels, but {directory} has subfolders for classes."
        )
    described, configs = [], []
    for path, given in zip(paths, options, strict=True):
        network = read_network(path)
        preprocessing, config = find_preprocessing(network, given)
        configs.append(config)
        described.append(_Described(network, preprocessing, given))
        say(f"{path}: {preprocessing} ({config.origin})")
    rule = common_rule(configs, rule, [d.network for d in described])
    side = max(d.preprocessing.resized for d in described)
    named = tuple(d.options.labels or folder.names for d in described)
    if not all(named):
        raise ExportError("the names of the classes are not known: give --labels FILE.")
    classes = without_background(named[-1])
    photos = read_photos(folder, side, rule, classes, say)
    if len(paths) * len(photos.images) * len(classes) > MAX_TABLE_LOGITS:
        raise ExportError(
            f"{len(photos.images)} images are too many for a calibration table of {len(classes)} classes."
        )
    imported = [
        _import(one, photos, own, classes, say) for one, own in zip(described, named, strict=True)
    ]
    stages = tuple(one.graph for one in imported)
    milliseconds = StageRunner([s.onnx for s in stages], threads=1).stage_milliseconds(
        photos.images[:1], rounds=20
    )
    for one, ms in zip(imported, milliseconds, strict=True):
        graph = one.graph
        say(
            f"{one.network.path}: {graph.macs / 1e6:.4g} M MACs, {graph.params / 1e6:.3g} M parameters, "
            f"{ms:.3g} ms for one image on one thread here"
        )
    _check_order(imported, milliseconds, say)
    recipes = [_recipe(one) for one in imported]
    source = Source(
        name=_name("-".join(path.stem for path in paths)),
        version="1",
        labels=classes,
        input=InputSpec(height=side, width=side, resize=rule),
        stages=stages,
        calibrated=stages,
        data=calibration_data(
            directory.resolve().name, photos, [stage.onnx for stage in stages], reference or "last"
        ),
        recipe=recipes[0],
        followers=tuple(recipes[1:]),
        seed=0,
        tools=tool_versions(),
    )
    return source, milliseconds


def _import(
    one: _Described, photos: Photos, own: Labels, classes: Labels, say: Callable[[str], None]
) -> Imported:
    """The network as a stage, which gives the same logits on images."""
    network, preprocessing = one.network, one.preprocessing
    spread = np.linspace(0, len(photos.images) - 1, VERIFIED_IMAGES).astype(np.int64)
    images = photos.images[np.unique(spread)]
    values = run_original(network, preprocessing, images)
    outputs = one.options.outputs or detect_outputs(values, network)
    positions = mapping(output_labels(own, values.shape[1], network.path), classes, network.path)
    expected = as_logits(values, outputs, positions)
    side = photos.images.shape[1]
    content = build_stage(network, preprocessing, side, outputs, positions, len(classes))
    difference = verify_stage(network, content, images, expected)
    say(
        f"{network.path}: {outputs} of {values.shape[1]} classes; the stage agrees with the file on "
        f"{len(images)} images: logits at most {difference:.1e} apart"
    )
    return Imported(network, preprocessing, outputs, stage_graph(network, content, images[:1]))


def _check_order(
    imported: Sequence[Imported], milliseconds: Sequence[float], say: Callable[[str], None]
) -> None:
    """Raise ExportError unless every network costs more MACs than the one before; say so if the times on this
    machine are in another order."""
    for (before, after), (sooner, later) in zip(
        pairwise(imported), pairwise(milliseconds), strict=True
    ):
        if before.graph.macs >= after.graph.macs:
            raise ExportError(
                f"{before.network.path} costs {before.graph.macs / 1e6:.4g} M MACs, no less than "
                f"{after.network.path} with {after.graph.macs / 1e6:.4g} M: name the cheapest network first."
            )
        if sooner >= later:
            say(
                f"{before.network.path} has fewer MACs than {after.network.path}, but is not faster here: "
                "`offramp tune --cost ms` minimises milliseconds."
            )


def _say_what_is_near_chance(
    manifest: Manifest, networks: Sequence[Path], say: Callable[[str], None]
) -> None:
    """Say which networks are hardly better than a guess, as with wrong labels or wrong colours."""
    guess = 100 / len(manifest.labels)
    labelled = manifest.calibration.target == "labels"
    does = (
        "is right on"
        if labelled
        else f"agrees with the {REFERENCE_NAMES[manifest.calibration.reference]} on"
    )
    for path, entry in zip(networks, manifest.exits, strict=True):
        if entry.held_out.single < NEAR_CHANCE * guess:
            say(
                f"{path} {does} {entry.held_out.single:.1f} % of the images, and a guess on "
                f"{guess:.1f} %: check its labels, --preprocess and --channels."
            )


def _saving(
    written: Written, source: Source, last: Path, milliseconds: Sequence[float]
) -> tuple[str, float]:
    """What the default policy costs beside the last network alone, or beside the ensemble if agreement with
    that is the target: as a sentence and as the share saved."""
    choice = written.choice
    macs = [stage.macs for stage in source.stages]
    mean = choice.stats.mean_cost(np.cumsum(macs).tolist())
    mean_ms = choice.stats.mean_cost(np.cumsum(milliseconds).tolist())
    whole, whole_ms, test = macs[-1], milliseconds[-1], written.manifest.exits[-1].test
    what, alone = f"{last} alone", test.single
    if source.data.reference == "ensemble":
        whole, whole_ms = sum(macs), sum(milliseconds)
        what, alone = "the ensemble of all networks", test.running
    saving = 1 - mean / whole
    accuracy = written.manifest.provenance.test_default.accuracy
    saved = f"which saves {saving:.0%}" if saving >= 0 else f"which is {-saving:.0%} less"
    return (
        f"the default policy takes {mean / 1e6:.4g} M MACs an image (about {mean_ms:.3g} ms here), and "
        f"{what} {whole / 1e6:.4g} M ({whole_ms:.3g} ms), {saved}; "
        f"{_measured(source)} {accuracy:.2f} % and {alone:.2f} %"
    ), saving


def _measured(source: Source) -> str:
    return "accuracy" if source.data.target == "labels" else "agreement with it"


def _recipe(one: Imported) -> dict[str, object]:
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


def _name(text: str) -> str:
    """`text` as the name of a bundle."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:100]
    return name or "cascade"
