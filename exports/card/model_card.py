"""The model card: a bundle's README.md, written from its manifest.

The front matter has the fields that the Hugging Face Hub reads: hf.co/docs/hub/model-cards.
"""

from __future__ import annotations

from typing import Any

from exports.bundle.certificate import REFERENCE_NAMES
from exports.bundle.manifest import Accuracy, Manifest
from exports.bundle.policy import Policy
from exports.bundle.provenance import Provenance
from exports.card.markup import markdown_text, yaml_string

TAGS = ("onnx", "onnxruntime", "image-classification", "early-exit")
TRAINED_TAGS = ("knowledge-distillation",)
# The manifest lists all of them.
MAX_LABELS = 200


def model_card(
    manifest: Manifest, policy: Policy, license_: str = "unknown", promise: str = ""
) -> str:
    """Markdown for `manifest` with `policy` as its default.

    `license_` is the identifier of the weights' licence, as the Hub spells it (`apache-2.0`). `promise`
    says what the policy's drop is on samples that it was not chosen on; without it a certificate does.
    """
    return f"""{_front_matter(manifest, license_)}
# {markdown_text(manifest.name)}

A multi-exit image classifier for {len(manifest.labels)} classes, version {markdown_text(manifest.version)}, exported by Offramp
as one ONNX file per stage ({manifest.precision}). Inputs are RGB images, scaled to {manifest.input.width} x {manifest.input.height} ({markdown_text(manifest.input.resize)}).
An image leaves at the first exit where the policy's measure of confidence reaches its threshold.{_image_stages(manifest)}

## Intended use
Classifying photographs into the classes below, if they resemble the images the network was trained on.
It answers with one of the classes for any image; accuracy and confidence on other kinds of images are
unknown. It was not evaluated for decisions about people.

    offramp serve BUNDLE

Classes: {_labels(manifest)}

## Evaluation
{_exits(manifest)}

{_default(manifest, policy, promise)}
{_conversion(manifest)}
## Training
{_origin(manifest)}
- The bundle contains weights and logits, but no images.
"""


def _front_matter(manifest: Manifest, license_: str) -> str:
    dataset = yaml_string(manifest.provenance.dataset)
    ensembles = [
        (
            "all exits" if k == len(manifest.exits) and k > 1 else f"exits 1 to {k}",
            entry.test.running,
        )
        for k, entry in enumerate(manifest.exits, 1)
    ]
    metrics = [
        *((f"exit {k}", entry.test.single) for k, entry in enumerate(manifest.exits, 1)),
        *((f"ensemble of {which}", value) for which, value in ensembles[1:]),
        ("default policy", manifest.provenance.test_default.accuracy),
    ]
    results = "\n".join(
        f"    - type: accuracy\n      value: {value}\n      name: {yaml_string(f'accuracy of {what}, %')}"
        for what, value in metrics
    )
    own = () if "onnx" in manifest.provenance.recipe else TRAINED_TAGS
    tags = "\n".join(f"- {tag}" for tag in (*TAGS, *own))
    return f"""---
license: {yaml_string(license_)}
library_name: offramp
pipeline_tag: image-classification
tags:
{tags}
datasets:
- {dataset}
metrics:
- accuracy
model-index:
- name: {yaml_string(manifest.name)}
  results:
  - task:
      type: image-classification
    dataset:
      name: {dataset}
      type: {dataset}
      split: {"test" if manifest.provenance.has_test else "held_out"}
    metrics:
{results}
---
"""


def _image_stages(manifest: Manifest) -> str:
    """Where another network begins, as a sentence."""
    stages = [str(k) for k, entry in enumerate(manifest.exits[1:], 2) if entry.input == "image"]
    if not stages:
        return ""
    which = f"Stage {stages[0]} takes" if len(stages) == 1 else f"Stages {', '.join(stages)} take"
    return f"\n{which} the image, not the features of the stage before."


def _exits(manifest: Manifest) -> str:
    shares = manifest.provenance.test_default.exit_shares
    rows = "\n".join(
        f"| {k} | {entry.macs / 1e6:.1f} | {entry.params / 1e6:.2f} | {entry.test.single:.2f} "
        f"| {entry.test.running:.2f} | {share:.1%} |"
        for k, (entry, share) in enumerate(zip(manifest.exits, shares, strict=True), 1)
    )
    return f"""| exit | MACs to here, M | parameters to here, M | {_split(manifest)} accuracy, % | with all exits so far, % | leave here by default |
|---|---|---|---|---|---|
{rows}"""


