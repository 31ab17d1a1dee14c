"""SqueezeNet of torchvision as ONNX files: a stock architecture, with weights that take no training.

The layers have torchvision's random first weights. The last convolution is fitted to images of
`tests.exports.imported.classifiers` by least squares.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import interpolate

from tests.exports.imported.classifiers import CLASSES, IMAGENET, coloured_images

FITTED_IMAGES = 150  # of each class


def write_squeezenet(path: Path, side: int) -> Path:
    """SqueezeNet 1.1 for images of `side` pixels, normalised as ImageNet's; any batch."""
    torch.manual_seed(0)
    network = torchvision.models.squeezenet1_1(num_classes=len(CLASSES)).eval()
    _, classifier, _, _ = network.classifier
    fit(network.features, classifier, side)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(1, 3, side, side),),
            path,
            input_names=["pixels"],
            output_names=["scores"],
            dynamic_axes={"pixels": {0: "n"}, "scores": {0: "n"}},
            dynamo=False,
        )
    return path


def prepared(images: NDArray[np.uint8], side: int) -> Tensor:
    """The network's input for images uint8 [N, H, W, 3]."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in IMAGENET)
    small = interpolate(pixels, size=(side, side), mode="bilinear", antialias=True)
    return (small - mean) / std


@torch.no_grad()
def fit(features: nn.Module, classifier: nn.Module, side: int) -> None:
    """Ridge regression of `classifier`, whose logits are to be 15 for the class and 5 for the others."""
    images = coloured_images(FITTED_IMAGES, seed=7)
    values = features(prepared(images, side)).mean((2, 3)).double()
    centred = values - values.mean(0)
    labels = torch.arange(len(CLASSES)).repeat_interleave(FITTED_IMAGES)
    wanted = 10 * torch.eye(len(CLASSES), dtype=torch.float64)[labels] - 2.5
    gram = centred.T @ centred
    ridge = 0.1 * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
    weights = torch.linalg.solve(gram + ridge, centred.T @ wanted).T
    classifier.weight.copy_(weights.reshape(classifier.weight.shape))
    classifier.bias.copy_(7.5 - weights @ values.mean(0))
