"""Requests to the API: addresses, the key, retries, and errors as exceptions."""

from __future__ import annotations

import random
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from regen_client.errors import ApiError, NoAnswer, RegenError
from regen_client.flows import FilePart, Flow, Pause, Send, Streamed

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
# The server may read or fetch a whole video before it answers.
SLOW_ANSWER_SECONDS = 600.0


OnRetry = Callable[[RegenError], None]


class Retries:
    """Counts down: `most` retries in a row, each after a longer pause. `on_retry` is told the reason of each."""

    def __init__(self, most: int, longest_wait_seconds: float, on_retry: OnRetry | None = None) -> None:
        self._most = most
        self._longest = longest_wait_seconds
        self._on_retry = on_retry
        self._made = 0

    def restart(self) -> None:
        self._made = 0

    def pause(self, error: RegenError, *, expired: bool = False) -> Pause:
        """The pause before the next try, drawn from a range. Raises the error if it is final; that a URL has expired is
        not, where the next try has a new one."""
        asked = error.retry_after or 0.0
        if not (error.repeatable or expired) or self._made >= self._most or asked > self._longest:
            raise error
        if self._on_retry:
            self._on_retry(error)
        own = min(FIRST_PAUSE_SECONDS * 2**self._made, LONGEST_PAUSE_SECONDS)
        self._made += 1
        # Clients that were turned away together do not come back together.
        return Pause(max(asked, own / 2) + random.uniform(0, own / 2))  # noqa: S311


@dataclass(frozen=True, kw_only=True)
class Calls:
    """The API at `base_url`. A request is repeated `retries` times after a lost connection, 408, 429, 502, 503 and 504,
    unless `Retry-After` is over `longest_wait_seconds`. `timeout` is in seconds, for each read or write of a socket."""

    base_url: str
    key: str
    timeout: float
    retries: int
    longest_wait_seconds: float
    user_agent: str
    on_retry: OnRetry | None = None

    @staticmethod
    def address(base_url: str) -> str:
        """Without a slash or a `/v1` at the end, which the paths have."""
        return re.sub(r"(/v1)?/*$", "", base_url.strip())

    @staticmethod
    def checked_key(key: str) -> str:
        """Without space around it. Raises ValueError, which does not show it, for what no header can hold."""
        key = key.strip()
        if not re.fullmatch(r"[!-~]+", key):
            raise ValueError("The API key has characters that no key has: was it copied whole, and alone?")
        return key

    def new_retries(self) -> Retries:
        return Retries(self.retries, self.longest_wait_seconds, self.on_retry)

    def once(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        slow: bool = False,
        part: FilePart | None = None,
        streamed: bool = False,
        silence_seconds: float | None = None,
        **content: Any,
    ) -> Flow[Any]:
        """One try: the answer, or a Streamed. A path of the API is sent with the key, any other URL without it.

        Raises ApiError for every status but 2xx, NoAnswer if the connection is lost.
        """
        own = {"User-Agent": self.user_agent, "Accept-Encoding": "identity"}
        if url.startswith("/"):
            own["Authorization"] = f"Bearer {self.key}"
            url = self.base_url + url
        read = silence_seconds or (max(self.timeout, SLOW_ANSWER_SECONDS) if slow else self.timeout)
        try:
            outcome: httpx.Response | Streamed = yield Send(
                method=method,
                url=url,
                headers=own | dict(headers or {}),
                timeout=httpx.Timeout(self.timeout, read=read),
                content=content,
                part=part,
                streamed=streamed,
            )
        except (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.InvalidURL) as error:
            raise RegenError(f"The request cannot be sent: {error}") from error
        except httpx.TransportError as error:
            raise lost(error) from error
        if isinstance(outcome, httpx.Response) and not outcome.is_success:
            raise ApiError.of(outcome)
        return outcome

    def send(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **request: Any
    ) -> Flow[httpx.Response]:
        """The answer, after retries. All tries of a POST have one Idempotency-Key, so that it makes one thing."""
        if method == "POST":
            headers = {"Idempotency-Key": uuid.uuid4().hex} | dict(headers or {})
        retries = self.new_retries()
        while True:
            try:
                response: httpx.Response = yield from self.once(method, path, headers=headers, **request)
            except RegenError as error:
                yield retries.pause(error)
            else:
                return response

    def row(self, method: str, path: str, name: str, **request: Any) -> Flow[Any]:
        """The property `name` of the answer."""
        response = yield from self.send(method, path, **request)
        try:
            return response.json()[name]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise RegenError(f"{path} did not answer as the Regen API does: no `{name}`.") from error

    def rows(self, path: str, name: str, *, most: int, **query: str | None) -> Flow[list[Any]]:
        """At most `most` rows of a list, the newest first."""
        rows: list[Any] = []
        params = {key: value for key, value in query.items() if value is not None}
        while len(rows) < most:
            params["limit"] = str(min(most - len(rows), 100))
            response = yield from self.send("GET", path, params=params)
            try:
                page = response.json()
                rows += page[name]
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise RegenError(f"{path} did not answer as the Regen API does: no `{name}`.") from error
            if not page.get("nextCursor"):
                break
            params["cursor"] = page["nextCursor"]
        return rows


def lost(error: httpx.TransportError) -> NoAnswer:
    return NoAnswer(f"No answer from the server: {str(error) or type(error).__name__}")
