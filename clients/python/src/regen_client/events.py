"""A render's stream of events, continued after the last one."""

from __future__ import annotations

import codecs
import json
import math
import time
from collections import deque

import httpx

from regen_client.answers import RenderEvent
from regen_client.calls import Calls
from regen_client.errors import RegenError
from regen_client.flows import Close, Flow, Pause, Read, Streamed

# The server breaks the silence of a stream every 15 seconds.
SILENCE_SECONDS = 20.0
# How long a render is asked for while the server does not answer at all.
PATIENCE_SECONDS = 120.0


class Events:
    """`ended`: the render's end was told. `refusal`: why there are no events: the server has none, a proxy does not let
    them through, or the render is not there. To be closed."""

    def __init__(self, calls: Calls, render_id: str) -> None:
        self.ended = False
        self.refusal: RegenError | None = None
        self._calls = calls
        self._url = f"/v1/renders/{render_id}/events"
        self._last_id = ""
        self._lost: RegenError | None = None
        self._streamed: Streamed | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""
        self._blocks: deque[str] = deque()

    @property
    def available(self) -> bool:
        """Whether it is worth to follow them (again)."""
        return not self.ended and self.refusal is None

    def next(self, deadline: float = math.inf) -> Flow[RenderEvent | None]:
        """The next event. None when the render's end was told, when the stream has broken off, which the next call
        continues, and where it might be silent beyond the deadline, on the clock of `time.monotonic`."""
        if self._streamed is None and not (yield from self._open()):
            return None
        try:
            while not self.ended:
                while self._blocks:
                    if event := self._read_event(self._blocks.popleft()):
                        return event
                    if self.ended:
                        break
                else:
                    if deadline - time.monotonic() <= SILENCE_SECONDS or not (yield from self._receive()):
                        break
        except httpx.TransportError:
            pass
        except RegenError as error:
            self.refusal = error
        except BaseException:
            yield from self.close()
            raise
        yield from self.close()
        return None

    def next_until_end(self, poll_seconds: float) -> Flow[RenderEvent | None]:
        """The next event, after as many streams as it takes; None at the render's end. Raises RegenError where there
        are no events, and NoAnswer or ApiError if the server is away for two minutes."""
        away_since: float | None = None
        while True:
            if event := (yield from self.next()):
                return event
            if self.ended:
                return None
            if self.refusal:
                raise self.refusal
            if self._lost is None:
                away_since = None
            elif time.monotonic() - (away_since := away_since or time.monotonic()) > PATIENCE_SECONDS:
                raise self._lost
            asked = self._lost.retry_after if self._lost else None
            yield Pause(max(poll_seconds, min(asked or 0.0, PATIENCE_SECONDS)))

    def close(self) -> Flow[None]:
        streamed, self._streamed = self._streamed, None
        if streamed:
            yield Close(streamed)

    def _open(self) -> Flow[bool]:
        """Whether there is a stream."""
        headers = {"Last-Event-ID": self._last_id} if self._last_id else {}
        try:
            streamed: Streamed = yield from self._calls.once(
                "GET", self._url, headers=headers, streamed=True, silence_seconds=SILENCE_SECONDS
            )
        except RegenError as error:
            self._lost = error
            self.refusal = None if error.repeatable else error
            return False
        self._lost, self._streamed = None, streamed
        self._text = ""
        self._decoder.reset()
        self._blocks.clear()
        if streamed.response.status_code == 204:
            self.ended = True
        elif not streamed.response.headers.get("Content-Type", "").startswith("text/event-stream"):
            yield from self.close()
            self.refusal = RegenError(f"{self._url} was answered with something else than events.")
            return False
        return True

    def _receive(self) -> Flow[bool]:
        """Whether the stream goes on; keeps the blocks that are whole."""
        assert self._streamed
        piece: bytes | None = yield Read(self._streamed)
        if piece is None:
            return False
        self._text = (self._text + self._decoder.decode(piece)).replace("\r", "")
        # Only the empty line makes an event of what came before it.
        *blocks, self._text = self._text.split("\n\n")
        self._blocks.extend(blocks)
        return True

    def _read_event(self, block: str) -> RenderEvent | None:
        """None for a comment and for the end."""
        fields = {
            name: value.lstrip(" ") for name, _, value in (line.partition(":") for line in block.split("\n"))
        }
        if "data" not in fields:
            return None
        self._last_id = fields.get("id", self._last_id)
        self.ended = fields.get("event") == "end"
        if self.ended:
            return None
        try:
            return RenderEvent.read(json.loads(fields["data"]))
        except (ValueError, RecursionError) as error:
            raise RegenError(f"{self._url} was answered with something else than events.") from error
