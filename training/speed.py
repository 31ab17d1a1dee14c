"""What makes a step faster where the machine allows it."""

from __future__ import annotations

import torch

from training.errors import RecipeError
from training.step import Step


def use_tensor_cores() -> None:
    """Let a GPU multiply float32 in TF32 and try which convolution is fastest for a shape.

    Batches of a run all have one shape, or two with `progressive`, so the trial is soon over.
    """
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True


def compile_step(step: Step, device: torch.device) -> None:
    """Pass `step` through torch.compile, on a GPU with CUDA graphs; the first batches take longer.

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
