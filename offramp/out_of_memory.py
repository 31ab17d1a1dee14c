"""Recognising that an error of a library means too little memory."""

from __future__ import annotations

# Of Pillow and CUDA, of onnxruntime on a CPU and on a GPU, and of C++ libraries. They raise no MemoryError.
PHRASES = ("out of memory", "failed to allocate memory", "available memory of", "bad_alloc")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` is a MemoryError, or its text says the same."""
    if isinstance(error, MemoryError):
        return True
    text = str(error).lower()
    return any(phrase in text for phrase in PHRASES)
