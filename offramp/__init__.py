"""Offramp: multi-exit image classifiers, distilled, exported and served."""

import os

# onnxruntime's own packages report to their maker from 1.31 on, and keep an id of the machine for it. Whoever
# wants that sets the variable to 0. It must stand before onnxruntime is loaded, hence here.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
