"""The model card: a bundle's README.md, written from its manifest."""

from __future__ import annotations

from exports.bundle import Manifest
from exports.policy import Policy


def model_card(manifest: Manifest, policy: Policy) -> str:
    """Markdown for `manifest` with `policy` as its default."""
    origin = manifest.provenance
    recipe = origin.recipe
    rows = "\n".join(
        f"| {k} | {entry.macs / 1e6:.1f} | {entry.params / 1e6:.2f} | {entry.test.single:.2f} "
        f"| {entry.test.running:.2f} | {share:.1%} |"
        for k, (entry, share) in enumerate(
            zip(manifest.exits, origin.test_default.exit_shares, strict=True), 1
        )
    )
    full = manifest.exits[-1].macs
    default = origin.test_default
    splits = ", ".join(f"{name} {count:,}" for name, count in origin.splits.items())
    network = recipe["network"]
    backbone = network["name"] + (f" of width {network['width']}" if network["width"] else "")
    teacher = (recipe.get("teacher") or {}).get("recipe", "none")
    return f"""# {manifest.name}

A multi-exit image classifier for {len(manifest.labels)} classes, exported by Offramp as one ONNX file
per stage ({manifest.precision}). Inputs are RGB pictures, scaled to {manifest.input.width} x {manifest.input.height} ({manifest.input.resize}).

| exit | MACs to here, M | parameters to here, M | test accuracy, % | with all exits so far, % | leave here by default |
|---|---|---|---|---|---|
{rows}

Ensemble of all exits: {manifest.exits[-1].test.running:.2f} %. Default policy ({policy.mode}, {policy.measure} of the
{policy.combine} logits, thresholds {", ".join(f"{t:g}" for t in policy.thresholds)}): {default.accuracy:.2f} % at {default.mean_macs / 1e6:.1f} M MACs on average,
{default.mean_macs / full:.0%} of full depth. All accuracies are on the test split; no temperature or threshold was chosen on it.

- Recipe: `{recipe["name"]}` ({backbone}, objective {recipe["objective"]["method"]}, {recipe["train"]["epochs"]} epochs, seed {origin.seed}); teacher: `{teacher}`
- Data: {origin.dataset} ({splits}). Temperatures and thresholds were chosen on the held-out split.
- Tools: {", ".join(f"{name} {version}" for name, version in sorted(origin.tools.items()))}
- The bundle holds weights and logits and no image.
"""
