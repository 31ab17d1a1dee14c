"""`offramp inspect`. It is part of serving because it opens the graphs as the server does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from exports.bundle.inspection import Inspection

SOURCE = "A directory, a packed file, or https://…#sha256=…"


def inspect(
    bundle: Annotated[str, typer.Argument(help=SOURCE)],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Verify a bundle and show its contents."""
    import orjson
    from rich.console import Console

    from exports.bundle.inspection import inspect_bundle
    from exports.bundle.resolve import resolve_bundle
    from exports.bundle.summary import summary

    found = inspect_bundle(resolve_bundle(bundle))
    opened, (verified, gears_verified) = _open(found), _verify(found)
    if as_json:
        content = found.to_json(bundle, opened, verified, gears_verified)
        typer.echo(orjson.dumps(content).decode())
        return
    Console().print(summary(found, opened, verified, gears_verified))


def _verify(found: Inspection) -> tuple[bool | None, bool | None]:
    """Whether the certificates and the gears are verified by the bundle, None if there are none; raises
    BundleError if one is contradicted."""
    from exports.tuning.preview import PolicyPreview
    from serving.models.certificates import CertificateVerifier
    from serving.models.gears import verified_gears

    bundle = found.bundle
    table = PolicyPreview(bundle.path, bundle.manifest)
    certified = CertificateVerifier().verify(bundle.policy, bundle.manifest, table)
    plan = bundle.gears
    return certified, None if plan is None else verified_gears(plan, bundle.manifest, table)


def _open(found: Inspection) -> bool:
    """Open every graph in onnxruntime if it is installed; raises BundleError if one is broken."""
    from offramp.errors import MissingExtraError
    from serving.inference.sessions import open_graph, open_sessions

    try:
        open_sessions(found.bundle, threads=1, provider="cpu")
    except MissingExtraError:
        return False
    bundle = found.bundle
    for entry, content in zip(bundle.manifest.graphs, found.graphs, strict=True):
        open_graph(bundle.path, bundle.manifest, entry, content)
    return True
