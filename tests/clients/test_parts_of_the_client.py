"""regen_client without a server: what it takes, what it reads, and what it is made of."""

import ast
import asyncio
import base64
import errno
import inspect
import json
import os
import sys
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NotRequired, get_origin, get_type_hints

import httpx
import pytest
import regen_client
from click import Context
from regen_client import AsyncRegen, InvalidWebhook, Regen, RegenError, verify_webhook
from regen_client.answers import Answer, _spelling
from regen_client.calls import Calls, Retries
from regen_client.downloads import _claim, _write, server_name
from regen_client.errors import ApiError, NoAnswer
from regen_client.events import Events
from regen_client.flows import Call, Close, FilePart, Pause, Read, Send, Streamed, run
from regen_client.operations import Operations, _source
from standardwebhooks import Webhook
from typer.main import get_command

from app.cli.application import application
from app.renders.schemas import RenderProgress

ROOT = Path(__file__).parents[2]
SOURCES = sorted(Path(regen_client.__file__).parent.glob("*.py"))
SECRET = "whsec_" + base64.b64encode(b"a secret of some length").decode()


def test_it_imports_nothing_but_httpx_and_the_standard_library():
    found = set()
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0
                found.add(str(node.module).partition(".")[0])
    assert found - set(sys.stdlib_module_names) == {"httpx", "regen_client"}


# Shapes of answers, and the classes that read them.
SHAPES = {
    "EffectiveLimits": regen_client.Limits,
    "Engine": regen_client.Engine,
    "Estimate": regen_client.Estimate,
    "FilterEffectBody": regen_client.FilterEffect,
    "Preview": regen_client.Preview,
    "QualityBody": regen_client.Quality,
    "Render": regen_client.Render,
    "Usage": regen_client.Usage,
    "UsageTotals": regen_client.UsageTotals,
    "UsedOnDay": regen_client.UsedOnDay,
    "VideoFactsBody": regen_client.Video,
    "VideoFile": regen_client.File,
}
ENVELOPE = "what the client takes out of it is of a class"
OPERATORS = "for operators: the command line and the console show it"
OWN_ROUTES = "of routes for which the client has no method"
WITHIN = "within `upload`"
# Those that no class reads, and why.
NOT_READ = {
    **dict.fromkeys(
        ("EnginesBody", "EstimateBody", "FileBody", "PreviewBody", "RenderBody", "RendersBody", "UsageBody"),
        ENVELOPE,
    ),
    **dict.fromkeys(("PartState", "PartToSend", "PartsBody", "ReceivedPart"), WITHIN),
    **dict.fromkeys(("Upload", "UploadBody", "UploadStatus", "UploadsBody"), WITHIN),
    **dict.fromkeys(("ActivityBody", "ActivityFigures", "ActivityInterval"), OPERATORS),
    **dict.fromkeys(("HealthBody", "ReadyBody", "ShownLimits", "WorkInHand", "WorkforceBody"), OPERATORS),
    **dict.fromkeys(("CreatedKeyBody", "Key", "KeyBody", "KeysBody", "User"), OPERATORS),
    **dict.fromkeys(
        ("UserBody", "UsersBody", "Worker", "WorkerBody", "WorkerStatus", "WorkersBody"), OPERATORS
    ),
    **dict.fromkeys(("Contents", "ContentsBody", "FilesBody", "PreviewsBody"), OWN_ROUTES),
    **dict.fromkeys(("DeliveryStatus", "Webhook", "WebhookAttempt"), OWN_ROUTES),
    **dict.fromkeys(("WebhookBody", "WebhookDeliveriesBody", "WebhookDelivery"), OWN_ROUTES),
    **dict.fromkeys(("WebhookDeliveryBody", "WebhookEvent", "WebhookSecret"), OWN_ROUTES),
    **dict.fromkeys(("WebhookSecretBody", "WebhooksBody"), OWN_ROUTES),
    **dict.fromkeys(("ErrorMessage", "ErrorsBody"), "ApiError has the messages"),
    **dict.fromkeys(("RenderStatus", "DestinationStatus"), "a text"),
}
DOCUMENT = json.loads((ROOT / "docs" / "openapi.json").read_text())


def named_in(part: Any) -> set[str]:
    """The components that a part of the document refers to, and those that they refer to."""
    found: set[str] = set()
    waiting = [part]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            path = one.get("$ref", "").removeprefix("#/components/")
            if path and path not in found:
                found.add(path)
                kind, name = path.split("/")
                waiting.append(DOCUMENT["components"][kind][name])
        if isinstance(one, dict | list):
            waiting += one.values() if isinstance(one, dict) else one
    return {path.removeprefix("schemas/") for path in found if path.startswith("schemas/")}


