"""The server's side of an HTTP/1.1 connection, which parses bodies only as they are asked for."""

import math

import h11

# A body may have so many chunks that are smaller than this on average: a packet of MPEG-TS has 188 bytes.
MOST_TINY_CHUNKS, TINY_CHUNK_BYTES = 200, 128
# Parts of a body that are parsed before other requests have their turn: less than a millisecond's work.
EVENTS_PER_TURN = 50
LAST_CHUNK = b"0\r\n\r\n"


class BodyOnDemand(h11.Connection):
    """The server's side of a connection. Parses a body only as the application asks for it, EVENTS_PER_TURN at a time:
    a request that is refused from its head costs no parsing of its body, and other requests take turns with a body in
    small chunks. Refuses bodies in tiny chunks, and requests that state the length of their body in two ways."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER)
        self._chunks = self._chunk_bytes = 0
        self._events_left: float = 0
        # Whether bytes of a body may be left that were not parsed.
        self.is_withholding = False
        # What has come of a body that is not parsed any more, and the end of what came before.
        self._skipped: bytes | None = None
        self._skipped_end = b""

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        self.is_withholding = self.their_state is h11.SEND_BODY and self._events_left <= 0
        if self.is_withholding:
            return h11.NEED_DATA
        if self._skipped is not None:
            return self._next_skipped(self._skipped)
        event = super().next_event()
        if isinstance(event, h11.Request):
            _check_framing(event)
            self._chunks = self._chunk_bytes = 0
            self._events_left = 0 if _has_body(event) else math.inf
        elif isinstance(event, h11.Data):
            self._events_left -= 1
            self._chunks += event.chunk_end
            self._chunk_bytes += len(event.data)
            self._check_chunks()
        return event

    def _check_chunks(self) -> None:
        if self._chunks > MOST_TINY_CHUNKS and self._chunk_bytes < self._chunks * TINY_CHUNK_BYTES:
            raise h11.RemoteProtocolError("the body comes in tiny chunks")

    def skip_body(self) -> None:
        """Parse nothing any more."""
        self._skipped = self.trailing_data[0]

    def receive_data(self, data: bytes) -> None:
        if self._skipped is None:
            super().receive_data(data)
        else:
            self._skipped += data

    def _next_skipped(self, skipped: bytes) -> h11.Event | type[h11.NEED_DATA]:
        if not skipped:
            return h11.NEED_DATA
        self._skipped = b""
        self._skipped_end = (self._skipped_end + skipped[-len(LAST_CHUNK) :])[-len(LAST_CHUNK) :]
        if self._skipped_end == LAST_CHUNK:
            return h11.EndOfMessage()
        self._chunks += skipped.count(b"\r\n") // 2
        self._chunk_bytes += len(skipped)
        self._check_chunks()
        self._events_left = 0
        return h11.Data(data=skipped)

    def want_body(self, events: float = EVENTS_PER_TURN) -> None:
        """Allow `next_event` to parse up to so many events of the present body."""
        self._events_left = max(self._events_left, events)


def _check_framing(request: h11.Request) -> None:
    """Raises RemoteProtocolError for a body whose end a proxy in front may see elsewhere: what follows would be another
    request, perhaps another client's (RFC 9112, section 6.1)."""
    names = {name for name, _ in request.headers}
    if names >= {b"transfer-encoding", b"content-length"}:
        raise h11.RemoteProtocolError("a length is stated beside Transfer-Encoding")


def _has_body(request: h11.Request) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0"))
        for name, value in request.headers
    )
