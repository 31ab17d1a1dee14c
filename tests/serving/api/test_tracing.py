"""Spans of requests, with the setting `otel`."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from offramp.errors import MissingExtraError
from serving.api import tracing
from serving.api.app import create_app
from serving.settings import Settings
from tests.serving.conftest import lifespan_of
from tests.serving.requests import CLASSIFY, as_json, as_raw

PARENT = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def spans(settings: Settings, pngs: list[bytes]) -> tuple[ReadableSpan, ...]:
    """The spans of a few requests."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    app = create_app(settings.model_copy(update={"otel": True}), tracer=provider)
    with lifespan_of(app) as client:
        for path in ("/livez", "/readyz", "/metrics"):
            client.get(path)
        traced = {"traceparent": f"00-{PARENT}-00f067aa0ba902b7-01", "X-Request-ID": "abc"}
        client.post(f"{CLASSIFY}?threshold=0", **as_json(pngs[:2]), headers=traced)
        client.post(CLASSIFY, **as_raw(b"text"))
        client.get("/v1/models/tiny")
    return exporter.get_finished_spans()


def test_every_request_but_probes_is_one_span_named_by_its_route(
    spans: tuple[ReadableSpan, ...],
) -> None:
    assert [span.name for span in spans] == [
        f"POST {CLASSIFY}",
        f"POST {CLASSIFY}",
        "GET /v1/models/{name}",
    ]


def test_a_span_has_the_answer_and_belongs_to_the_callers_trace(
    spans: tuple[ReadableSpan, ...],
) -> None:
    first, failed, _ = spans
    assert first.context is not None
    assert f"{first.context.trace_id:032x}" == PARENT
    found = dict(first.attributes or {})
    assert found["offramp.model"] == "tiny"
    assert found["offramp.exits"] == (1, 1)
    assert len(found["offramp.confidence"]) == 2  # type: ignore[arg-type]
    assert found["offramp.request_id"] == "abc"
    assert found["offramp.compute_ms"] > 0
    assert dict(failed.attributes or {})["offramp.code"] == "invalid_image"


def test_without_the_extra_one_sentence_says_what_to_install(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        __import__("sys").modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None
    )
    with pytest.raises(MissingExtraError, match=r"pip install 'offramp\[otel\]'"):
        tracing.otlp_provider()
