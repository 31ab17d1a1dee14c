"""The bundles that ship with Offramp: what they are made of, and how small they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exports.bundle.reader import load_bundle
from exports.bundle.resolve import CIFAR100, EMBEDDED, GROCERIES
from exports.source import portable
from exports.stage_runner import StageRunner
from exports.tuning.simulation import simulate
from training.data.image_files import read_image
from training.recipes.files import load_recipe

LARGEST_BYTES = {CIFAR100: 25e6, GROCERIES: 12e6}
SAMPLES = Path(__file__).parents[2] / "serving" / "page" / "samples"
# What the drawn samples of groceries show.
DRAWN = {
    "bananas": "Banana",
    "oranges": "Orange",
    "carrots": "Carrots",
    "limes": "Lime",
    "tomatoes": "Beef-Tomato",
    "apples": "Granny-Smith",
}


@pytest.mark.parametrize("path", EMBEDDED.values(), ids=EMBEDDED)
def test_it_is_complete_small_and_without_images(path: Path) -> None:
    bundle = load_bundle(path)
    assert bundle.manifest.name == path.name
    files = {file.name: file.stat().st_size for file in path.iterdir()}
    graphs = {entry.file for entry in (*bundle.manifest.exits, *bundle.manifest.graphs)}
    assert set(files) == graphs | {"manifest.json", "policy.json", "calibration.npz", "README.md"}
    assert sum(files.values()) <= LARGEST_BYTES[path]
    with np.load(path / "calibration.npz") as arrays:
        assert sorted(arrays) == ["labels", "logits", "split"]


@pytest.mark.parametrize("path", EMBEDDED.values(), ids=EMBEDDED)
def test_its_recipes_are_in_the_package(path: Path) -> None:
    origin = load_bundle(path).manifest.provenance
    for recorded in (origin.recipe, *origin.followers):
        assert _differences(portable(load_recipe(recorded["name"])), recorded) == {}


@pytest.mark.parametrize("path", EMBEDDED.values(), ids=EMBEDDED)
def test_its_policy_leaves_early_and_is_certified(path: Path) -> None:
    bundle = load_bundle(path)
    assert bundle.policy.certificate is not None
    manifest = bundle.manifest
    last_alone = manifest.exits[-1].macs - manifest.exits[-2].macs
    assert manifest.provenance.test_default.mean_macs < 0.7 * last_alone


def test_the_network_for_groceries_knows_the_samples_of_the_page() -> None:
    bundle = load_bundle(GROCERIES)
    manifest = bundle.manifest
    side = manifest.input.height
    images = np.stack([read_image(SAMPLES / f"{name}.webp", side) for name in DRAWN])
    outcome = simulate(bundle.policy, StageRunner(bundle.stages).logits(images), manifest.scaling)
    answers = [manifest.labels[label] for label in outcome.predictions]
    assert dict(zip(DRAWN, answers, strict=True)) == DRAWN
    assert min(outcome.shares(2)) > 0


def _differences(recipe: dict[str, Any], recorded: dict[str, Any]) -> dict[str, Any]:
    """What a bundle records otherwise than its recipe says. Fields that came later are not compared, nor are
    the teacher, which may be the run of a recipe or the ONNX file of that, and the refit, of which a bundle
    that was calibrated on other images says nothing."""
    return {
        key: (recipe[key], value)
        for key, value in recorded.items()
        if key not in ("refit", "teacher") and _part(recipe[key], value) != value
    }


def _part(content: Any, recorded: Any) -> Any:
    """`content` with the fields that are in `recorded`."""
    if not isinstance(content, dict) or not isinstance(recorded, dict):
        return content
    return {key: content[key] for key in recorded}
