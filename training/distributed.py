"""Several processes train one network, each on its share of every batch: what `torchrun` starts.

The loss is a mean over samples and the shares are equal, so the mean of the processes' gradients is
the whole batch's; batch norm takes its statistics over all shares. A criterion that compares samples
with each other (SP, RKD, CC, PKT) sees its process's share only; one that remembers them (CRD)
remembers those of the first process.
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
    """How many processes train together, and which of them (0-based) this one is."""

    rank: int = 0
    count: int = 1

    @classmethod
    def current(cls) -> DistContext:
        """Those `joined` brought together, or this one alone."""
        if not distributed.is_initialized():
            return ALONE
        return cls(distributed.get_rank(), distributed.get_world_size())

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes, prints and evaluates."""
        return self.rank == 0

    def share(self, batch_size: int) -> slice:
        """This process's part of a batch. Raises RecipeError if the parts would not be equal."""
        size, rest = divmod(batch_size, self.count)
        if rest:
            raise RecipeError(
                f"train.batch_size {batch_size} cannot be shared evenly by {self.count} processes."
            )
        return slice(self.rank * size, (self.rank + 1) * size)

    def parallel(self, step: Step) -> nn.Module:
        """`step` so that its gradients are those of the whole batch, in every process."""
        if self.count == 1:
            return step
        # A comparator may leave some of the weights, its own or the student's, out of its loss.
        partial = not isinstance(step.criterion, ExitCriterion)
        return DistributedDataParallel(step, find_unused_parameters=partial)

    def mean(self, value: Tensor) -> Tensor:
        """The mean of the processes' `value`, of any shape; changes `value` itself."""
        if self.count > 1:
            distributed.all_reduce(value)
            value /= self.count
        return value

    def wait(self) -> None:
        """Go on when all processes have come here."""
        if self.count > 1:
            distributed.barrier()

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """The first process goes through the block before the others do."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()


ALONE = DistContext()


@contextmanager
def joined(device: str) -> Iterator[None]:
    """Join the processes that torchrun started to train on `device`; alone, do nothing.

    An error in one process ends them all, and only the first to fail reports it: the others leave
    with SystemExit.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    target = choose_device(device)
    if target.type == "cuda":
        torch.cuda.set_device(target)
    store, rank, count = next(rendezvous("env://"))
    distributed.init_process_group(
        "nccl" if target.type == "cuda" else "gloo",
        store=PrefixStore("train", store),
        rank=rank,
        world_size=count,
    )
    try:
        yield
        distributed.barrier()
    except BaseException as error:
        if not _first_to_fail(store):
            raise SystemExit(getattr(error, "exit_code", 1)) from error
        if isinstance(error, distributed.DistError) or "gloo" in str(error):
            raise OfframpError(
                "another of the processes that train together has died; --resume goes on."
            ) from error
        raise
    distributed.destroy_process_group()


def choose_device(name: str) -> torch.device:
    """The torch device for "auto" (a GPU if there is one), "cpu" or "cuda".

    Of several processes on one machine, each gets the GPU of its number. Raises RecipeError if there
    is no such device.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise RecipeError(f"there is no --device {name}: give auto, cpu or cuda.")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise RecipeError("--device cuda was asked for, but torch sees no GPU.")
    number, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if number >= there:
        raise RecipeError(f"there are more processes on this machine than its {there} GPUs.")
    return torch.device("cuda", number)


def share_batch_norm(step: Step, device: torch.device) -> None:
    """Let all batch norms of student and criterion take their statistics over all processes."""
    for network in (step.student, step.criterion):
        if device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
            continue
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                module.__class__ = SharedBatchNorm  # weights, statistics and references stay


class SharedBatchNorm(_BatchNorm):
    """Batch norm over the samples of all processes, for CPUs: torch's SyncBatchNorm needs GPUs.

    [N, C, ...] -> the same shape and type, computed in the weights' type. All processes have the same N.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        exact, others = x.to(self.weight.dtype), [0, *range(2, x.dim())]
        own = torch.stack([exact.mean(others), exact.var(others, correction=0)])
        means, variances = _Gather.apply(own).unbind(1)
        mean = means.mean(0)
        variance = variances.mean(0) + (means - mean).square().mean(0)
        self._remember(mean.detach(), variance.detach(), len(means) * x.numel() // x.shape[1])
        shape = [1, -1] + [1] * (x.dim() - 2)
        scale = self.weight * (variance + self.eps).rsqrt()
        normal = (exact - mean.view(shape)) * scale.view(shape) + self.bias.view(shape)
        return normal.to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, values: int) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (values / (values - 1)), self.momentum)
        self.num_batches_tracked += 1

    def _check_input_dim(self, _: Tensor) -> None:
        """Any number of dimensions will do."""


class _Gather(torch.autograd.Function):
    """[...] of each process -> [P, ...] in all; what comes back for a row goes to its process."""

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
    except RuntimeError:  # whoever kept the store is gone already
        return False
