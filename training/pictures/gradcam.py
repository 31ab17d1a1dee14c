"""Class-activation maps: which parts of an image support a class at an exit."""

from __future__ import annotations

import torch
from torch import Tensor

from training.models.multi_exit import MultiExit


def class_activation(network: MultiExit, inputs: Tensor, exit_: int, classes: Tensor) -> Tensor:
    """Grad-CAM of exit `exit_` (1-based), one class per image: float32 [N, H, W] in 0..1.

    `inputs` are normalised images [N, 3, height, width] for a network in eval mode, `classes` int64
    [N]; H and W are those of the features that the exit's head reads. Selvaraju et al. 2017,
    "Grad-CAM": by eq. 1 a channel's weight is the gradient of the class's logit by its features,
    averaged over positions; eq. 2 is the ReLU of the weighted sum of the channels.

    Each map is divided by its own peak, so the strength of maps cannot be compared. If nothing
    supports the class, the map is 0 everywhere.
    """
    features = inputs
    with torch.no_grad():
        for segment in network.segments()[:exit_]:
            features = segment(features)
    features = features.detach().requires_grad_()
    logits = network.heads[exit_ - 1](features)
    # In eval mode images are independent, so the gradient of the sum is each image's own.
    (gradient,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), features)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    maps = (weights * features.detach()).sum(dim=1).relu()
    peaks = maps.amax(dim=(1, 2), keepdim=True)
    return torch.where(peaks > 0, maps / peaks, 0.0).float()
