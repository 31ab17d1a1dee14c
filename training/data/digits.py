"""scikit-learn's handwritten digits: 1,797 grey images of 8 pixels, for runs that need no download."""

from __future__ import annotations

import numpy as np

from offramp.extras import needs_extra
from training.data.dataset import Dataset, Split, hold_out

TEST_SIZE = 400
SIDE = 16


def load_digits() -> Dataset:
    """The digits as RGB uint8 of 16 pixels (each pixel doubled), 1,397 to train and 400 to test.

    With doubled pixels a network's last feature map is 2x2. The split is fixed.
    """
    with needs_extra("train", "scikit-learn"):
        from sklearn.datasets import load_digits as load
    raw = load()
    grey = np.round(raw.images * (255.0 / 16.0)).astype(np.uint8)
    scale = SIDE // grey.shape[1]
    images = np.repeat(grey.repeat(scale, 1).repeat(scale, 2)[..., None], 3, axis=3)
    labels = raw.target.astype(np.int64)
    train, test = hold_out(labels, TEST_SIZE, seed=0)
    whole = Split(images, labels)
    pixels = images[train] / 255.0
    mean, std = float(pixels.mean()), float(pixels.std())
    return Dataset(
        name="digits",
        train=whole.take(train),
        test=whole.take(test),
        classes=tuple(str(digit) for digit in range(10)),
        mean=(mean, mean, mean),
        std=(std, std, std),
    )
