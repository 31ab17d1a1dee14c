"""A three-exit network with fixed random weights, as a bundle, made without torch."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from exports.bundle.manifest import (
    CALIBRATION,
    MANIFEST,
    POLICY,
    Accuracy,
    CalibrationEntry,
    ExitEntry,
    FeatureType,
    GraphEntry,
    InputSpec,
    Manifest,
    StageInput,
    format_of,
)
from exports.bundle.policy import Policy
from exports.bundle.provenance import Operating, Provenance
from exports.bundle.reader import Table, sha256, stage_input, stage_outputs, write_table
from exports.graphs.cam import cam_graph

LABELS = ("ant", "bee", "cat", "dog", "eel", "fox", "gnu")
SIZE = 8
CHANNELS = (3, 4, 6, 8)
SIDES = (8, 4, 2, 1)
EXITS = 3
POLICY_DEFAULT = Policy(thresholds=(0.6, 0.5), max_exit=EXITS)


# Of features below float32: all of them are below this one.
LOUDEST = 30.0
NUMBERS: dict[FeatureType, int] = {
    "float32": TensorProto.FLOAT,
    "uint8": TensorProto.UINT8,
    "int8": TensorProto.INT8,
}


def stage_bytes(
    stage: int,
    classes: int = len(LABELS),
    seed: int = 0,
    kind: FeatureType = "float32",
    image_stages: Collection[int] = (1,),
) -> bytes:
    """The ONNX graph of stage `stage`: a strided convolution, and a linear head on its mean. `kind` is
    what its features are, taken and given; `image_stages` take the image instead."""
    rng = np.random.default_rng(stage + 10 * seed)
    takes_image = stage in image_stages
    has_features = stage < EXITS and stage + 1 not in image_stages
    wide, narrow = CHANNELS[stage], 3 if takes_image else CHANNELS[stage - 1]
    stride = SIZE // SIDES[stage] if takes_image else 2
    weights = {
        "kernel": rng.normal(0, 0.6, (wide, narrow, 3, 3)).astype(np.float32),
        "head": rng.normal(0, 6.0, (wide, classes)).astype(np.float32),
        "scale": np.float32(255).reshape(()),
    }
    if kind != "float32":
        weights["step"] = np.float32(LOUDEST / 255).reshape(())
        weights["zero"] = np.array(np.iinfo(kind).min, kind)
    name = stage_input(stage, "image" if takes_image else "features")
    outputs = stage_outputs(stage, has_features)
    nodes, source = [], name
    if takes_image:
        nodes = [
            helper.make_node("Cast", [name], ["wide"], to=TensorProto.FLOAT),
            helper.make_node("Div", ["wide", "scale"], ["unit"]),
            helper.make_node("Transpose", ["unit"], ["planes"], perm=[0, 3, 1, 2]),
        ]
        source = "planes"
    elif kind != "float32":
        nodes = [helper.make_node("DequantizeLinear", [name, "step", "zero"], ["scaled"])]
        source = "scaled"
    last = outputs[0] if has_features and kind == "float32" else "last"
    nodes += [
        helper.make_node("Conv", [source, "kernel"], ["raw"], pads=[1] * 4, strides=[stride] * 2),
        helper.make_node("Relu", ["raw"], [last]),
        helper.make_node("GlobalAveragePool", [last], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "head"], ["logits"]),
    ]
    if has_features and last != outputs[0]:
        nodes.append(helper.make_node("QuantizeLinear", [last, "step", "zero"], [outputs[0]]))
    given = (
        helper.make_tensor_value_info(name, TensorProto.UINT8, ["n", SIZE, SIZE, 3])
        if takes_image
        else helper.make_tensor_value_info(
            name, NUMBERS[kind], ["n", narrow, SIDES[stage - 1], SIDES[stage - 1]]
        )
    )
    features = (NUMBERS[kind], ["n", wide, SIDES[stage], SIDES[stage]])
    logits = (TensorProto.FLOAT, ["n", classes])
    graph = helper.make_graph(
        nodes,
        f"stage{stage}",
        [given],
        [
            helper.make_tensor_value_info(output, *(logits if output == "logits" else features))
            for output in outputs
        ],
        [numpy_helper.from_array(np.asarray(value), key) for key, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def exit_entry(
    k: int,
    content: bytes,
    kind: FeatureType,
    image_stages: Collection[int],
    accuracy: Accuracy,
) -> ExitEntry:
    """The manifest's entry of exit k, whose stage is the graph `content`."""
    has_features = k < EXITS and k + 1 not in image_stages
    input_: StageInput = "image" if k in image_stages else "features"
    return ExitEntry(
        file=f"stage{k}.onnx",
        sha256=sha256(content),
        input=input_,
        feature_shape=(CHANNELS[k], SIDES[k], SIDES[k]) if has_features else None,
        feature_type=kind if has_features else "float32",
        macs=1000 * k,
        params=100 * k,
        temperature=1.0 + k / 10,
        running_temperature=0.9,
        held_out=accuracy,
        test=accuracy,
    )


def write_tiny_bundle(
    path: Path,
    *,
    name: str = "tiny",
    version: str = "1",
    policy: Policy = POLICY_DEFAULT,
    stages: dict[int, bytes] | None = None,
    seed: int = 0,
    maps: bool = False,
    kind: FeatureType = "float32",
    image_stages: Collection[int] = (1,),
) -> Path:
    """Write the bundle `path`; `stages` replaces some graphs, hashes included, `seed` all weights; with
    `maps` it offers class-activation maps; `kind` is what its features are; `image_stages` take the
    image instead of features."""
    path.mkdir(parents=True)
    graphs = {
        k: stage_bytes(k, seed=seed, kind=kind, image_stages=image_stages)
        for k in range(1, EXITS + 1)
    } | (stages or {})
    for k, content in graphs.items():
        (path / f"stage{k}.onnx").write_bytes(content)
    rng = np.random.default_rng(0)
    table = Table(
        rng.normal(size=(EXITS, 20, len(LABELS))).astype(np.float32), rng.integers(0, 7, 20)
    )
    write_table(path / CALIBRATION, table, "held_out")
    whole: tuple[GraphEntry, ...] = ()
    if maps:
        drawn = cam_graph(list(graphs.values()))
        (path / "maps.onnx").write_bytes(drawn)
        whole = (GraphEntry(kind="maps", exit=None, file="maps.onnx", sha256=sha256(drawn)),)
    accuracy = Accuracy(single=50.0, running=60.0)
    exits = [exit_entry(k, graphs[k], kind, image_stages, accuracy) for k in range(1, EXITS + 1)]
    manifest = Manifest(
        format=format_of(exits),
        name=name,
        version=version,
        labels=LABELS,
        input=InputSpec(height=SIZE, width=SIZE),
        precision="fp32",
        exits=tuple(exits),
        graphs=whole,
        ensemble_weights=(0.2, 0.3, 0.5),
        calibration=CalibrationEntry(
            file=CALIBRATION,
            sha256=sha256((path / CALIBRATION).read_bytes()),
            samples=20,
            split="held_out",
        ),
        provenance=Provenance(
            recipe={},
            dataset="none",
            splits={"train": 1, "held_out": 20, "test": 1},
            seed=0,
            test_default=Operating(accuracy=50.0, mean_macs=1500.0, exit_shares=(0.5, 0.5, 0.0)),
            tools={},
            created="2026-11-22T00:00:00+00:00",
        ),
    )
    (path / MANIFEST).write_text(manifest.model_dump_json())
    (path / POLICY).write_text(policy.model_dump_json())
    return path