def test_every_answer_of_the_api_has_a_class_or_a_reason_why_not():
    answered = set()
    for path in DOCUMENT["paths"].values():
        for operation in path.values():
            answered |= named_in(operation["responses"])
    assert answered == SHAPES.keys() | MAPPINGS.keys() | NOT_READ.keys()


@pytest.mark.parametrize("name", SHAPES)
def test_its_answers_are_the_servers(name):
    shape, answer = DOCUMENT["components"]["schemas"][name], SHAPES[name]
    given = {_spelling(one.name) for one in fields(answer)} - {"raw"}
    assert given == set(shape["properties"])
    # What is required here is always there.
    required = {_spelling(one.name) for one in fields(answer) if one.default is fields(Answer)[0].default} - {
        "raw"
    }
    assert required <= set(shape.get("required", ()))


MAPPINGS = {
    "CrfRange": regen_client.CrfRange,
    "Crop": regen_client.Crop,
    "DestinationBody": regen_client.Destination,
    "EncodedQualityBody": regen_client.EncodedQuality,
    "SuggestedEngine": regen_client.SuggestedEngine,
    "VmafRange": regen_client.VmafRange,
}


@pytest.mark.parametrize("name", MAPPINGS)
def test_mappings_in_its_answers_are_the_servers(name):
    shape, hints = (
        DOCUMENT["components"]["schemas"][name],
        get_type_hints(MAPPINGS[name], include_extras=True),
    )
    assert hints.keys() == shape["properties"].keys()
    required = {key for key, hint in hints.items() if get_origin(hint) is not NotRequired}
    assert required == set(shape["required"])


def test_its_events_are_the_servers():
    given = {_spelling(one.name) for one in fields(regen_client.RenderEvent)} - {"raw"}
    assert given == RenderProgress.model_json_schema(by_alias=True)["properties"].keys()


def fields_of(path: str) -> set[str]:
    """What a `POST` to this path takes as JSON, but for what names the video."""
    schema = DOCUMENT["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    while "$ref" in schema:
        schema = DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    names = set(schema.get("properties", ()))
    for other in schema.get("oneOf", schema.get("anyOf", ())):
        names |= set(other.get("properties", ()))
    return names - {"file", "file_id", "file_url"}


def flags_of(command: str) -> set[str]:
    parameters = get_command(application).commands[command].get_params(Context(get_command(application)))
    return {flag for one in parameters for flag in one.opts}


@pytest.mark.parametrize("path", ["/v1/upscale", "/v1/estimates"])
def test_every_field_of_a_render_is_an_option_of_the_client(path):
    assert len(fields_of(path)) > 15
    assert fields_of(path) == set(regen_client.RenderOptions.__annotations__)


@pytest.mark.parametrize("method", [Regen.preview, AsyncRegen.preview])
def test_every_field_of_a_preview_is_one_of_the_clients(method):
    named = {"at_seconds", "engine", "crop"}
    assert named < inspect.signature(method).parameters.keys()
    assert fields_of("/v1/previews") == named | set(regen_client.PreviewOptions.__annotations__)


@pytest.mark.parametrize(
    ("command", "path"),
    [("submit", "/v1/upscale"), ("estimate", "/v1/estimates"), ("preview", "/v1/previews")],
)
def test_every_field_is_a_flag_of_the_command(command, path):
    # `quality` measures; `--quality` was the encoder's.
    other = {"quality": "measure_quality", "at_seconds": "at", "crop_width": "crop", "crop_height": "crop"}
    wanted = {"--" + other.get(name, name).replace("_", "-") for name in fields_of(path)}
    assert wanted - flags_of(command) == set()


def test_what_a_later_server_answers_is_kept_and_what_none_answers_is_refused():
    row: dict[str, Any] = {"id": "a", "name": "b", "sizeBytes": 3, "newProperty": [1], "width": None}
    file = regen_client.File.read(row)
    assert (file.size_bytes, file.width, file.raw["newProperty"]) == (3, None, [1])
    with pytest.raises(RegenError, match="lacks sizeBytes"):
        regen_client.File.read({"id": "a", "name": "b"})
    with pytest.raises(RegenError, match="malformed `createdAt`"):
        regen_client.File.read(row | {"createdAt": "yesterday"})


def test_webhooks_as_the_standards_own_library_signs_them():
    now = datetime.now(UTC)
    body = '{"type": "render.completed", "data": {"render": {"id": "é"}}}'
    headers = {
        "Webhook-Id": "msg-1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": "v1,c29tZQ== v1a,other " + Webhook(SECRET).sign("msg-1", now, body),
    }
    other = "whsec_" + base64.b64encode(b"another secret").decode()
    assert verify_webhook(body.encode(), headers, [other, SECRET])["data"]["render"]["id"] == "é"
    old = str(int((now - timedelta(minutes=6)).timestamp()))
    for changed in (
        {"body": body.replace("é", "e")},
        {"secrets": other},
        {"headers": headers | {"webhook-timestamp": old}},
        {"headers": headers | {"webhook-timestamp": "now"}},
        {"headers": headers | {"webhook-signature": "v1,é"}},
        {"headers": {}},
    ):
        with pytest.raises(InvalidWebhook):
            verify_webhook(**({"body": body, "headers": headers, "secrets": SECRET} | changed))
    with pytest.raises(ValueError, match="whsec_"):
        verify_webhook(body, headers, "whsec_!")


def test_a_stream_that_ends_anywhere_is_continued_after_the_last_whole_event():
    events = (
        b': ping\r\n\r\nid: a-1\nevent: progress\ndata: {"id":"r","status":"processing","framesDone":1}\n\n'
        + ('id: done\nevent: end\ndata: {"render":{"id":"é"}}\n\n'.encode())
    )
    whole = events.index(b"id: done")
    streamed = Streamed(httpx.Response(200, headers={"Content-Type": "text/event-stream; charset=utf-8"}))
    for cut in range(len(events) + 1):
        stream, seen = Events(_calls(), "r"), []
        flow = stream.next()
        assert isinstance(next(flow), Send)
        assert isinstance(flow.send(streamed), Read)
        try:
            step = flow.send(events[:cut])
        except StopIteration as one:
            seen.append(one.value.frames_done)
            flow = stream.next()
            step = next(flow)
        if cut < len(events):
            assert isinstance(step, Read)
            step = flow.throw(httpx.ReadError("cut"))
        assert isinstance(step, Close)
        with pytest.raises(StopIteration) as ended:
            flow.send(None)
        assert ended.value.value is None
        assert (stream.ended, stream.available) == (cut == len(events), cut < len(events))
        assert stream._last_id == ("done" if cut == len(events) else "a-1" if cut >= whole else "")
        assert seen == [1] * (cut >= whole)


def test_a_file_is_written_by_one_download_at_a_time(tmp_path):
    part = tmp_path / ".clip.mp4.%22abc%22.part"
    claim = _claim(part, 0)
    with pytest.raises(RegenError, match="Another download"):
        _claim(part, 0)
    os.close(claim)
    part.write_bytes(b"longer than was seen")
    with pytest.raises(NoAnswer):
        _claim(part, 5)
    os.close(_claim(part, 20))


@pytest.mark.parametrize("content", [b'{"render": "x"}', b'{"render": []}', b"[" * 100_000, b"\xff\xfe\xfa"])
def test_what_is_no_answer_of_the_api_is_refused(content):
    with (
        httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, content=content))) as http,
        pytest.raises(RegenError),
    ):
        run(Operations(calls=_calls(), parts_at_once=1, poll_seconds=1).get("abc123"), http)


