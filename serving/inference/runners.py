"""Running a stage's session: on numpy arrays, or with the features kept on the device between stages."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from exports.bundle.manifest import FeatureType
from exports.bundle.policy import Floats
from exports.bundle.reader import stage_input, stage_outputs

# What goes from stage to stage, [n, ...]: an array, or an OrtValue on the device.
Tensor = Any
Rows = NDArray[np.int64]

# An ONNX graph of one node, Gather(data float32 [n, c, h, w], rows int64 [m]) -> taken: onnxruntime
# alone has no way to pick rows of a tensor on the device. test_runners.py rebuilds it.
_TAKE = base64.b64decode(
    "CAgSADqOAQooCgRkYXRhCgRyb3dzEgV0YWtlbiIGR2F0aGVyKgsKBGF4aXMYAKABAhIEdGFrZVoiCgRkYXRhEhoKGAgB"
    "EhQKAxIBbgoDEgFjCgMSAWgKAxIBd1oTCgRyb3dzEgsKCQgHEgUKAxIBbWIjCgV0YWtlbhIaChgIARIUCgMSAW0KAxIB"
    "YwoDEgFoCgMSAXdCBAoAEBE="
)


# ONNX's numbers of the types that features have, and onnxruntime's names.
_NUMBERS: dict[FeatureType, int] = {"float32": 1, "uint8": 2, "int8": 3}
KINDS: dict[FeatureType, str] = {
    "float32": "tensor(float)",
    "uint8": "tensor(uint8)",
    "int8": "tensor(int8)",
}


def take_graph(kind: FeatureType) -> bytes:
    """The ONNX graph Gather(data [n, c, h, w], rows int64 [m]) -> taken [m, c, h, w] for data of `kind`."""
    # A tensor's type as protobuf has it: its length, then the number of the type of its elements.
    return _TAKE.replace(b"\x0a\x18\x08\x01", b"\x0a\x18\x08" + bytes([_NUMBERS[kind]]))


class Runner(Protocol):
    """A bundle's stages as functions of tensors. Any thread may call it."""

    def run(self, stage: int, inputs: Tensor) -> tuple[Tensor | None, Floats]:
        """Features of stage `stage`, None after the last, and the logits of its exit, in memory."""

    def take(self, tensor: Tensor, rows: Rows) -> Tensor:
        """The rows `rows` of `tensor`."""

    def join(self, tensors: Sequence[Tensor]) -> Tensor:
        """The rows of all `tensors`, one after the other."""


class HostRunner:
    """numpy in, numpy out: what suits a CPU."""

    def __init__(self, sessions: Sequence[Any]) -> None:
        self._sessions = sessions

    def run(self, stage: int, inputs: Tensor) -> tuple[Tensor | None, Floats]:
        outputs = self._sessions[stage - 1].run(None, {stage_input(stage): inputs})
        return outputs[0] if len(outputs) == 2 else None, outputs[-1]

    def take(self, tensor: Tensor, rows: Rows) -> Tensor:
        return tensor[rows]

    def join(self, tensors: Sequence[Tensor]) -> Tensor:
        return np.concatenate(tensors)


class DeviceRunner:
    """Features stay where the device left them; images go there, and only logits come back.

    Rows of one batch are picked on the device. Batches that merge meet in the host's memory, which is
    rare: those who stay usually go on together.
    """

    def __init__(
        self, sessions: Sequence[Any], take: Mapping[FeatureType, Any], device: str, ort: Any
    ) -> None:
        """`take` has a session of `take_graph` for every type of features; `device` is onnxruntime's
        name of the device, cuda or cpu."""
        self._sessions = sessions
        self._take = {KINDS[kind]: session for kind, session in take.items()}
        self._device = device
        self._ort = ort

    def run(self, stage: int, inputs: Tensor) -> tuple[Tensor | None, Floats]:
        session = self._sessions[stage - 1]
        names = stage_outputs(stage, len(self._sessions))
        binding = session.io_binding()
        self._bind(binding, stage_input(stage), inputs)
        for name in names[:-1]:
            binding.bind_output(name, self._device)
        binding.bind_output(names[-1], "cpu")
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
        together = np.concatenate([tensor.numpy() for tensor in tensors])
        return self._ort.OrtValue.ortvalue_from_numpy(together, self._device)

    def _bind(self, binding: Any, name: str, tensor: Tensor) -> None:
        if isinstance(tensor, np.ndarray):
            binding.bind_cpu_input(name, tensor)
        else:
            binding.bind_ortvalue_input(name, tensor)
