"""The choice of onnxruntime's execution provider: the CPU, or CUDA where it works."""

from __future__ import annotations

import ctypes
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from serving.errors import SettingsError
from serving.settings import Provider

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
# Part of every NVIDIA driver, and of no Python package.
DRIVER = "libcuda.so.1"


def gpu_present() -> bool:
    """Whether this machine seems to have an NVIDIA GPU."""
    # In a container, the first device may be another one than nvidia0.
    return any(Path("/dev").glob("nvidia[0-9]*")) or shutil.which("nvidia-smi") is not None


def requested_providers(ort: Any, provider: Provider) -> list[str]:
    """The providers to open a session with, preferred first, for the setting `provider`.

    Loads the CUDA libraries if they may be used. Raises SettingsError if `cuda` is set but unavailable.
    """
    # onnxruntime's GPU wheel lists CUDA on machines without a GPU, too.
    if provider == "cpu" or (provider == "auto" and not gpu_present()):
        return [CPU]
    if CUDA not in ort.get_available_providers():
        if provider == "auto":
            return [CPU]
        raise SettingsError(
            "The provider cuda was asked for, but this onnxruntime is for CPUs; "
            "install the other one with: pip uninstall onnxruntime && pip install 'offramp[gpu]'."
        )
    if provider == "cuda" and sys.platform == "linux" and not _can_load(DRIVER):
        raise SettingsError(
            f"The provider cuda was asked for, but there is no NVIDIA driver here ({DRIVER}); "
            "a container gets the host's with: docker run --gpus all."
        )
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    return [CUDA, CPU]


def active_provider(sessions: Sequence[Any], provider: Provider) -> str:
    """CUDA if all `sessions` run on it, else CPU. Raises SettingsError if `cuda` is set but not used."""
    active = {str(session.get_providers()[0]) for session in sessions}
    if provider == "cuda" and active != {CUDA}:
        raise SettingsError(
            "The provider cuda was asked for, but onnxruntime fell back to the CPU; "
            "CUDA 13 and cuDNN 9 come with: pip install 'offramp[gpu]'."
        )
    return CUDA if active == {CUDA} else CPU


def _can_load(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
