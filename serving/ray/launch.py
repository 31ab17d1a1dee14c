"""`offramp serve --ray`: the application on a new cluster, or on the one in RAY_ADDRESS."""

from __future__ import annotations

import logging
import os
import signal
import socket
from typing import Any

import ray
from ray import serve

from exports.bundle.reader import read_manifest
from exports.bundle.resolve import EMBEDDED, resolve_bundle
from serving.api.examples import sample_image
from serving.http.banner import banner
from serving.ray.app import build
from serving.ray.arguments import Form
from serving.settings import Settings, available_cores

APP = "offramp"
# For a new cluster on this machine. Only features between stages are kept there.
OBJECT_STORE_BYTES = 256 << 20
# Logical cores: one for each replica that the default scaling may start.
LOGICAL_CPUS = 32
# Ray's proxy ends requests that a lost replica leaves unanswered. Far above any wait that a replica
# accepts.
REQUEST_TIMEOUT_S = 60


def run(settings: Settings, form: Form) -> None:
    """Serve until SIGTERM or SIGINT; raises SettingsError, BundleError, or an error of Ray."""
    # Workers run in other working directories.
    named = settings.bundles or tuple(EMBEDDED)
    bundles = [os.path.abspath(b) if os.path.exists(b) else b for b in named]
    own = settings.model_dump(exclude_unset=True, exclude={"bundles", "port"})
    if settings.api_key is not None:
        own["api_key"] = settings.api_key.get_secret_value()
    if settings.api_key_file is not None:
        own["api_key_file"] = settings.api_key_file.absolute()
    application = build(
        {"form": form, "bundles": bundles, "settings": {**own, "host": settings.host}}
    )
    port = settings.port or free_port(settings.host)
    try:
        connect()
        # After Ray has installed its own handlers, which would end the process at once.
        signal.signal(signal.SIGTERM, _exit)
        signal.signal(signal.SIGINT, _exit)
        serve.start(
            http_options={
                "host": settings.host,
                "port": port,
                "request_timeout_s": REQUEST_TIMEOUT_S,
                "keep_alive_timeout_s": settings.keep_alive_seconds,
            }
        )
        serve.run(application, name=APP, route_prefix="/")
        manifests = [read_manifest(resolve_bundle(bundle)) for bundle in bundles]
        names, spec = [manifest.name for manifest in manifests], manifests[0].input
        print(banner(settings.host, port, names, sample_image(spec.width, spec.height)))
        print(f"It runs on Ray, in the form {form}; {_exporters()}", flush=True)
        while True:
            signal.pause()
    finally:
        # A second SIGINT does not wait for accepted requests.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        end()


def end() -> None:
    """End what this process has started; on an existing cluster, only the application."""
    if os.environ.get("RAY_ADDRESS"):
        serve.delete(APP)
    else:
        serve.shutdown()
    ray.shutdown()


def _exit(*_: object) -> None:
    raise SystemExit(0)


def connect() -> None:
    """Join the cluster in RAY_ADDRESS, or start one on this machine."""
    address = os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"logging_level": logging.WARNING, "log_to_driver": False}
    if address:
        ray.init(address, **options)
        return
    # No usage statistics of this cluster.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(
        "local",
        num_cpus=max(LOGICAL_CPUS, available_cores()),
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
        **options,
    )


def _exporters() -> str:
    nodes = [node for node in ray.nodes() if node["Alive"]]
    addresses = [
        f"http://{n['NodeManagerAddress']}:{n['MetricsExportPort']}/metrics" for n in nodes
    ]
    return f"metrics at {', '.join(addresses)}"


def free_port(host: str) -> int:
    """A port that is free now; Ray does not accept 0."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        port: int = listener.getsockname()[1]
        return port
