"""`offramp serve`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from offramp.extras import needs_extra

if TYPE_CHECKING:
    from serving.settings import Settings


# Those of serving.settings and serving.ray, which import what `offramp --help` need not wait for.
Provider = Literal["cpu", "cuda", "auto"]
RayForm = Literal["replicas", "stages"]


def serve(
    bundles: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[BUNDLE]...",
            help="Directories, packed files or https://…#sha256=…; by default the embedded ones.",
        ),
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on (default: 127.0.0.1).")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port, 0 for any free one (default: 8000).")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads within a stage (default: 1).")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Compute workers (default: one per core).")
    ] = None,
    target_p99_ms: Annotated[
        float | None,
        typer.Option(help="Hold this p99 by cheaper gears; needs tune --gears and a floor."),
    ] = None,
    accuracy_floor: Annotated[
        float | None, typer.Option(help="Least accuracy of a gear, percent.")
    ] = None,
    provider: Annotated[Provider | None, typer.Option(help="Where to run (default: cpu).")] = None,
    repository: Annotated[
        Path | None, typer.Option(help="A directory of bundles to serve and to load from.")
    ] = None,
    watch: Annotated[
        bool | None, typer.Option("--watch", help="Load and unload as the repository changes.")
    ] = None,
    canary: Annotated[
        str | None, typer.Option(help="A second version of a model, for a share of its requests.")
    ] = None,
    canary_share: Annotated[
        float | None, typer.Option(help="Share of requests for the canary (default: 0.1).")
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help="A file with the key for admin routes.")
    ] = None,
    budgets: Annotated[
        Path | None, typer.Option(help="A TOML file with clients' keys and compute budgets.")
    ] = None,
    access_log: Annotated[
        bool | None, typer.Option("--access-log", help="Print a line of JSON per request.")
    ] = None,
    max_connections: Annotated[
        int | None, typer.Option(help="Most open connections (default: 1024).")
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(help="An origin whose pages may use the server; again for more."),
    ] = None,
    root_path: Annotated[
        str | None, typer.Option(help="The path under which a proxy serves this server.")
    ] = None,
    forwarded_allow_ips: Annotated[
        str | None,
        typer.Option(
            help="Addresses of proxies whose X-Forwarded-For is used, separated by spaces."
        ),
    ] = None,
    record: Annotated[
        Path | None, typer.Option(help="A directory to record answers in, for tune --from.")
    ] = None,
    record_full_share: Annotated[
        float | None,
        typer.Option(help="Share of recorded requests that run all exits (default: 0.1)."),
    ] = None,
    record_images: Annotated[
        bool | None, typer.Option("--record-images", help="Record the images as well.")
    ] = None,
    shadow_share: Annotated[
        float | None,
        typer.Option(help="Share of early answers checked against full depth; off by default."),
    ] = None,
    jobs: Annotated[
        Path | None, typer.Option(help="A directory for jobs of many images; off by default.")
    ] = None,
    job_callback_host: Annotated[
        list[str] | None,
        typer.Option(help="A host that may be notified of finished jobs; again for more."),
    ] = None,
    otel: Annotated[
        bool | None, typer.Option("--otel", help="Trace requests with OpenTelemetry.")
    ] = None,
    on_ray: Annotated[bool, typer.Option("--ray", help="Serve on a Ray cluster.")] = False,
    form: Annotated[
        RayForm, typer.Option(help="With --ray: whole replicas, or a deployment per stage.")
    ] = "replicas",
) -> None:
    """Serve bundles over HTTP. Every flag, and more, can be set as OFFRAMP_… in the environment."""
    import logging
    import warnings

    from serving.settings import read_settings

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    # It logs a line for every malformed body, which is answered and counted.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    # Pillow warns of every odd tag of an image, and Python remembers the text of each warning.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    # A line for every model that is loaded or unloaded.
    logging.getLogger("offramp.models").setLevel(logging.INFO)
    # A line for every shift.
    logging.getLogger("offramp.gears").setLevel(logging.INFO)
    # A line for every canary that begins or ends.
    logging.getLogger("offramp.canary").setLevel(logging.INFO)
    settings = read_settings(
        bundles=tuple(bundles) if bundles else None,
        host=host,
        port=port,
        threads=threads,
        workers=workers,
        target_p99_ms=target_p99_ms,
        accuracy_floor=accuracy_floor,
        provider=provider,
        repository=repository,
        watch=watch,
        canary=canary,
        canary_share=canary_share,
        api_key_file=api_key_file,
        budgets=budgets,
        access_log=access_log,
        max_connections=max_connections,
        cors_origins=tuple(cors_origin) if cors_origin else None,
        root_path=root_path,
        forwarded_allow_ips=forwarded_allow_ips,
        record=record,
        record_full_share=record_full_share,
        record_images=record_images,
        shadow_share=shadow_share,
        jobs=jobs,
        job_callback_hosts=tuple(job_callback_host) if job_callback_host else None,
        otel=otel,
    )
    if on_ray:
        _serve_on_ray(settings, form)
        return
    from serving.loading_signals import loading_signals

    with loading_signals():
        # This import takes a second.
        from serving.run import run_server

        run_server(settings)


def _serve_on_ray(settings: Settings, form: RayForm) -> None:
    with needs_extra("ray"):
        from serving.ray.launch import run
    run(settings, form)
