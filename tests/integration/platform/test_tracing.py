"""A trace from a client's request to the work on its render, as a collector receives it over OTLP."""

import gzip
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from app.platform import tracing
from tests.e2e.conftest import MEDIA, running_server
from tests.servers.process import wait_until

otlp = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"


class Collector(ThreadingHTTPServer):
    """Keeps the spans that are sent to it, with the name of their service."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receiver)
        self.spans: list[tuple[str, object]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        message = otlp.ExportTraceServiceRequest.FromString(body)
        for resource in message.resource_spans:
            (service,) = [
                each.value.string_value for each in resource.resource.attributes if each.key == "service.name"
            ]
            spans = [span for scope in resource.scope_spans for span in scope.spans]
            self.server.spans += [(service, span) for span in spans]  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()


@pytest.mark.slow
def test_the_work_on_a_render_belongs_to_the_trace_of_its_request(
    collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
    with running_server(tmp_path / "data", stand_in_network="true", segment_seconds="0.5") as server:
        server.client.headers["traceparent"] = f"00-{TRACE}-{CALLER}-01"
        render = server.submit(MEDIA / "short" / "bunny-240x136-25fps.mp4")
        server.client.headers.pop("traceparent")
        assert server.wait(render["id"])["status"] == "completed"
        httpx.get(f"{server.client.base_url}/healthz")

        def ours() -> list[tuple[str, object]]:
            return [(service, span) for service, span in collector.spans if span.trace_id.hex() == TRACE]  # type: ignore[attr-defined]

        wait_until(lambda: "finish" in {span.name for _, span in ours()})  # type: ignore[attr-defined]
        spans = ours()
    (request,) = [span for service, span in spans if service == "regen-api"]
    assert request.name == "POST /v1/upscale" and request.parent_span_id.hex() == CALLER  # type: ignore[attr-defined]
    units = [span for service, span in spans if service == "regen-worker"]
    assert {span.name for span in units} == {"prepare", "upscale", "finish"}  # type: ignore[attr-defined]
    for span in units:
        assert span.parent_span_id == request.span_id  # type: ignore[attr-defined]
        attributes = {each.key: each.value.string_value for each in span.attributes}  # type: ignore[attr-defined]
        assert attributes["regen.render_id"] == render["id"] and attributes["regen.attempt"]
    names = {span.name for _, span in collector.spans}  # type: ignore[attr-defined]
    assert not any("healthz" in name or "receive" in name for name in names)


def test_nothing_is_traced_without_a_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in tracing.ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    assert tracing.start_tracing("regen-test") is False
    assert tracing.current_trace_parent() is None
    with tracing.traced("work", parent=None, attributes={}):
        assert tracing.provider() is None


def test_an_endpoint_without_the_extra_is_told_and_harms_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    assert tracing.start_tracing("regen-test") is False