def test_an_id_is_one_part_of_a_path_and_a_key_is_one_word():
    flow = Operations(calls=_calls(), parts_at_once=1, poll_seconds=1).get("../a?b")
    assert next(flow).url == "http://127.0.0.1:9/v1/renders/..%2Fa%3Fb"
    for key in ("ключ", "two\nlines", "a word"):
        with pytest.raises(ValueError, match="characters") as refused:
            Regen("http://127.0.0.1:9", key)
        assert key not in str(refused.value)


def test_a_redirection_says_where_to():
    moved = httpx.Response(301, headers={"Location": "https://regen.example.com/v1/engines"})
    assert "https://regen.example.com/v1/engines" in ApiError.of(moved).messages[0]


def test_a_page_in_place_of_events_is_refused():
    stream = Events(_calls(), "r")
    flow = stream.next_until_end(0.0)
    assert isinstance(next(flow), Send)
    page = Streamed(httpx.Response(200, headers={"Content-Type": "text/html"}))
    assert isinstance(flow.send(page), Close)
    with pytest.raises(RegenError, match="something else than events"):
        flow.send(None)
    assert not stream.available


def test_a_stream_of_something_else_is_left_for_polling():
    stream = Events(_calls(), "r")
    flow = stream.next()
    next(flow)
    flow.send(Streamed(httpx.Response(200, headers={"Content-Type": "text/event-stream"})))
    assert isinstance(flow.send(b"data: {no json\n\n"), Close)
    with pytest.raises(StopIteration):
        flow.send(None)
    assert (stream.ended, stream.available) == (False, False)