def _default(manifest: Manifest, policy: Policy, promise: str) -> str:
    default = manifest.provenance.test_default
    thresholds = ", ".join(f"{threshold:g}" for threshold in policy.thresholds) or "none"
    if not promise and policy.certificate:
        promise = policy.certificate.sentence
    if promise:
        promise = f"\n\n{markdown_text(promise)}"
    what = (
        f"exit {policy.max_exit} answers every image alone"
        if policy.mode == "exit"
        else f"{markdown_text(policy.mode)}, {markdown_text(policy.measure)} of the {policy.combine} logits, "
        f"thresholds {thresholds}"
    )
    return f"""Ensemble of all exits: {manifest.exits[-1].test.running:.2f} %. Default policy ({what}):
{default.accuracy:.2f} % at {default.mean_macs / 1e6:.1f} M MACs on average,
{default.mean_macs / manifest.exits[-1].macs:.0%} of full depth. {_accuracies(manifest)}{promise}"""


def _split(manifest: Manifest) -> str:
    return "test" if manifest.provenance.has_test else "held-out"


def _accuracies(manifest: Manifest) -> str:
    """The images that the accuracies are of, and what a refit means for them."""
    origin = manifest.provenance
    if manifest.calibration.target == "agreement":
        return (
            "No labels were used: every figure called accuracy is the agreement with the "
            f"{REFERENCE_NAMES[manifest.calibration.reference]}, on the {origin.evaluated_on}."
        )
    if origin.has_test:
        text = "All accuracies are on the test split; no temperature or threshold was chosen on it."
    else:
        text = f"There was no test split: all accuracies are on the {origin.evaluated_on}."
    if origin.refit:
        before = "" if origin.has_test else ", accuracies"
        text += (
            " The weights were trained once more on everything, the held-out split included; "
            f"temperatures{before} and thresholds are those of the network before that."
        )
    return text


def _conversion(manifest: Manifest) -> str:
    conversion = manifest.conversion
    if conversion is None:
        return ""
    rows = "\n".join(
        f"| {k} | {_pair(before)} | {_pair(entry.test)} |"
        for k, (before, entry) in enumerate(zip(conversion.test, manifest.exits, strict=True), 1)
    )
    scheme = f" ({conversion.scheme}, ranges from {conversion.images:,} held-out images)"
    kept = ", ".join(markdown_text(name) for name in conversion.kept) or "nothing"
    return f"""
Converted from float32 to {manifest.precision}{scheme if conversion.scheme else ""}; kept in float32: {kept}.
{_split(manifest).capitalize()} accuracy of the exit alone and with all exits so far, %:

| exit | float32 | {manifest.precision} |
|---|---|---|
{rows}
"""


def _pair(accuracy: Accuracy) -> str:
    return f"{accuracy.single:.2f}, {accuracy.running:.2f}"


def _labels(manifest: Manifest) -> str:
    shown = ", ".join(markdown_text(label) for label in manifest.labels[:MAX_LABELS])
    more = len(manifest.labels) - MAX_LABELS
    return f"{shown} and {more:,} more." if more > 0 else f"{shown}."


def _origin(manifest: Manifest) -> str:
    origin = manifest.provenance
    splits = ", ".join(f"{name} {count:,}" for name, count in origin.splits.items())
    tools = ", ".join(f"{name} {version}" for name, version in sorted(origin.tools.items()))
    lines = "\n".join(
        _imported(recipe) if "onnx" in recipe else _recipe(recipe, seed)
        for recipe, seed in (
            (origin.recipe, origin.seed),
            *((follower, follower.get("seed", 0)) for follower in origin.followers),
        )
    )
    return f"""{lines}
- Data: {markdown_text(f"{origin.dataset} ({splits})")}. {_calibrated_on(origin)}
- Tools: {markdown_text(tools)}"""


def _calibrated_on(origin: Provenance) -> str:
    what = (
        "images that are no part of it" if "calibration" in origin.splits else "the held-out split"
    )
    return f"Temperatures and thresholds were chosen on {what}."


def _imported(recipe: dict[str, Any]) -> str:
    """A network that Offramp did not train."""
    onnx = recipe["onnx"]
    network = (
        f"{onnx['file']} (SHA-256 {onnx['sha256']}, {onnx['preprocessing']}, {onnx['outputs']})"
    )
    return f"- Network: {markdown_text(network)}, not trained by Offramp"


def _recipe(recipe: dict[str, Any], seed: int) -> str:
    """A network that Offramp trained."""
    name = markdown_text(str(recipe.get("name", "unnamed")))
    try:
        network, epochs = recipe["network"], recipe["train"]["epochs"]
        backbone = network["name"] + (f" of width {network['width']}" if network["width"] else "")
        what = markdown_text(f"{backbone}, objective {recipe['objective']['method']}")
        taught_by = recipe.get("teacher") or {}
        teacher = ", ".join(taught_by.get("onnx") or ()) or taught_by.get("recipe", "none")
    # A bundle's recipe is not checked when it is read.
    except (KeyError, TypeError, AttributeError):
        return f"- Recipe: {name}, of which the bundle does not say more"
    return f"- Recipe: {name} ({what}, {epochs} epochs, seed {seed}); teacher: {markdown_text(str(teacher))}"
