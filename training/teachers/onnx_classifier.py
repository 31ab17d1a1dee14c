"""ONNX classifiers as a teacher with one exit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate, log_softmax, softmax

from offramp.onnx_runtime import load_onnxruntime, session_errors, session_options
from training.errors import RecipeError
from training.models.multi_exit import Normalize
from training.recipes.teacher import TeacherRecipe

# Below it the logarithm of a probability is cut off.
MIN_PROBABILITY = 1e-7


class OnnxClassifier:
    """The classifiers in the files `teacher.onnx`, run by onnxruntime.

    One that returns logits teaches with these; otherwise the logarithm of the mean probability does,
    whose softmax is that probability.
    """

    def __init__(self, teacher: TeacherRecipe, classes: int, device: torch.device) -> None:
        assert teacher.onnx is not None
        self._models = [_Model(Path(path), teacher, classes, device) for path in teacher.onnx]
        self._as_logits = teacher.onnx_output == "logits"

    def logits(self, images: Tensor) -> Tensor:
        """uint8 [n, H, W, 3] -> float32 [1, n, C]. Raises RecipeError if a model does not fit."""
        outputs = [model(images.cpu()) for model in self._models]
        if self._as_logits and len(outputs) == 1:
            return outputs[0][None].to(images.device)
        probabilities = [softmax(z, 1) for z in outputs] if self._as_logits else outputs
        mean = torch.stack(probabilities).mean(0).clamp_min(MIN_PROBABILITY)
        return log_softmax(mean.log(), 1)[None].to(images.device)


class _Model:
    """One file: what goes in and what comes out."""

    def __init__(
        self, path: Path, teacher: TeacherRecipe, classes: int, device: torch.device
    ) -> None:
        self._path, self._classes = path, classes
        self._session = _open(path, device)
        self._uint8 = teacher.onnx_input is not None
        self._normalize = None
        if teacher.onnx_mean is not None and teacher.onnx_std is not None:
            self._normalize = Normalize(teacher.onnx_mean, teacher.onnx_std)
        first, *others = self._session.get_inputs()
        kind = "tensor(uint8)" if self._uint8 else "tensor(float)"
        if others or first.type != kind or len(first.shape) != 4:
            raise RecipeError(f"the teacher {path} must take one {kind} of four axes.")
        self._name, (self._batch, *axes) = first.name, first.shape
        self._size = tuple(axes[:2] if self._uint8 else axes[1:])

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 [n, H, W, 3] -> float32 [n, C], as the model returns them."""
        inputs = self._inputs(images).numpy()
        if not isinstance(self._batch, int):
            return self._run(inputs)
        padding = -len(inputs) % self._batch  # the model takes batches of one size only
        whole = np.concatenate([inputs, np.repeat(inputs[-1:], padding, axis=0)])
        parts = [self._run(part) for part in np.split(whole, len(whole) // self._batch)]
        return torch.cat(parts)[: len(inputs)]

    def _inputs(self, images: Tensor) -> Tensor:
        """The images in the model's layout, resized if its sides are fixed."""
        if self._normalize is not None:
            return self._resized(self._normalize(images))
        if self._size == tuple(images.shape[1:3]):
            return images
        pixels = self._resized(images.permute(0, 3, 1, 2).float())
        return pixels.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    def _resized(self, inputs: Tensor) -> Tensor:
        """float32 [n, 3, H, W] at the model's sides; any size where they are free."""
        fixed = [side for side in self._size if isinstance(side, int)]
        if len(fixed) < 2 or fixed == list(inputs.shape[2:]):
            return inputs.contiguous()
        return interpolate(inputs, size=fixed, mode="bilinear", antialias=True)

    def _run(self, inputs: NDArray[Any]) -> Tensor:
        try:
            output = self._session.run(None, {self._name: inputs})[0]
        except session_errors() as error:
            reason = str(error).splitlines()[0]
            raise RecipeError(f"the teacher {self._path} cannot be run: {reason}.") from error
        if output.shape != (len(inputs), self._classes):
            raise RecipeError(
                f"the teacher {self._path} returns {list(output.shape)} for {len(inputs)} images, "
                f"not one value for each of the {self._classes} classes."
            )
        return torch.from_numpy(np.asarray(output, dtype=np.float32))


def _open(path: Path, device: torch.device) -> Any:
    """A session on the GPU if `device` is one and onnxruntime has it, else on the CPU."""
    onnxruntime = load_onnxruntime()
    available = onnxruntime.get_available_providers()
    gpu = ["CUDAExecutionProvider"] if device.type == "cuda" else []
    providers = [name for name in (*gpu, "CPUExecutionProvider") if name in available]
    options = session_options()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return onnxruntime.InferenceSession(path, options, providers)
    except session_errors() as error:
        reason = str(error).splitlines()[0]
        raise RecipeError(f"the teacher {path} cannot be loaded: {reason}.") from error
