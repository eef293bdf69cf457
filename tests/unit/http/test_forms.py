"""What the form reader makes of bodies as browsers, curl, httpx, PHP, axios and others write them."""

import json
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import anyio
import pytest
from pydantic import BaseModel, WithJsonSchema
from starlette.requests import Request

from app.http.forms import FormUpload, form_description, received_form
from app.http.multipart import ReceivedForm
from app.http.spool_space import SpoolSpace
from app.platform.errors import InvalidRequest, LimitExceeded
from app.platform.media.limits import MediaLimits
from app.platform.settings import Settings
from app.renders.schemas import UpscaleForm
from app.usage.allowances import Allowance

BROWSER_BOUNDARY = "----WebKitFormBoundaryAbCdEfGhIjKlMnOp"
URLENCODED = "application/x-www-form-urlencoded"


def multipart(*parts: tuple[str, bytes] | tuple[str, bytes, str]) -> tuple[str, bytes]:
    """Content-Type and body; a part is its name, its content and what follows the name in its headers."""
    body = b""
    for name, content, *more in parts:
        header = f'Content-Disposition: form-data; name="{name}"{"".join(more)}'
        body += f"--{BROWSER_BOUNDARY}\r\n{header}\r\n\r\n".encode() + content + b"\r\n"
    return f"multipart/form-data; boundary={BROWSER_BOUNDARY}", body + f"--{BROWSER_BOUNDARY}--\r\n".encode()


def as_json(**fields: Any) -> tuple[str, bytes]:
    return "application/json", json.dumps(fields).encode()


FILE = '; filename="clip.mp4"\r\nContent-Type: video/mp4'
NO_FILE = '; filename=""\r\nContent-Type: application/octet-stream'
AS_JSON = "\r\nContent-Type: application/json"
BLANKS = [(name, b"") for name in ("file_id", "file_url", "engine", "target_fps", "quality", "webhook_url")]


@pytest.fixture
def read(tmp_path: Path):
    """Reads a form of the given model as the routes do, without a server."""

    @asynccontextmanager
    async def open_form(
        sent: tuple[str, bytes],
        *,
        model: type[BaseModel] = UpscaleForm,
        query: bytes = b"",
        strict: bool = False,
    ):
        content_type, body = sent
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive():
            return messages.pop()

        settings = Settings(data_dir=tmp_path)
        settings.spool_dir.mkdir(parents=True, exist_ok=True)
        scope = {
            "type": "http",
            "method": "POST",
            "query_string": query,
            "headers": [(b"content-type", content_type.encode())] if content_type else [],
            "state": {},
            "app": SimpleNamespace(state=SimpleNamespace(refuses_unknown_names=lambda: strict)),
        }
        request = Request(scope, receive)
        space = SpoolSpace(settings.spool_dir, keep_free_bytes=0)
        resources: Any = SimpleNamespace(spool_space=space, database=None)
        allowance = Allowance(media=MediaLimits.from_settings(settings), max_upload_bytes=10**6)
        user: Any = SimpleNamespace(id="ann", key_id="key", allowance=allowance)
        async with received_form(request, model, user=user, resources=resources) as form:
            yield form
        assert list(settings.spool_dir.iterdir()) == []

    async def read(*arguments: Any, **options: Any) -> tuple[ReceivedForm, bytes | None]:
        async with open_form(*arguments, **options) as form:
            return form, form.upload.path.read_bytes() if form.upload else None

    return lambda *arguments, **options: anyio.run(partial(read, *arguments, **options))


@pytest.mark.parametrize(
    ("sent", "fields"),
    [
        (multipart(*BLANKS, ("file", b"video", FILE)), {}),
        (multipart(("file", b"video", FILE), ("engine", b" \r\n")), {}),
        (multipart(("file", b"", NO_FILE), ("file_id", b"a")), {"file_id": "a"}),
        (multipart(("file", b""), ("file_id", b"a")), {"file_id": "a"}),
        (multipart(("file_id", b""), ("file_id", b"a")), {"file_id": "a"}),
        (multipart(("engine", b'"regen-4x"', AS_JSON)), {"engine": "regen-4x"}),
        (multipart(("target_fps", b"29.970", AS_JSON)), {"target_fps": "29.970"}),
        (multipart(("engine", b'""'), ("file_id", b"a\n")), {"file_id": "a"}),
        ((URLENCODED, b"file_id=a&engine=&target_fps=+&quality=1&file="), {"file_id": "a", "quality": "1"}),
        ((URLENCODED, b"file_id=&file_id=a&engine=%22regen-4x%22"), {"file_id": "a", "engine": "regen-4x"}),
        (as_json(engine=None, target_fps="", file=None, quality=False), {"quality": "false"}),
        (as_json(file="", target_fps=29.97, priority="3"), {"target_fps": "29.97", "priority": "3"}),
        (("application/vnd.api+json", b'{"target_fps": 23.9760}'), {"target_fps": "23.9760"}),
        (("", b""), {}),
    ],
)  # fmt: skip
def test_what_is_empty_is_not_given(read, sent, fields):
    form, content = read(sent)
    assert (form.fields, form.faults, form.warnings) == (fields, {}, [])
    assert content == (b"video" if b"video" in sent[1] else None)


