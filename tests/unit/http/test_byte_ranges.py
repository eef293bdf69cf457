"""Whatever a Range header says: the right bytes, the whole file, or 416."""

import asyncio
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.http.file_response import ConditionalFileResponse

CONTENT = bytes(range(200))
SIZE = len(CONTENT)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ranges") / "file"
    path.write_bytes(CONTENT)
    return path


def answer(file: Path, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body."""
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        await asyncio.Event().wait()

    raw = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": raw, "extensions": {}}
    asyncio.run(ConditionalFileResponse(file, stat_result=file.stat())(scope, receive, send))
    found = {name.decode(): value.decode("latin-1") for name, value in sent[0]["headers"]}
    return sent[0]["status"], found, b"".join(message.get("body", b"") for message in sent[1:])


def expected(start: str, end: str) -> bytes | None:
    """What RFC 9110, section 14.1.2 says of `bytes=start-end`; None where it cannot be satisfied."""
    if not start:
        return CONTENT[-int(end) :] if int(end) else None
    first, last = int(start), int(end) if end else SIZE - 1
    return CONTENT[first : last + 1] if first < SIZE else None


NUMBERS = st.sampled_from([0, 1, 2, 99, 198, 199, 200, 201, 2**31, 2**63, 2**64, 10**40]).map(str)


@settings(max_examples=50)
@given(start=NUMBERS | st.just(""), end=NUMBERS | st.just(""))
def test_one_range(file, start, end):
    status, headers, body = answer(file, range=f"bytes={start}-{end}")
    if not (start or end) or (start and end and int(end) < int(start)):
        assert status in (200, 416)  # no range at all, which may be ignored
        return
    wanted = expected(start, end)
    if wanted is None:
        assert status == 416
        assert headers["content-range"] == f"bytes */{SIZE}"
    else:
        assert (status, body) == (206, wanted)


headers_of_chance = st.one_of(
    st.text(st.characters(max_codepoint=255), max_size=30),
    st.lists(
        st.sampled_from(
            ["bytes", "=", "-", ",", " ", "0", "7", "199", "500", "9" * 30, "9" * 5000, "+1", "-1", "\xb2"]
        ),
        max_size=10,
    ).map("".join),
    st.lists(st.sampled_from(["0-1", "5-", "-5", "9-2", "-", "x", "900-"]), max_size=6).map(
        lambda ranges: "bytes=" + ",".join(ranges)
    ),
)


@settings(max_examples=50)
@given(header=headers_of_chance, condition=st.none() | headers_of_chance)
def test_no_header_breaks_it(file, header, condition):
    more = {} if condition is None else {"if_range": condition}
    status, headers, body = answer(file, range=header, **more)
    if status == 206:
        named = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", headers["content-range"])
        assert named is not None
        first, last, size = map(int, named.groups())
        assert size == SIZE
        assert body == CONTENT[first : last + 1]
        assert int(headers["content-length"]) == len(body) > 0
    elif status == 200:
        assert body == CONTENT
    else:
        assert status == 416


@settings(max_examples=50)
@given(
    value=headers_of_chance,
    name=st.sampled_from(["if_match", "if_none_match", "if_modified_since", "if_unmodified_since"]),
)
def test_no_condition_breaks_it(file, name, value):
    status, _, body = answer(file, **{name: value})
    assert (status, body) == (200, CONTENT) or status in (304, 412)
