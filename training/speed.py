"""Faster steps: bfloat16, TF32, the fastest convolutions, memory that is kept, torch.compile."""

from __future__ import annotations

import ctypes
import sys

import torch
from torch import nn

from training.errors import RecipeError

# Of glibc's malloc.h: no block of its own mapping (M_MMAP_MAX), up to 2 GiB free at the end of the heap
# (M_TRIM_THRESHOLD), and a heap that grows by 64 MiB (M_TOP_PAD).
_GLIBC_OPTIONS = ((-4, 0), (-1, 2**31 - 1), (-2, 64 * 2**20))


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Autocast to bfloat16 if `device` computes in it under a recipe's `precision`."""
    enabled = arithmetic(precision, device) == "bf16"
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def arithmetic(precision: str, device: torch.device) -> str:
    """What `device` computes in under a recipe's `precision`: "bf16" only if it has instructions for it, as
    NVIDIA's GPUs from Ampere on and x86 processors with AVX-512 BF16 have, else "fp32".

    Others emulate bfloat16: a step took 1.6 to 13 times as long as in float32 (docs/design/decisions.md).
    """
    if device.type == "cuda":
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has_bf16 = bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
    return "bf16" if precision == "bf16" and has_bf16 else "fp32"


def use_tensor_cores() -> None:
    """Allow TF32 for float32 on a GPU and let cuDNN benchmark convolutions.

    Batches of a run have one shape, or two with `progressive`, so benchmarking ends quickly.
    """
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True


def keep_freed_memory() -> None:
    """Let the C library keep the memory that a step frees, for the next step.

    glibc gives large blocks back to the kernel, which fills every page with zeros when the next step asks
    for them again. Other C libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for option, value in _GLIBC_OPTIONS:
            mallopt(option, value)


def compile_step(step: nn.Module, device: torch.device) -> None:
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
