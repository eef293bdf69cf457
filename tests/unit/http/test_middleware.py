"""The lingering close and the last answers, against a server that is played by the test."""

import asyncio
import contextlib

from app.http.middleware import LINGER_BYTES, ErrorBoundary, LingeringClose

BLOCK = 65536


async def refuse(scope, receive, send):
    """Answers without reading the body."""
    await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"no"})


async def give_up(scope, receive, send):
    """Waits no longer for the body."""
    await send({"type": "http.response.start", "status": 408, "headers": []})
    await send({"type": "http.response.body", "body": b"no"})


async def read_all(scope, receive, send):
    while (await receive()).get("more_body"):
        pass
    await refuse(scope, receive, send)


def run(app, headers, *, body_bytes: int | None) -> tuple[list[dict], int]:
    """What the application sent, and how many bytes of the body were taken. None: an endless body."""
    sent: list[dict] = []
    taken = 0

    async def receive():
        nonlocal taken
        left = BLOCK if body_bytes is None else min(BLOCK, body_bytes - taken)
        taken += left
        return {
            "type": "http.request",
            "body": b"x" * left,
            "more_body": body_bytes is None or taken < body_bytes,
        }

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers}
    asyncio.run(LingeringClose(app)(scope, receive, send))
    return sent, taken


def closes(sent) -> bool:
    return (b"connection", b"close") in sent[0]["headers"]


def length(size: int) -> list[tuple[bytes, bytes]]:
    return [(b"content-length", str(size).encode())]


def test_the_whole_answer_goes_out_before_the_body_is_dropped():
    sent, taken = run(refuse, length(10 * BLOCK), body_bytes=10 * BLOCK)

    assert [message.get("body") for message in sent[1:]] == [b"no", b""]
    assert [message.get("more_body") for message in sent[1:]] == [True, False]
    assert taken == 10 * BLOCK
    assert not closes(sent)


def test_a_long_body_costs_the_connection_and_is_read_within_bounds():
    for headers in (length(10**9), [(b"transfer-encoding", b"chunked")]):
        sent, taken = run(refuse, headers, body_bytes=None)

        assert closes(sent)
        assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
        assert LINGER_BYTES <= taken < LINGER_BYTES + 2 * BLOCK


def test_a_body_that_did_not_come_costs_the_connection():
    sent, _taken = run(give_up, length(BLOCK), body_bytes=BLOCK)

    assert closes(sent)


def test_a_body_that_was_read_changes_nothing():
    sent, taken = run(read_all, length(10**7), body_bytes=10**7)

    assert sent == [
        {"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"2")]},
        {"type": "http.response.body", "body": b"no"},
    ]
    assert taken == 10**7


def test_without_a_body_nothing_is_read():
    _sent, taken = run(refuse, [], body_bytes=0)

    assert taken == 0


def test_a_crash_after_the_answer_began_breaks_the_connection_off():
    async def half(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError

    sent: list[dict] = []

    async def send(message):
        sent.append(message)

    try:
        asyncio.run(ErrorBoundary(half)({"type": "http", "method": "GET", "path": "/"}, None, send))
    except RuntimeError:
        pass
    else:
        raise AssertionError("the server must hear of it")
    assert len(sent) == 1


def test_a_request_that_the_stopping_server_gives_up_is_to_be_tried_again():
    async def wait(scope, receive, send):
        await asyncio.Event().wait()

    sent: list[dict] = []

    async def send(message):
        sent.append(message)

    async def stop_in_the_middle():
        task = asyncio.create_task(
            ErrorBoundary(wait)({"type": "http", "method": "POST", "path": "/"}, None, send)
        )
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(stop_in_the_middle())
    assert sent[0]["status"] == 503
    assert (b"retry-after", b"5") in sent[0]["headers"]
    assert b"stopping" in sent[1]["body"]
