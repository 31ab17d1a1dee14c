"""The summary of a bundle that `offramp inspect` prints."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from exports.bundle.certificate import REFERENCE_NAMES
from exports.bundle.inspection import Inspection
from exports.bundle.manifest import Accuracy
from exports.bundle.provenance import Provenance
from exports.bundle.untrusted.safe_files import one_line

NOTE = Text("T, held out, test: the exit alone / the ensemble of all exits so far", style="dim")


def summary(
    inspection: Inspection, opened: bool, verified: bool | None, gears_verified: bool | None
) -> RenderableType:
    """The output of `offramp inspect`; `opened`: whether onnxruntime opened the graphs, `verified`:
    whether the policy's certificates are verified, if there are any, `gears_verified`: whether the gears
    are."""
    overview = _overview(inspection, opened, verified, gears_verified)
    return Group(overview, Text(), _exits(inspection), NOTE)


def _overview(
    inspection: Inspection, opened: bool, verified: bool | None, gears_verified: bool | None
) -> Table:
    manifest, policy = inspection.bundle.manifest, inspection.bundle.policy
    origin = manifest.provenance
    default, labelled = origin.test_default, manifest.calibration.target == "labels"
    reference = REFERENCE_NAMES[manifest.calibration.reference]
    rows = [
        ("bundle", f"{manifest.name} {manifest.version}, format {manifest.format}"),
        ("verified", _verified(inspection, opened)),
        ("precision", _precision(inspection)),
        ("input", f"{manifest.input.width} x {manifest.input.height} RGB, {manifest.input.resize}"),
        ("labels", f"{len(manifest.labels)}: {', '.join(manifest.labels[:5])} …"),
        ("weights", "ensemble " + _numbers(manifest.ensemble_weights)),
        ("features", ", ".join(_features(inspection)) or "none: there is one stage"),
        ("graphs", ", ".join(_graphs(inspection)) or "stages only"),
        *(("routed", remark) for remark in inspection.routed_remarks),
        (
            "calibration",
            f"{manifest.calibration.file}, {_size(inspection, manifest.calibration.file)}: "
            f"{manifest.calibration.samples:,} samples of {manifest.calibration.split}"
            + ("" if labelled else f" without labels: accuracy is agreement with the {reference}"),
        ),
        (
            "policy",
            f"{policy.mode}, {policy.measure} of {policy.combine}, thresholds "
            f"{_numbers(policy.thresholds)}, deepest exit {policy.max_exit}"
            + ("" if policy.reject_below is None else f", unsure below {policy.reject_below:g}"),
        ),
        *_certificates(inspection, verified),
        *_gears(inspection, gears_verified),
        (
            "on test" if origin.has_test else "held out",
            f"the exporter's policy: {default.accuracy:.2f} % at {default.mean_macs / 1e6:.1f} M MACs, "
            f"{default.mean_macs / manifest.exits[-1].macs:.0%} of full depth"
            + ("" if origin.has_test else f", on the {origin.evaluated_on}"),
        ),
        (
            "made",
            f"{origin.created} from {origin.dataset} by {_recipes(origin)} ("
            + ", ".join(f"{name} {count:,}" for name, count in origin.splits.items())
            + ")"
            + (", weights refit on train and held_out" if origin.refit else ""),
        ),
        ("tools", ", ".join(f"{name} {version}" for name, version in sorted(origin.tools.items()))),
    ]
    if inspection.unknown:
        rows.append(("other files", ", ".join(inspection.unknown)))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column()
    for name, value in rows:
        # Names come from the bundle: Text shows them without markup, one_line without control characters.
        grid.add_row(name, Text(one_line(value)))
    return grid


def _recipes(origin: Provenance) -> str:
    """The recipe of the first network, if Offramp trained it, and the files that were imported."""
    recipes = (origin.recipe, *origin.followers)
    imported = ", ".join(str(recipe.get("name")) for recipe in recipes if "onnx" in recipe)
    if "onnx" in origin.recipe:
        return f"importing {imported}"
    own = f"recipe {origin.recipe.get('name', 'unnamed')}, seed {origin.seed}"
    return f"{own}, and importing {imported}" if imported else own


def _exits(inspection: Inspection) -> Table:
    manifest = inspection.bundle.manifest
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for title in ("exit", "file", "MB", "MACs,M", "par.,M", "T", "held out,%", "test,%", "leave"):
        table.add_column(title, justify="left" if title == "file" else "right", no_wrap=True)
    shares = manifest.provenance.test_default.exit_shares
    for k, (entry, share) in enumerate(zip(manifest.exits, shares, strict=True), 1):
        table.add_row(
            str(k),
            entry.file,
            f"{inspection.sizes[entry.file] / 1e6:.2f}",
            f"{entry.macs / 1e6:.1f}",
            f"{entry.params / 1e6:.2f}",
            f"{entry.temperature:.2f}/{entry.running_temperature:.2f}",
            _pair(entry.held_out),
            _pair(entry.test),
            f"{share:.1%}",
        )
    return table


def _verified(inspection: Inspection, opened: bool) -> str:
    files = len(inspection.bundle.manifest.files)
    verified = f"{files} hashes, shapes, policy"
    if opened:
        return f"{verified}; every graph opened in onnxruntime"
    return f"{verified}; graphs not opened, since onnxruntime is not installed"


def _certificates(inspection: Inspection, verified: bool | None) -> list[tuple[str, str]]:
    """A row for each certificate of the policy, or one that says that there is none."""
    checked = "verified" if verified else "not verified here"
    promises = ("certificate", inspection.promise), ("precision", inspection.precision_promise)
    rows = [(what, f"{checked}. {promise}") for what, promise in promises if promise is not None]
    return rows or [("certificate", "none: this policy promises nothing")]


def _gears(inspection: Inspection, verified: bool | None) -> list[tuple[str, str]]:
    """A row on the gears, none if there are none."""
    plan = inspection.bundle.gears
    if plan is None:
        return []
    checked = "verified" if verified else "not verified here"
    ends = [
        f"{gear.accuracy:.2f} % at {gear.mean_macs / 1e6:.1f} M MACs"
        for gear in (plan.gears[0], plan.gears[-1])
    ]
    return [("gears", f"{checked}. {len(plan.gears)} from {' to '.join(ends)}")]


def _precision(inspection: Inspection) -> str:
    manifest = inspection.bundle.manifest
    conversion = manifest.conversion
    if conversion is None:
        return manifest.precision
    changes = [
        f"{before.running:.2f} to {entry.test.running:.2f}"
        for before, entry in zip(conversion.test, manifest.exits, strict=True)
    ]
    scheme = f" {conversion.scheme}, ranges from {conversion.images:,} images"
    return (
        f"{manifest.precision}{scheme if conversion.scheme else ''}; kept in float32: "
        f"{', '.join(conversion.kept) or 'nothing'}; ensemble on test, float32 to "
        f"{manifest.precision}: {', '.join(changes)}"
    )


def _features(inspection: Inspection) -> list[str]:
    """Type and shape of the features between the stages, and which stages take the image instead."""
    exits = inspection.bundle.manifest.exits
    return [
        f"stage {k} takes the image"
        if entry.feature_shape is None
        else f"{entry.feature_type} {' x '.join(map(str, entry.feature_shape))}"
        for k, entry in enumerate(exits[:-1], 2)
    ]


def _graphs(inspection: Inspection) -> list[str]:
    return [
        f"{graph.file} ({graph.kind}, {_size(inspection, graph.file)})"
        for graph in inspection.bundle.manifest.graphs
    ]


def _pair(accuracy: Accuracy) -> str:
    return f"{accuracy.single:.2f}/{accuracy.running:.2f}"


def _size(inspection: Inspection, name: str) -> str:
    return f"{inspection.sizes[name] / 1e6:.2f} MB"


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values) or "none"