@pytest.mark.parametrize(
    "sent",
    [
        multipart(("targetFps", b"60"), ("Engine", b"regen-4x"), ("colour", b"red"), ("submit", b"")),
        (URLENCODED, b"targetFps=60&Engine=regen-4x&colour=red&submit="),
        as_json(targetFps=60, Engine="regen-4x", colour={"a": 1}, submit=None),
    ],
)
def test_unknown_names_are_told(read, sent):
    told = [
        "`targetFps` {}: did you mean `target_fps`?",
        "`Engine` {}: did you mean `engine`?",
        "`colour` {}.",
    ]
    form, _content = read(sent)
    assert form.warnings == [one.format("is not a field of this request and was ignored") for one in told]
    with pytest.raises(InvalidRequest) as refused:
        read(sent, strict=True)
    assert list(refused.value.messages) == [one.format("is not a field of this request") for one in told]


def test_many_unknown_names_and_fields_in_the_address(read):
    form, _content = read(as_json(**{f"x{number}": 1 for number in range(2000)}), query=b"engine=a&utm=b")
    assert len(form.warnings) == 10
    assert form.warnings[8] == "1992 more names are not fields of this request."
    assert form.warnings[9] == "`engine` in the address's query was ignored: fields belong in the body."


FILE_ID = "the id of an uploaded file belongs in `file_id`"
CURL = "send the file itself in a multipart/form-data body, as `curl -F file=@clip.mp4` does"


@pytest.mark.parametrize(
    ("sent", "advice"),
    [
        (multipart(("file", b"clip.mp4")), f'"clip.mp4": {CURL}'),
        (multipart(("file", b"[object Object]\n")), f'"[object Object]": {CURL}'),
        (multipart(("file", b"QkjXasuzs2TKugHH")), f'"QkjXasuzs2TKugHH": {FILE_ID}'),
        ((URLENCODED, b"file=@clip.mp4"), f'"@clip.mp4": {CURL}'),
        (as_json(file="https://a.de/a.mp4"), '"https://a.de/a.mp4": the URL of a video belongs in `file_url`'),
        (as_json(file={"name": "a"}), f'{{"name": "a"}}: {CURL}'),
    ],
)  # fmt: skip
def test_a_file_that_is_none(read, sent, advice):
    form, _content = read(sent)
    assert form.faults == {"file": f"`file` is not a file but {advice}."}
    with pytest.raises(InvalidRequest) as refused:
        UpscaleForm.read(form, Settings())
    assert refused.value.messages == (form.faults["file"],)


def test_files_under_other_names_and_second_ones(read):
    form, _content = read(multipart(("video", b"content", FILE)))
    assert form.hints == ["`video` contains a file; its field must be called `file`."]
    for second in (("file", b"", NO_FILE), ("file", b"")):
        parts = [("file", b"video", FILE), second]
        for order in (parts, parts[::-1]):
            form, content = read(multipart(*order))
            assert (content, form.upload.name, form.faults) == (b"video", "clip.mp4", {})
    for second in (("file", b"more", NO_FILE), ("file", b"", FILE)):
        with pytest.raises(InvalidRequest, match="more than once"):
            read(multipart(("file", b"video", FILE), second))


@pytest.mark.parametrize("content_type", [URLENCODED, "text/plain;charset=UTF-8", ""])
@pytest.mark.parametrize("body", [b'{"file_id": "a"}', b" \n[]", b"{'file_id': 'a'}"])
def test_json_without_its_content_type(read, content_type, body):
    with pytest.raises(InvalidRequest, match="send `Content-Type: application/json`") as refused:
        read((content_type, body))
    assert (content_type.partition(";")[0] or "is missing") in refused.value.message


@pytest.mark.parametrize("content_type", [URLENCODED, "video/mp4", ""])
def test_a_file_as_the_whole_body(read, content_type):
    with pytest.raises(LimitExceeded, match=r"64 KiB at most\. Send a file as multipart/form-data"):
        read((content_type, b"\0" * 70_000))


def test_a_field_that_no_text_can_be_compared_with_is_found_at_the_start():
    class Faulty(BaseModel):
        file: FormUpload
        size: Annotated[Any, WithJsonSchema({"enum": [1, 2]})] = None

    with pytest.raises(TypeError, match=r"Faulty\.size"):
        form_description(Faulty, example={})
