"""Networks for the serving benchmarks: one of random weights as a bundle, and a bundle as one graph."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
from onnx import compose

from exports.bundle.manifest import CALIBRATION, MANIFEST, POLICY
from exports.bundle.reader import Bundle, load_bundle, sha256
from exports.bundle.resolve import embedded


def random_bundle(path: Path, network: str = "resnet18", width: int = 64) -> Bundle:
    """Write and load a bundle of `network` with random weights, otherwise like the embedded one: for
    measuring times, not accuracy."""
    # Imported here because processes that only measure do not need torch.
    import torch

    from exports.graphs.stages import export_stages
    from training.models.build import build_network
    from training.models.multi_exit import Normalize

    like = load_bundle(embedded())
    manifest = like.manifest
    torch.manual_seed(0)
    exits = range(1, len(manifest.exits) + 1)
    built = build_network(network, width, len(manifest.labels), tuple(exits)).eval()
    size = (manifest.input.height, manifest.input.width)
    graphs = export_stages(built, Normalize((0.5,) * 3, (0.25,) * 3), size)
    path.mkdir(parents=True)
    entries, macs, params = [], 0, 0
    for entry, graph in zip(manifest.exits, graphs, strict=True):
        (path / entry.file).write_bytes(graph.onnx)
        macs, params = macs + graph.macs, params + graph.params
        changes = {
            "sha256": sha256(graph.onnx),
            "feature_shape": graph.feature_shape,
            "feature_type": "float32",
            "macs": macs,
            "params": params,
        }
        entries.append(entry.model_copy(update=changes))
    name = f"{network}-random"
    plain = {"precision": "fp32", "conversion": None, "graphs": ()}
    changed = manifest.model_copy(update={**plain, "name": name, "exits": tuple(entries)})
    (path / MANIFEST).write_text(changed.model_dump_json(), "utf-8")
    (path / POLICY).write_text(like.policy.model_dump_json(), "utf-8")
    shutil.copy(like.path / CALIBRATION, path / CALIBRATION)
    return load_bundle(path)


def whole_network(bundle: Bundle, *, exits: bool) -> bytes:
    """The stages of `bundle` as one graph: image -> the logits of every exit, or of the last one alone,
    without the early heads."""
    whole = compose.add_prefix(onnx.load_from_string(bundle.stages[0]), "s1_")
    logits = ["s1_logits"]
    for k, content in enumerate(bundle.stages[1:], 2):
        stage = compose.add_prefix(onnx.load_from_string(content), f"s{k}_")
        seam = (f"s{k - 1}_features{k - 1}", f"s{k}_features{k - 1}")
        logits.append(f"s{k}_logits")
        whole = compose.merge_models(whole, stage, io_map=[seam])
    wanted = logits if exits else logits[-1:]
    kept = [output for output in whole.graph.output if output.name in wanted]
    del whole.graph.output[:]
    whole.graph.output.extend(kept)
    content: bytes = whole.SerializeToString()
    return content