@pytest.mark.parametrize("answer", [httpx.ConnectError("away"), httpx.Response(503)])
def test_events_are_given_up_after_two_minutes_without_the_server(answer, monkeypatch):
    now = 1000.0
    monkeypatch.setattr("regen_client.events.time", SimpleNamespace(monotonic=lambda: now))
    flow = Events(_calls(), "r").next_until_end(2.0)
    step, asked = next(flow), 0
    with pytest.raises(NoAnswer if isinstance(answer, Exception) else ApiError):
        while True:
            if isinstance(step, Pause):
                assert step.seconds == 2.0
                step = flow.send(None)
                continue
            asked += 1
            now += 50
            step = flow.throw(answer) if isinstance(answer, Exception) else flow.send(answer)
    assert asked == 4


def _calls() -> Calls:
    settings: dict[str, Any] = {
        "timeout": 1.0,
        "retries": 2,
        "longest_wait_seconds": 60.0,
        "user_agent": "test",
    }
    return Calls(base_url="http://127.0.0.1:9", key="k", **settings)


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("2", 2), ("0", 0), ("-3", 0), ("a date", 3600), ("soon", None), ("nan", None), ("", None)],
)
def test_retry_after(given, seconds):
    if given == "a date":
        given = format_datetime(datetime.now(UTC) + timedelta(hours=1))
    response = httpx.Response(503, headers={"Retry-After": given}, text="<html>")
    error = ApiError.of(response)
    assert error.retry_after == (None if seconds is None else pytest.approx(seconds, abs=60))
    assert error.repeatable and error.messages == ("The server answered 503 Service Unavailable.",)
    tries = Retries(2, 60)
    if seconds == 3600:
        with pytest.raises(ApiError):
            tries.pause(error)
    else:
        assert (seconds or 0) <= tries.pause(error).seconds < 3
        tries.pause(error)
        with pytest.raises(ApiError):
            tries.pause(error)


def test_what_names_a_video(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clip").touch()
    assert _source("clip") == Path("clip")
    assert _source("clip.mp4") == Path("clip.mp4")
    assert _source("QkjXasuzs2TKugHH") == {"file_id": "QkjXasuzs2TKugHH"}
    assert _source("HTTPS://example.com/clip") == {"file_url": "HTTPS://example.com/clip"}
    assert Calls.address("http://a/regen/v1/") == Calls.address(" http://a/regen ") == "http://a/regen"


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('attachment; filename="clip-4x.mp4"', "clip-4x.mp4"),
        ("attachment; filename=\"x.mp4\"; filename*=UTF-8''d%C3%A9j%C3%A0%20vu.mp4", "déjà vu.mp4"),
        ('attachment; filename="../../etc/passwd"', "passwd"),
        ('attachment; filename="C:\\\\temp\\\\x.mp4"', "x.mp4"),
        ("attachment; filename*=UTF-8''..%2F.bashrc%0A", "bashrc"),
        ('attachment; filename=".."', "download"),
        ("inline", "output é.mp4"),
        (None, "output é.mp4"),
    ],
)
def test_what_the_server_calls_a_file_is_a_plain_name(disposition, name):
    flow = server_name(_calls(), "http://127.0.0.1:9/storage/output%20%C3%A9.mp4?expires=1")
    step = next(flow)
    assert isinstance(step, Send) and step.headers["Range"] == "bytes=0-0"
    headers = {} if disposition is None else {"Content-Disposition": disposition}
    assert isinstance(flow.send(Streamed(httpx.Response(206, headers=headers))), Close)
    with pytest.raises(StopIteration) as ended:
        flow.send(None)
    assert ended.value.value == name


def test_waits_keep_no_other_request_from_its_connection():
    """Each may hold a connection for as long as its render takes."""

    async def asked_at_once(number: int) -> None:
        all_are_there = asyncio.Event()
        connections = 0

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            if connections == number:
                all_are_there.set()
            await all_are_there.wait()
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, AsyncRegen(f"http://127.0.0.1:{port}", "key") as regen:
            answers = await asyncio.gather(
                *(regen.get_render("none") for _ in range(number)), return_exceptions=True
            )
        assert all(isinstance(one, ApiError) for one in answers)

    asyncio.run(asyncio.wait_for(asked_at_once(120), 60))


def test_a_full_disk_is_told_with_the_file(tmp_path):
    target = tmp_path / ".clip.mp4.%22abc%22.part"
    flow = _write(Streamed(httpx.Response(200)), target, 0, 5, None)
    assert isinstance(next(flow), Read)
    assert isinstance(flow.send(b"bytes"), Call)
    with pytest.raises(OSError, match=r"No space left on device: .*\.part"):
        flow.throw(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))


def test_a_file_that_became_shorter_is_not_sent_as_it_was(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"12345")
    assert b"".join(FilePart(path, 1, 3, lambda _: None)) == b"234"
    with pytest.raises(RegenError, match="became shorter"):
        list(FilePart(path, 1, 5, lambda _: None))
