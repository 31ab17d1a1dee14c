"""Benchmarks of what bundles and policies promise, on images that the choice did not see."""
