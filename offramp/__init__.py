"""Offramp: multi-exit image classifiers, distilled, exported and served."""

import os

# From version 1.31 on, onnxruntime's packages send telemetry with an id of the machine. Set the variable
# to 0 to allow that. It must be set before onnxruntime is loaded, hence here.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
