"""Traces by OpenTelemetry, from a request to the units of work on its render.

The packages are the extra `tracing`; OpenTelemetry's own variable OTEL_EXPORTER_OTLP_ENDPOINT names the
receiver. Without either there are no traces, and OpenTelemetry is not loaded.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
DISABLED = "OTEL_SDK_DISABLED"
SCOPE = "regen"
# W3C Trace Context's header, in which a span names itself to those that it causes.
TRACE_PARENT = "traceparent"

log = structlog.get_logger(__name__)

_provider: "TracerProvider | None" = None


def start_tracing(service: str) -> bool:
    """Send this process's spans under the name `service`, unless OTEL_SERVICE_NAME is set.

    Returns whether spans are sent. May be called again.
    """
    global _provider  # noqa: PLW0603  (OpenTelemetry's own provider is the process's, too)
    if _provider is not None:
        return True
    if not any(map(os.environ.get, ENDPOINTS)) or os.environ.get(DISABLED, "").lower() == "true":
        return False
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        log.warning("tracing_is_not_installed", reason=str(error))
        return False
    resource = Resource.create({SERVICE_NAME: os.environ.get("OTEL_SERVICE_NAME", service)})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _provider = provider
    return True


def provider() -> "TracerProvider | None":
    """The maker of spans; None without traces."""
    return _provider


def stop_tracing() -> None:
    """Send the remaining spans, for a few seconds at most."""
    global _provider  # noqa: PLW0603
    if _provider is not None:
        _provider.shutdown()
        _provider = None


def current_trace_parent() -> str | None:
    """The current span, in the form of the header `traceparent`."""
    if _provider is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get(TRACE_PARENT)


@contextmanager
def traced(name: str, *, parent: str | None, attributes: Mapping[str, object]) -> Iterator[None]:
    """A span around the block, caused by `parent`; records an exception that leaves the block."""
    if _provider is None:
        yield
        return
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = TraceContextTextMapPropagator().extract({} if parent is None else {TRACE_PARENT: parent})
    known = {f"{SCOPE}.{key}": str(value) for key, value in attributes.items()}
    with _provider.get_tracer(SCOPE).start_as_current_span(name, context=context, attributes=known):
        yield
