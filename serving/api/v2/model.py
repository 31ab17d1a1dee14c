"""A bundle as a model of the protocol: one input, six outputs."""

from __future__ import annotations

from dataclasses import dataclass

from serving.models.registry import LoadedModel

INPUT = "image"
PLATFORM = "onnx_onnxv1"
PROBABILITIES = "probabilities"
# In the order of the answer to a request that names none.
OUTPUTS = {
    PROBABILITIES: "FP32",
    "label": "BYTES",
    "exit": "INT32",
    "confidence": "FP32",
    "measured": "FP32",
    "reason": "BYTES",
}


@dataclass(frozen=True)
class TensorMetadata:
    """A tensor of a model; -1 in its shape is the batch."""

    name: str
    datatype: str
    shape: list[int]


@dataclass(frozen=True)
class ModelMetadata:
    """A model, as the protocol describes it."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


def metadata_of(model: LoadedModel) -> ModelMetadata:
    """The protocol's metadata of `model`."""
    manifest = model.engine.manifest
    spec = manifest.input
    classes = len(manifest.labels)
    return ModelMetadata(
        name=manifest.name,
        versions=[manifest.version],
        platform=PLATFORM,
        inputs=[TensorMetadata(INPUT, "UINT8", [-1, spec.height, spec.width, 3])],
        outputs=[
            TensorMetadata(name, datatype, [-1, classes] if name == PROBABILITIES else [-1])
            for name, datatype in OUTPUTS.items()
        ],
    )
