"""A plain training loop to compare with: torchvision's transforms in a DataLoader's workers, float32."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms

from training.data.dataset import Split
from training.models.build import build_network
from training.objectives.losses import oto

CLASSES = 100
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
# Batches before the clock starts.
WARM_UP_BATCHES = 3


class PlainLoop:
    """A student that learns exit by exit from a teacher of the same shape."""

    def __init__(self, arguments: argparse.Namespace, device: torch.device, images: Split) -> None:
        self._device, self._arguments = device, arguments
        shape = (arguments.network, arguments.width, CLASSES, [1, 2, 3, 4])
        self._teacher = build_network(*shape).to(device).eval()
        self._student = build_network(*shape).to(device)
        self._optimizer = torch.optim.SGD(
            self._student.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4
        )
        self._loader = DataLoader(
            TransformedImages(images, WARM_UP_BATCHES * arguments.batch),
            arguments.batch,
            shuffle=True,
            num_workers=arguments.workers,
            pin_memory=device.type == "cuda",
            drop_last=True,
        )

    def seconds(self) -> float:
        """One pass over the images."""
        batches = iter(self._loader)
        for _ in range(WARM_UP_BATCHES):
            self._step(*next(batches))

        def rest() -> None:
            for images, labels in batches:
                self._step(images, labels)

        return timed(rest, self._device)

    def _step(self, images: Tensor, labels: Tensor) -> None:
        images = images.to(self._device, non_blocking=True)
        labels = labels.to(self._device, non_blocking=True)
        self._student.train()
        with torch.no_grad():
            taught = self._teacher(images)
        loss = oto(self._student(images), taught, labels, temperature=4.0, alpha=0.9)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()


class TransformedImages(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """Images transformed one at a time by torchvision; the first `more` are repeated at the end."""

    def __init__(self, images: Split, more: int) -> None:
        self._images, self._more = images, more
        self._transform = transforms.Compose(
            [
                transforms.RandomCrop(images.images.shape[1], padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self._images) + self._more

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        index %= len(self._images)
        image = Image.fromarray(self._images.images[index])
        return self._transform(image), int(self._images.labels[index])


def timed(work: Callable[[], None], device: torch.device) -> float:
    """Seconds that `work` takes, the device included."""
    began = now(device)
    work()
    return now(device) - began


def now(device: torch.device) -> float:
    """The time after all work on `device` is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
