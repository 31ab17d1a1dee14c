"""Predictions and accuracies of a multi-exit network."""

from __future__ import annotations

import torch
from torch import Tensor

from training.checkpoint import ExitAccuracies
from training.data.batches import DeviceDataset
from training.models.multi_exit import MultiExit, Normalize
from training.step import Step


@torch.no_grad()
def predict(
    network: MultiExit, normalize: Normalize, data: DeviceDataset, pixels: int = 256 * 64 * 64
) -> Tensor:
    """Logits of every exit, float32 [K, N, C], on the CPU, computed in float32 and eval mode.

    A batch has at most 256 images and about `pixels` pixels. The network's mode is restored.
    """
    _, height, width, _ = data.images.shape
    batch_size = max(1, min(256, pixels // (height * width)))
    was_training = network.training
    network.eval()
    parts = [
        torch.stack(network(normalize(images))).cpu() for images, _ in data.in_order(batch_size)
    ]
    network.train(was_training)
    return torch.cat(parts, dim=1)


def accuracies(logits: Tensor, labels: Tensor) -> ExitAccuracies:
    """Top-1 accuracies of logits [K, N, C] against labels [N], in percent."""
    labels = labels.cpu()

    def percent(scores: Tensor) -> float:
        return round(100.0 * (scores.argmax(-1) == labels).double().mean().item(), 2)

    return ExitAccuracies(
        exits=tuple(percent(scores) for scores in logits), ensemble=percent(logits.mean(0))
    )


def measure(step: Step, data: DeviceDataset) -> ExitAccuracies | None:
    """The accuracies of the step's student on `data`; None if that is empty."""
    if not len(data):
        return None
    return accuracies(predict(step.student, step.normalize, data), data.labels)
