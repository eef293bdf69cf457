"""Spans of requests, by OpenTelemetry's instrumentation of FastAPI."""

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from app.platform.tracing import provider, start_tracing

SERVICE = "regen-api"
# Polled by machines every few seconds.
PROBES = "healthz,readyz,metrics"


def trace_requests(app: FastAPI) -> None:
    """Make a span of each request, continuing the trace in its `traceparent`.

    Does nothing without tracing; see `start_tracing`.
    """
    if not start_tracing(SERVICE):
        return
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

    FastAPIInstrumentor.instrument_app(
        app, tracer_provider=provider(), excluded_urls=PROBES, exclude_spans=["receive", "send"]
    )
    instrumented = app.build_middleware_stack
    app.build_middleware_stack = lambda: _OwnTrace(instrumented())  # type: ignore[method-assign]


class _OwnTrace:
    """Begins each request outside any span: requests on one connection may inherit each other's context."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        from opentelemetry.context import Context, attach

        if scope["type"] == "http":
            attach(Context())
        await self.app(scope, receive, send)
