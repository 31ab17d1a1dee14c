"""Which recorded images a tuning uses: labelled ones if they are enough, else a random selection of all.

Images that took all exits because they were hard are not used for that alone: a policy tuned on them would be
too cautious for the others. Used are images that the server chose at random to run all exits, and images
whose file was recorded, which are run again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from exports.bundle.errors import TuningError
from exports.bundle.manifest import Manifest
from exports.bundle.policy import Floats
from exports.tuning.requests.log import ASSUMED, RequestLog, Traffic, make_table
from exports.tuning.requests.recorded import Key, Place, RecordedImage, read_records
from exports.tuning.requests.representative import compare

Run = Callable[[Mapping[Key, Place]], dict[Key, Floats]]
# Images that are chosen at random and run again, if fewer than so many ran all exits.
MAX_RUN_AGAIN = 5_000
# The same where labels are used, and others are only compared with the labelled ones.
MAX_COMPARED = 500


def read_recorded(
    directory: Path, manifest: Manifest, labels_needed: int = 1, run: Run | None = None
) -> RequestLog:
    """The images in `directory` of the network of `manifest`: those with a label if there are
    `labels_needed`, else a random selection of all, under the target `agreement`.

    `run` computes the logits of images whose files were recorded; without it only those that ran all
    exits are used. Raises TuningError if there are none, or if a line is malformed.
    """
    images = read_records(directory, manifest)
    logits = {key: image.logits for key, image in images.items() if image.logits is not None}
    sampled = [key for key, image in images.items() if image.sampled]
    again: dict[Key, Floats] = {}

    def run_again(keys: Sequence[Key]) -> None:
        places = {key: images[key].place for key in keys if key not in logits}
        if run is not None and places:
            again.update(run({key: place for key, place in places.items() if place is not None}))
            logits.update(again)

    labelled = [key for key in images if images[key].label is not None]
    usable = [key for key in labelled if _can_run(images[key], run)]
    with_labels = len(usable) >= max(labels_needed, 1)
    if with_labels:
        run_again(usable)
        usable = [key for key in usable if key in logits]
        with_labels = bool(usable)
    most = MAX_COMPARED if with_labels else MAX_RUN_AGAIN
    pool = sampled + _drawn(images, run, most - len(sampled))
    run_again(pool)
    pool = [key for key in pool if key in logits]
    if not pool and not with_labels:
        raise TuningError(
            f"{directory} holds no image of this network that ran all exits, of {len(images):,} "
            "recorded ones; raise --record-full-share, or wait for more."
        )
    used = usable if with_labels else pool
    traffic = Traffic(len(images), len(sampled), len(again), len(labelled), len(usable))
    remarks, representative = _remarks(traffic, with_labels, labels_needed, len(used)), True
    if with_labels:
        others = [logits[key] for key in pool if images[key].label is None]
        compared = compare([logits[key] for key in usable], others, manifest.scaling)
        remarks, representative = (*remarks, compared.sentence), compared.alike
    digest = hashlib.sha256()
    labels: list[int] = []
    for key in used:
        label = images[key].label if with_labels else None
        digest.update(repr(key).encode() + logits[key].tobytes() + str(label).encode())
        if label is not None:
            labels.append(label)
    table, target = make_table([logits[key] for key in used], labels, manifest)
    source = _source(directory, traffic, with_labels)
    sha256 = digest.hexdigest()
    return RequestLog(table, target, sha256, source, traffic, remarks, representative)


def _can_run(image: RecordedImage, run: Run | None) -> bool:
    """Whether all exits of an image are known, or can be, whatever its answer was."""
    return image.sampled or (image.place is not None and run is not None)


def _drawn(images: Mapping[Key, RecordedImage], run: Run | None, count: int) -> list[Key]:
    """At most `count` images that were not sampled and have a file, in an order that is random, and the same
    each time."""
    found = [key for key, image in images.items() if not image.sampled and _can_run(image, run)]
    found.sort(key=lambda key: hashlib.sha256(repr(key).encode()).digest())
    return found[: max(count, 0)]


def _source(directory: Path, traffic: Traffic, with_labels: bool) -> str:
    parts = [f"{traffic.recorded:,} images recorded", f"{traffic.all_exits:,} with all exits"]
    if traffic.run_again:
        parts.append(f"{traffic.run_again:,} run again")
    if with_labels:
        parts.append(f"the {traffic.labelled:,} of them with a label used")
    return f"{directory} ({', '.join(parts)})"


def _remarks(traffic: Traffic, with_labels: bool, labels_needed: int, used: int) -> tuple[str, ...]:
    remarks: list[str] = []
    if with_labels:
        remarks.append(ASSUMED)
    else:
        remarks.append(
            f"{traffic.labelled:,} images have a label that can be used, and this goal takes "
            f"{labels_needed:,}: accuracy is the agreement of {used:,} images with the ensemble."
            if traffic.labelled
            else f"No image has a label: accuracy is the agreement of {used:,} images with the ensemble."
        )
    unused = traffic.labels - traffic.labelled
    if unused:
        remarks.append(
            f"{unused:,} labels are of images whose later exits are unknown; --record-images or a larger "
            "--record-full-share makes them usable."
        )
    return tuple(remarks)
