"""A trained network as a teacher in onnxruntime, which runs depthwise convolutions faster than torch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from offramp.onnx_runtime import load_onnxruntime, session_options
from training.models.multi_exit import MultiExit, Normalize
from training.models.onnx_export import to_onnx

IMAGES = "images"
LOGITS = "logits"
# Larger batches do not fit the processor's cache and are slower.
BATCH = 32


class ExportedClassifier:
    """The network in float32 on the CPU, on as many threads as torch has.

    Logits differ from those of torch in float32 by rounding: at most 1e-5 of the largest one.
    """

    def __init__(
        self, network: MultiExit, normalize: Normalize, image_size: tuple[int, int]
    ) -> None:
        """`image_size` is the height and width of the images. Raises MissingExtraError."""
        onnxruntime = load_onnxruntime()
        images = torch.zeros(2, *image_size, 3, dtype=torch.uint8)
        model = to_onnx(_Pixels(network, normalize).eval(), images, IMAGES, [LOGITS])
        options = session_options()
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def logits(self, images: Tensor) -> Tensor:
        """uint8 [n, H, W, 3] -> float32 [K, n, C]."""
        parts = [
            torch.from_numpy(self._session.run([LOGITS], {IMAGES: part.numpy()})[0])
            for part in torch.split(images.contiguous(), BATCH)
        ]
        return torch.cat(parts, dim=1)


class _Pixels(nn.Module):
    """uint8 [n, H, W, 3] -> float32 [K, n, C]."""

    def __init__(self, network: MultiExit, normalize: Normalize) -> None:
        super().__init__()
        self.network, self.normalize = network, normalize

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack(self.network(self.normalize(images)))
