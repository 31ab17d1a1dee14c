"""Verification of a whole bundle, and what `offramp inspect` shows of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exports.bundle.manifest import CARD, GEARS, MANIFEST, POLICY
from exports.bundle.reader import Bundle, load_bundle, read_graph
from exports.bundle.routed_rule import routed_remark
from offramp.file_names import shown_name


@dataclass(frozen=True)
class Inspection:
    """A verified bundle. `graphs` are the bytes of the whole-network graphs, in the manifest's order;
    `sizes` maps the name of every file to its bytes; `unknown` are files that the manifest does not list."""

    bundle: Bundle
    graphs: tuple[bytes, ...]
    sizes: dict[str, int]
    unknown: tuple[str, ...]

    @property
    def promise(self) -> str | None:
        """The policy's certificate as a sentence, or None."""
        certificate = self.bundle.policy.certificate
        return None if certificate is None else certificate.sentence

    @property
    def precision_promise(self) -> str | None:
        """The policy's certificate of precision as a sentence, or None."""
        certificate = self.bundle.policy.precision_certificate
        return None if certificate is None else certificate.sentence

    @property
    def routed_remarks(self) -> tuple[str, ...]:
        """A sentence for each routed graph that may not be run with the policy's thresholds."""
        entries = self.bundle.manifest.graphs
        remarks = (
            routed_remark(entry.file, graph, self.bundle.policy)
            for entry, graph in zip(entries, self.graphs, strict=True)
            if entry.kind == "routed"
        )
        return tuple(remark for remark in remarks if remark is not None)

    def to_json(
        self, source: str, opened: bool, verified: bool | None, gears_verified: bool | None
    ) -> dict[str, Any]:
        """The output of `offramp inspect --json`; `opened`: whether onnxruntime opened the graphs,
        `verified`: whether the policy's certificates are verified, if there are any, `gears_verified`:
        whether the gears are."""
        gears = self.bundle.gears
        return {
            "source": shown_name(source),
            "verified": True,
            "opened": opened,
            "manifest": self.bundle.manifest.model_dump(mode="json"),
            "policy": self.bundle.policy.model_dump(mode="json"),
            "certificate": self.promise,
            "certificate_verified": verified,
            "precision_certificate": self.precision_promise,
            "gears": None if gears is None else gears.model_dump(mode="json"),
            "gears_verified": gears_verified,
            "routed": list(self.routed_remarks),
            "sizes": self.sizes,
            "unknown": list(self.unknown),
        }


def inspect_bundle(path: Path) -> Inspection:
    """Verify the bundle in `path`, including its whole-network graphs.

    Raises BundleError, in one sentence that names the file and the reason.
    """
    bundle = load_bundle(path)
    graphs = tuple(read_graph(path, entry) for entry in bundle.manifest.graphs)
    known = {MANIFEST, POLICY, GEARS, CARD, *bundle.manifest.files}
    sizes = {shown_name(file.name): file.lstat().st_size for file in sorted(path.iterdir())}
    return Inspection(
        bundle=bundle,
        graphs=graphs,
        sizes={name: size for name, size in sizes.items() if name in known},
        unknown=tuple(name for name in sizes if name not in known),
    )
