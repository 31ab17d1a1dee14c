"""Makes the bundles with the commands that a user has, each once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.grocery.classifier import write_classifier
from exports.bundle.manifest import MANIFEST
from exports.front.build import FrontOptions, build_front
from exports.imported.cascade import CascadeOptions, build_cascade
from exports.imported.labels import read_labels
from exports.imported.options import NetworkOptions
from exports.options import ExportOptions, Precision
from training.checkpoint import CONFIG

LARGE, SMALL, FRONT = "grocery-lite2", "grocery-lite0", "lite2-front"
PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
ALONE, FRONTED, CASCADE, UNCHECKED = "alone", "front", "cascade", "front-on-training-images"


@dataclass(frozen=True)
class Workplace:
    """`work` has what is made, `runs` the trained runs; `photos` has train, val and test."""

    work: Path
    runs: Path
    photos: Path

    def network(self, name: str, run: str) -> Path:
        """The last exit of `run` as an ONNX file, written if it is missing."""
        file = self.work / name / f"{name}.onnx"
        return file if file.is_file() else write_classifier(self.runs / run, self.work / name)

    @property
    def small_run(self) -> str:
        """The run whose last exit is the small network of the cascade: of lite0.toml, else the front."""
        return SMALL if (self.runs / SMALL / CONFIG).is_file() else FRONT

    def bundle(self, kind: str, precision: Precision) -> Path:
        """The bundle `kind` in `precision`, calibrated on val, made if it is missing.

        UNCHECKED is the front as it is made without `--calibrate`.
        """
        # Another small network gives another cascade.
        network = f"-{self.small_run}" if kind == CASCADE else ""
        target = self.work / f"{kind}{network}-{precision}"
        if (target / MANIFEST).is_file():
            return target
        large = self.network("lite2", LARGE)
        own = NetworkOptions(labels=read_labels(large.parent / "labels.txt"))
        export = ExportOptions(precision=precision, allow_loss=True)
        val = self.photos / "val"
        if kind in (FRONTED, UNCHECKED):
            options = FrontOptions(
                calibrate=val if kind == FRONTED else None,
                runs=self.runs,
                device="cpu",
                resume=True,
                allow_no_saving=True,
            )
            build_front(large, own, self.photos / "train", target, options, export)
            return target
        networks = [large]
        if kind == CASCADE:
            networks.insert(0, self.network(f"small-{self.small_run}", self.small_run))
        options_of_all = CascadeOptions(allow_no_saving=True)
        build_cascade(networks, [own] * len(networks), val, target, options_of_all, export)
        return target
