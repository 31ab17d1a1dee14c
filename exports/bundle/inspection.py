"""Everything a bundle says about itself, after every file of it was verified."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exports.bundle.manifest import CARD, MANIFEST, POLICY
from exports.bundle.reader import Bundle, load_bundle, read_graph


@dataclass(frozen=True)
class Inspection:
    """A verified bundle: `graphs` are the whole-network graphs' bytes, in the manifest's order;
    `sizes` has every file's bytes by name, `unknown` the names the manifest does not account for."""

    bundle: Bundle
    graphs: tuple[bytes, ...]
    sizes: dict[str, int]
    unknown: tuple[str, ...]

    @property
    def promise(self) -> str | None:
        """The policy's certificate as a sentence."""
        certificate = self.bundle.policy.certificate
        return None if certificate is None else certificate.sentence

    def to_json(self, source: str, opened: bool) -> dict[str, Any]:
        """What `offramp inspect --json` prints; `opened`: whether onnxruntime opened the graphs."""
        return {
            "source": source,
            "verified": True,
            "opened": opened,
            "manifest": self.bundle.manifest.model_dump(mode="json"),
            "policy": self.bundle.policy.model_dump(mode="json"),
            "certificate": self.promise,
            "sizes": self.sizes,
            "unknown": list(self.unknown),
        }


def inspect_bundle(path: Path) -> Inspection:
    """Verify the bundle in `path`, its whole-network graphs included.

    Raises BundleError, in one sentence that names the file and the reason.
    """
    bundle = load_bundle(path)
    graphs = tuple(read_graph(path, entry) for entry in bundle.manifest.graphs)
    known = {MANIFEST, POLICY, *bundle.manifest.files}
    found = {entry.name: entry.lstat().st_size for entry in sorted(path.iterdir())}
    return Inspection(
        bundle=bundle,
        graphs=graphs,
        sizes={name: size for name, size in found.items() if name in known | {CARD}},
        unknown=tuple(name for name in found if name not in known | {CARD}),
    )
