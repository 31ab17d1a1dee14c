"""The twenty lines that `benchmarks/photographs.py` compares with: a fine-tune as one writes it by hand.

The backbone, its ImageNet weights and the number of epochs are those of `offramp train --data FOLDER`;
everything else is what torchvision's examples do. bfloat16 only saves time, on CPUs that have it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from training.models.efficientnet_lite import MEAN, STD, lite_backbone
from training.models.pretrained import load_pretrained
from training.speed import autocast

FINISH = [transforms.ToTensor(), transforms.Normalize((MEAN,) * 3, (STD,) * 3)]


def fine_tune(folder: Path, side: int, epochs: int, seed: int) -> nn.Module:
    """EfficientNet-Lite0 trained on `folder`/train: float32 [N, 3, side, side] -> logits [N, classes]."""
    torch.manual_seed(seed)
    crops = transforms.Compose(
        [transforms.RandomResizedCrop(side), transforms.RandomHorizontalFlip(), *FINISH]
    )
    training_set = ImageFolder(str(folder / "train"), crops)
    loader = DataLoader(training_set, batch_size=32, shuffle=True, drop_last=True)
    backbone = nn.Sequential(*lite_backbone("efficientnet-lite0").stages)
    with torch.no_grad():
        load_pretrained(backbone, "efficientnet-lite0", "imagenet")
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, len(training_set.classes))]
    network = nn.Sequential(backbone, *head).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(loader))
    for epoch in range(epochs):
        for images, labels in loader:
            with autocast("bf16", torch.device("cpu")):
                logits = network(images.contiguous(memory_format=torch.channels_last))
            loss = nn.functional.cross_entropy(logits.float(), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"short script: epoch {epoch + 1}/{epochs}, last loss {loss.item():.3f}", flush=True)
    return network.eval()


def test_images(folder: Path, side: int) -> ImageFolder:
    """The images of `folder`/test as the network takes them, with torchvision's usual resize and crop."""
    resize = [transforms.Resize(round(side * 8 / 7)), transforms.CenterCrop(side)]
    return ImageFolder(str(folder / "test"), transforms.Compose([*resize, *FINISH]))
