"""Networks for the serving benchmarks: one of random weights as a bundle, and a bundle as one graph."""

from __future__ import annotations

import shutil
from pathlib import Path

from onnx import TensorProto, helper

from benchmarks.bundles import RESNET18_INT8
from exports.bundle.manifest import CALIBRATION, MANIFEST, POLICY, format_of
from exports.bundle.reader import Bundle, load_bundle, sha256
from exports.graphs.onnx_tools import (
    assemble,
    connection,
    exit_graph,
    image_info,
    load_stages,
    prefixed,
    serialised,
)


def random_bundle(
    path: Path, network: str = "resnet18", width: int | None = 64, side: int | None = None
) -> Bundle:
    """Write and load a bundle of `network` with random weights, otherwise like the ResNet-18 bundle, for
    images of `side` pixels unless that is None: for measuring times, not accuracy."""
    # Imported here because processes that only measure do not need torch.
    import torch

    from exports.graphs.stages import export_stages
    from training.models.build import build_network
    from training.models.multi_exit import Normalize

    like = load_bundle(RESNET18_INT8)
    manifest = like.manifest
    torch.manual_seed(0)
    exits = range(1, len(manifest.exits) + 1)
    built = build_network(network, width, len(manifest.labels), tuple(exits)).eval()
    spec = manifest.input
    if side is not None:
        spec = spec.model_copy(update={"height": side, "width": side})
    size = (spec.height, spec.width)
    graphs = export_stages(built, Normalize((0.5,) * 3, (0.25,) * 3), size)
    path.mkdir(parents=True)
    entries, macs, params = [], 0, 0
    for entry, graph in zip(manifest.exits, graphs, strict=True):
        (path / entry.file).write_bytes(graph.onnx)
        macs, params = macs + graph.macs, params + graph.params
        changes = {
            "sha256": sha256(graph.onnx),
            "input": graph.input,
            "feature_shape": graph.feature_shape,
            "feature_type": "float32",
            "macs": macs,
            "params": params,
        }
        entries.append(entry.model_copy(update=changes))
    name = f"{network}-random"
    plain = {
        "format": format_of(entries),
        "input": spec,
        "precision": "fp32",
        "conversion": None,
        "graphs": (),
        "provenance": manifest.provenance.model_copy(update={"followers": ()}),
    }
    changed = manifest.model_copy(update={**plain, "name": name, "exits": tuple(entries)})
    (path / MANIFEST).write_text(changed.model_dump_json(), "utf-8")
    (path / POLICY).write_text(like.policy.model_dump_json(), "utf-8")
    shutil.copy(like.path / CALIBRATION, path / CALIBRATION)
    return load_bundle(path)


def whole_network(bundle: Bundle, *, exits: bool) -> bytes:
    """The stages of `bundle` as one graph: image -> the logits of every exit, or of the last one alone,
    without the early heads."""
    if not exits:
        return exit_graph(bundle.stages, len(bundle.stages))
    models = load_stages(bundle.stages)
    nodes = [
        node
        for k, model in enumerate(models, 1)
        for node in (connection(model, k), *model.graph.node)
    ]
    shape = ["batch", len(bundle.manifest.labels)]
    logits = [
        helper.make_tensor_value_info(prefixed(k, "logits"), TensorProto.FLOAT, shape)
        for k in range(1, len(models) + 1)
    ]
    return serialised(assemble("exits", models, nodes, [image_info(models)], logits))
