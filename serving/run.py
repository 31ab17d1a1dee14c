"""`offramp serve` without Ray: the application, on Offramp's own HTTP server."""

from __future__ import annotations

import contextlib
import logging
import os
import sys

from serving.api.app import create_app
from serving.api.examples import sample_image
from serving.http.banner import banner, empty_banner
from serving.http.listener import bind, listen
from serving.http.server import Server, server_config
from serving.inference.providers import CPU, gpu_present
from serving.memory import fix_mmap_threshold, freeze_gc
from serving.reload import reload
from serving.service import Service
from serving.settings import Settings

try:
    import resource
except ImportError:  # not Unix
    resource = None  # type: ignore[assignment]

# Open files besides connections: bundles, logs, libraries.
SPARE_FILES = 256
log = logging.getLogger("offramp.serving")


def run_server(settings: Settings) -> None:
    """Load, listen and serve until a signal to stop. While models load, connections are refused.

    Raises SettingsError if the address is unavailable, and what loading raises, each in one sentence.
    """
    fix_mmap_threshold()
    # An address that is in use is reported before models are loaded.
    listener = bind(settings.host, settings.port)
    with listener:
        app = create_app(settings)
        service: Service = app.state.service
        # Before uvicorn runs the lifespan, which would print a traceback above the reason.
        service.load()
        freeze_gc()
        raise_file_limit(settings.max_connections + SPARE_FILES)
        server = Server(
            server_config(app, settings),
            settings,
            started=lambda host, port: announce(startup_banner(host, port, service)),
            drain=service.drain,
            reload=lambda: reload(service, app.state.admin_key),
        )
        listen(listener)
        server.run(sockets=[listener])


def startup_banner(host: str, port: int, service: Service) -> str:
    """What to print once the server listens."""
    models = list(service.models)
    if not models:
        settings = service.settings
        return empty_banner(host, port, str(settings.repository), watched=settings.watch)
    spec = models[0].engine.manifest.input
    return banner(
        host,
        port,
        [model.name for model in models],
        sample_image(spec.width, spec.height),
        idle_gpu=models[0].engine.provider == CPU and gpu_present(),
    )


def announce(text: str) -> None:
    """Print `text`, unless standard output is full or gone, which is no reason not to serve."""
    # Not print: what it cannot write stays in its buffer and fails again at the end of the process.
    with contextlib.suppress(OSError):
        os.write(sys.stdout.fileno(), f"{text}\n".encode())


def raise_file_limit(files: int) -> None:
    """Raise the process's limit of open files to `files`, as far as the system allows; on Windows nothing is
    raised."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= files or soft == resource.RLIM_INFINITY:
        return
    allowed = files if hard == resource.RLIM_INFINITY else min(files, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < files:
        log.warning(
            "the system allows %d open files; lower max_connections or raise its limit to %d",
            allowed,
            files,
        )
