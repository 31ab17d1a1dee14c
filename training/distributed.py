"""Distributed training: processes started by `torchrun`, each with its share of every batch.

The loss is a mean over samples and the shares are equal, so the mean of the processes' gradients is
the gradient of the whole batch. Batch norm takes its statistics over all shares. A criterion that
compares samples with each other (SP, RKD, CC, PKT) sees its process's share only; one with a memory
bank (CRD) stores the samples of the first process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from offramp.errors import OfframpError
from training.errors import RecipeError
from training.objectives.exits import ExitCriterion
from training.step import Step


@dataclass(frozen=True)
class DistContext:
    """This process's rank (0-based) among the `world_size` processes that train together."""

    rank: int = 0
    world_size: int = 1

    @classmethod
    def current(cls) -> DistContext:
        """The group that `join_processes` joined, or a single process."""
        if not distributed.is_initialized():
            return SINGLE_PROCESS
        return cls(distributed.get_rank(), distributed.get_world_size())

    @property
    def is_main(self) -> bool:
        """Whether this process writes, prints and evaluates."""
        return self.rank == 0

    def share(self, batch_size: int) -> slice:
        """This process's share of a batch. Raises RecipeError if the shares would not be equal."""
        size, rest = divmod(batch_size, self.world_size)
        if rest:
            raise RecipeError(
                f"train.batch_size {batch_size} cannot be shared evenly by {self.world_size} processes."
            )
        return slice(self.rank * size, (self.rank + 1) * size)

    def parallel(self, step: Step) -> nn.Module:
        """`step`, with the gradients of the whole batch in every process."""
        if self.world_size == 1:
            return step
        # The loss of a distiller may not depend on all weights, its own or the student's.
        partial = not isinstance(step.criterion, ExitCriterion)
        return DistributedDataParallel(step, find_unused_parameters=partial)

    def mean(self, value: Tensor) -> Tensor:
        """The mean of `value`, of any shape, over the processes; in place."""
        if self.world_size > 1:
            distributed.all_reduce(value)
            value /= self.world_size
        return value

    def sum(self, value: Tensor) -> Tensor:
        """The sum of `value`, of any shape, over the processes; in place."""
        if self.world_size > 1:
            distributed.all_reduce(value)
        return value

    def from_main(self, value: Tensor) -> Tensor:
        """The main process's `value` in every process; all have one of the same shape. In place."""
        if self.world_size > 1:
            distributed.broadcast(value, src=0)
        return value

    def barrier(self) -> None:
        """Wait until all processes have reached this call."""
        if self.world_size > 1:
            distributed.barrier()

    @contextmanager
    def main_process_first(self) -> Iterator[None]:
        """The main process runs the block before the others do."""
        if not self.is_main:
            self.barrier()
        yield
        if self.is_main:
            self.barrier()


SINGLE_PROCESS = DistContext()


@contextmanager
def join_processes(device: str) -> Iterator[None]:
    """Join the processes that torchrun started to train on `device`; a single process does nothing.

    An error in one process ends them all. Only the first to fail reports it; the others raise
    SystemExit.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    target = choose_device(device)
    if target.type == "cuda":
        torch.cuda.set_device(target)
    store, rank, world_size = next(rendezvous("env://"))
    distributed.init_process_group(
        "nccl" if target.type == "cuda" else "gloo",
        store=PrefixStore("train", store),
        rank=rank,
        world_size=world_size,
    )
    try:
        yield
        distributed.barrier()
    except BaseException as error:
        if not _first_to_fail(store):
            raise SystemExit(getattr(error, "exit_code", 1)) from error
        if isinstance(error, distributed.DistError) or "gloo" in str(error):
            raise OfframpError(
                "another training process has died; add --resume to the same command to go on."
            ) from error
        raise
    distributed.destroy_process_group()


def choose_device(name: str) -> torch.device:
    """The torch device for "auto" (a GPU if there is one), "cpu" or "cuda".

    Of several processes on one machine, each gets the GPU of its local rank. Raises RecipeError if
    there is no such device.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise RecipeError(f"there is no --device {name}: give auto, cpu or cuda.")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise RecipeError("--device cuda needs a GPU, but torch finds none.")
    local_rank, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local_rank >= gpus:
        raise RecipeError(f"there are more processes on this machine than its {gpus} GPUs.")
    return torch.device("cuda", local_rank)


def sync_batch_norm(step: Step, device: torch.device) -> None:
    """Make all batch norms of student and criterion use the statistics of all processes."""
    for network in (step.student, step.criterion):
        if device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
            continue
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                module.__class__ = CpuSyncBatchNorm  # keeps weights, statistics and references


class CpuSyncBatchNorm(_BatchNorm):
    """Batch norm over the samples of all processes, on CPUs; torch's SyncBatchNorm needs GPUs.

    [N, C, ...] -> the same shape and type, computed in the weights' type. N is the same everywhere.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        exact, reduced = x.to(self.weight.dtype), [0, *range(2, x.dim())]
        own = torch.stack([exact.mean(reduced), exact.var(reduced, correction=0)])
        means, variances = _AllGather.apply(own).unbind(1)
        mean = means.mean(0)
        variance = variances.mean(0) + (means - mean).square().mean(0)
        self._update_statistics(
            mean.detach(), variance.detach(), len(means) * x.numel() // x.shape[1]
        )
        shape = [1, -1] + [1] * (x.dim() - 2)
        scale = self.weight * (variance + self.eps).rsqrt()
        normal = (exact - mean.view(shape)) * scale.view(shape) + self.bias.view(shape)
        return normal.to(x.dtype)

    @torch.no_grad()
    def _update_statistics(self, mean: Tensor, variance: Tensor, values: int) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (values / (values - 1)), self.momentum)
        self.num_batches_tracked += 1

    def _check_input_dim(self, _: Tensor) -> None:
        """Accepts any number of dimensions."""


class _AllGather(torch.autograd.Function):
    """[...] of each process -> [P, ...] in all; the gradient of a row goes to its process."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        rows = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
        distributed.all_gather(rows, own)
        return torch.stack(rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        distributed.all_reduce(gradient)
        return gradient[distributed.get_rank()]


def _first_to_fail(store: Store) -> bool:
    try:
        return store.add("failed", 1) == 1
    except RuntimeError:  # the process that holds the store has ended
        return False
