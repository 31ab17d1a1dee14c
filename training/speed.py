"""Faster steps: TF32, the fastest convolutions, torch.compile."""

from __future__ import annotations

import torch

from training.errors import RecipeError
from training.step import Step


def use_tensor_cores() -> None:
    """Allow TF32 for float32 on a GPU and let cuDNN benchmark convolutions.

    Batches of a run have one shape, or two with `progressive`, so benchmarking ends quickly.
    """
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True


def compile_step(step: Step, device: torch.device) -> None:
    """Compile `step` with torch.compile, on a GPU with CUDA graphs. The first batches take longer.

    Raises RecipeError if this machine has no compiler that torch can use.
    """
    mode = "reduce-overhead" if device.type == "cuda" else "default"
    try:
        torch.compile(_probe, mode=mode)(torch.ones(8, device=device))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise RecipeError(
            f"--compile needs a compiler that torch can use here ({reason}); leave it out."
        ) from error
    step.compile(mode=mode)


def _probe(x: torch.Tensor) -> torch.Tensor:
    return x.sin() + x.cos()
