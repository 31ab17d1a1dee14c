"""What fills a cache: a classifier of uint8 images."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from training.models.multi_exit import MultiExit, Normalize
from training.speed import autocast


class Classifier(Protocol):
    """A teacher that takes pixels."""

    def logits(self, images: Tensor) -> Tensor:
        """uint8 [n, H, W, 3] -> float32 [K, n, C] on the same device."""
        ...


class NetworkClassifier:
    """A trained network in eval mode, in the precision that it has as an online teacher."""

    def __init__(
        self, network: MultiExit, normalize: Normalize, precision: str, device: torch.device
    ) -> None:
        network = network.to(device).to(memory_format=torch.channels_last)
        self._network = network.eval().requires_grad_(False)
        self._normalize = normalize.to(device)
        self._precision = precision

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """uint8 [n, H, W, 3] -> float32 [K, n, C]."""
        inputs = self._normalize(images).contiguous(memory_format=torch.channels_last)
        with autocast(self._precision, images.device):
            outputs = self._network(inputs)
        return torch.stack([logits.float() for logits in outputs])
