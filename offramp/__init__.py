"""Offramp: multi-exit image classifiers, distilled, exported and served."""

__version__ = "0.1.0"
