"""Running the sessions of stages: on numpy arrays, or with features that stay on the device."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from exports.bundle.manifest import FeatureType
from exports.bundle.policy import Floats

# The input of a stage, [n, ...]: an array, or an OrtValue on the device.
Tensor = Any
Rows = NDArray[np.int64]

# An ONNX graph of one node, Gather(data float32 [n, c, h, w], rows int64 [m]) -> taken, because onnxruntime
# has no function that takes rows of a tensor on the device. test_runners.py builds the same graph.
_TAKE = base64.b64decode(
    "CAgSADqOAQooCgRkYXRhCgRyb3dzEgV0YWtlbiIGR2F0aGVyKgsKBGF4aXMYAKABAhIEdGFrZVoiCgRkYXRhEhoKGAgB"
    "EhQKAxIBbgoDEgFjCgMSAWgKAxIBd1oTCgRyb3dzEgsKCQgHEgUKAxIBbWIjCgV0YWtlbhIaChgIARIUCgMSAW0KAxIB"
    "YwoDEgFoCgMSAXdCBAoAEBE="
)


# The types of features: ONNX's numbers and onnxruntime's names.
_ONNX_TYPES: dict[FeatureType, int] = {"float32": 1, "uint8": 2, "int8": 3}
TENSOR_TYPES: dict[FeatureType, str] = {
    "float32": "tensor(float)",
    "uint8": "tensor(uint8)",
    "int8": "tensor(int8)",
}


def take_graph(kind: FeatureType) -> bytes:
    """The ONNX graph Gather(data [n, c, h, w], rows int64 [m]) -> taken [m, c, h, w] for data of `kind`."""
    # A tensor type in protobuf: its length, then the number of the element type.
    return _TAKE.replace(b"\x0a\x18\x08\x01", b"\x0a\x18\x08" + bytes([_ONNX_TYPES[kind]]))


class Runner(Protocol):
    """The stages of a bundle as functions of tensors. Any thread may call it."""

    def run(self, stage: int, inputs: Tensor) -> tuple[Tensor | None, Floats]:
        """Features of stage `stage`, None if no stage takes them, and the logits of its exit as an
        array."""

    def take(self, tensor: Tensor, rows: Rows) -> Tensor:
        """The rows `rows` of `tensor`."""

    def join(self, tensors: Sequence[Tensor]) -> Tensor:
        """The rows of all `tensors`, one after the other."""


class HostRunner:
    """numpy in, numpy out: for the CPU."""

    def __init__(self, sessions: Sequence[Any]) -> None:
        self._stages = [
            (session, session.get_inputs()[0].name, [node.name for node in session.get_outputs()])
            for session in sessions
        ]

    def run(self, stage: int, inputs: Tensor) -> tuple[Tensor | None, Floats]:
        session, name, outputs = self._stages[stage - 1]
        found = session.run(outputs, {name: inputs})
        return found[0] if len(found) == 2 else None, found[-1]

    def take(self, tensor: Tensor, rows: Rows) -> Tensor:
        return tensor[rows]

    def join(self, tensors: Sequence[Tensor]) -> Tensor:
        return np.concatenate(tensors)


class DeviceRunner:
    """Features stay on the device; images are copied there, and only logits are copied back.

    Rows of one batch are taken on the device. Batches are joined in the host's memory, which is rare:
    samples that continue usually continue together.
    """

    def __init__(
        self, sessions: Sequence[Any], take: Mapping[FeatureType, Any], device: str, ort: Any
    ) -> None:
        """`take` has a session of `take_graph` for each type of features; `device` is onnxruntime's name,
        cuda or cpu."""
        self._sessions = sessions
        self._inputs = [session.get_inputs()[0].name for session in sessions]
        self._outputs = [[node.name for node in session.get_outputs()] for session in sessions]
        self._take = {TENSOR_TYPES[kind]: session for kind, session in take.items()}
        self._device = device
        self._ort = ort

    def run(self, stage: int, inputs: Tensor) -> tuple[Tensor | None, Floats]:
        session = self._sessions[stage - 1]
        *features_name, logits_name = self._outputs[stage - 1]
        binding = session.io_binding()
        self._bind(binding, self._inputs[stage - 1], inputs)
        for name in features_name:
            binding.bind_output(name, self._device)
        binding.bind_output(logits_name, "cpu")
        session.run_with_iobinding(binding)
        *features, logits = binding.get_outputs()
        return features[0] if features else None, logits.numpy()

    def take(self, tensor: Tensor, rows: Rows) -> Tensor:
        if isinstance(tensor, np.ndarray):
            return tensor[rows]
        session = self._take[tensor.data_type()]
        binding = session.io_binding()
        self._bind(binding, "data", tensor)
        self._bind(binding, "rows", np.asarray(rows, dtype=np.int64))
        binding.bind_output("taken", self._device)
        session.run_with_iobinding(binding)
        return binding.get_outputs()[0]

    def join(self, tensors: Sequence[Tensor]) -> Tensor:
        if isinstance(tensors[0], np.ndarray):
            return np.concatenate(tensors)
        joined = np.concatenate([tensor.numpy() for tensor in tensors])
        return self._ort.OrtValue.ortvalue_from_numpy(joined, self._device)

    def _bind(self, binding: Any, name: str, tensor: Tensor) -> None:
        if isinstance(tensor, np.ndarray):
            binding.bind_cpu_input(name, tensor)
        else:
            binding.bind_ortvalue_input(name, tensor)
