"""The moving average of a network's weights, which is evaluated and kept instead of the last ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """The exponential moving average of the floating-point weights and batch norm statistics of `network`.

    After step t (counted from 1) the average keeps min(`decay`, (1 + t) / (10 + t)) of itself, so that the
    first weights are soon forgotten, as TensorFlow's ExponentialMovingAverage does with `num_updates`.
    `steps` are those done before, of a resumed run.
    """

    def __init__(self, network: nn.Module, decay: float, steps: int = 0) -> None:
        self._network, self._decay, self._steps = network, decay, steps
        self.tensors = {name: tensor.clone() for name, tensor in self._current().items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after one more step."""
        self._steps += 1
        keep = min(self._decay, (1 + self._steps) / (10 + self._steps))
        for name, tensor in self._current().items():
            self.tensors[name].lerp_(tensor, 1 - keep)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside the block the network has the averaged weights."""
        before = {name: tensor.clone() for name, tensor in self._current().items()}
        self.apply()
        try:
            yield
        finally:
            self._set(before)

    def apply(self) -> None:
        """Give the network the averaged weights."""
        self._set(self.tensors)

    def _current(self) -> dict[str, Tensor]:
        state = self._network.state_dict()
        return {name: tensor for name, tensor in state.items() if tensor.is_floating_point()}

    @torch.no_grad()
    def _set(self, tensors: dict[str, Tensor]) -> None:
        for name, tensor in self._current().items():
            tensor.copy_(tensors[name])
