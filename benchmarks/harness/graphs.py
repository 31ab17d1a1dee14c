"""ONNX graphs on one thread, for measuring their times."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from offramp.onnx_runtime import load_onnxruntime, session_options


def run_on_one_thread(onnx: bytes, inputs: np.ndarray) -> Callable[[], object]:
    """A run of the graph `onnx` on `inputs`, in the thread that calls it. It has run once."""
    options = session_options()
    options.intra_op_num_threads = 1
    session = load_onnxruntime().InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    (name,) = (entry.name for entry in session.get_inputs())
    session.run(None, {name: inputs})
    return lambda: session.run(None, {name: inputs})
