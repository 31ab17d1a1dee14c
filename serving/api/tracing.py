"""OpenTelemetry tracing; none of its packages is imported unless the setting `otel` is on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.types import Scope

from offramp import __version__
from offramp.extras import needs_extra
from serving.api.access_log import PROBES

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider


def otlp_provider() -> TracerProvider:
    """A provider that sends spans over OTLP, configured by the standard OTEL_* environment variables."""
    with needs_extra("otel", "OpenTelemetry"):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    resource = Resource.create({"service.name": "offramp", "service.version": __version__})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def instrument(app: FastAPI, provider: TracerProvider) -> None:
    """Give every request except probes a span; to be called before the app starts."""
    with needs_extra("otel", "OpenTelemetry"):
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
    FastAPIInstrumentor.instrument_app(
        app,
        tracer_provider=provider,
        excluded_urls=",".join(f"{path}$" for path in sorted(PROBES)),
        # A span per ASGI message would cost more than the request's own.
        exclude_spans=["receive", "send"],
    )


def annotator() -> Callable[[Scope, str, int, float], None]:
    """A completion hook that adds the answer's attributes to the request's span."""
    from opentelemetry import trace

    def annotate(scope: Scope, request_id: str, status: int, seconds: float) -> None:
        span = trace.get_current_span()
        if not span.is_recording():
            return
        state = scope.get("state", {})
        span.set_attribute("offramp.request_id", request_id)
        for key in ("model", "exits", "confidence", "unsure", "code"):
            if key in state:
                span.set_attribute(f"offramp.{key}", state[key])
        if "timing_ms" in state:
            for part, value in vars(state["timing_ms"]).items():
                span.set_attribute(f"offramp.{part}_ms", value)

    return annotate
