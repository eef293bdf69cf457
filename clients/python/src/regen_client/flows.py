"""One body of logic for both clients. A flow is a generator that yields what is to be done and is sent the outcome;
`run` does it with blocking calls, `run_async` with asyncio."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx

from regen_client.errors import RegenError

T = TypeVar("T")
BLOCK_BYTES = 256 * 1024


class Step(ABC):
    @abstractmethod
    def do(self, http: httpx.Client) -> Any: ...

    @abstractmethod
    async def do_async(self, http: httpx.AsyncClient) -> Any: ...


Flow = Generator[Step, Any, T]


def run(flow: Flow[T], http: httpx.Client) -> T:
    outcome: Any = None
    error: BaseException | None = None
    while True:
        try:
            step = flow.send(outcome) if error is None else flow.throw(error)
        except StopIteration as end:
            result: T = end.value
            return result
        try:
            outcome, error = step.do(http), None
        # Also an interruption: a flow closes what it opened.
        except BaseException as raised:
            outcome, error = None, raised


async def run_async(flow: Flow[T], http: httpx.AsyncClient) -> T:
    outcome: Any = None
    error: BaseException | None = None
    while True:
        try:
            step = flow.send(outcome) if error is None else flow.throw(error)
        except StopIteration as end:
            result: T = end.value
            return result
        try:
            outcome, error = await step.do_async(http), None
        except BaseException as raised:
            outcome, error = None, raised


class FilePart(httpx.SyncByteStream, httpx.AsyncByteStream):
    """`size_bytes` of a file from `start` on, as a request's body; `on_sent` is told how many bytes went out."""

    def __init__(self, path: Path, start: int, size_bytes: int, on_sent: Callable[[int], None]) -> None:
        self.path = path
        self.start = start
        self.size_bytes = size_bytes
        self._on_sent = on_sent

    def __iter__(self) -> Iterator[bytes]:
        sent = 0
        for block in self._blocks():
            yield block
            sent += len(block)
            self._on_sent(sent)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        sent, blocks = 0, self._blocks()
        while (block := await asyncio.to_thread(next, blocks, None)) is not None:
            yield block
            sent += len(block)
            self._on_sent(sent)

    def _blocks(self) -> Iterator[bytes]:
        left = self.size_bytes
        with self.path.open("rb") as file:
            file.seek(self.start)
            while left:
                block = file.read(min(left, BLOCK_BYTES))
                if not block:
                    raise RegenError(f"{self.path} became shorter while it was read.")
                left -= len(block)
                yield block


class Streamed:
    """An answer whose body is read block by block, as it comes; to be closed."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.blocks: Iterator[bytes] | AsyncIterator[bytes] | None = None


@dataclass(frozen=True, kw_only=True)
class Send(Step):
    """A request. The outcome is the answer, read; of a `streamed` one that succeeded, a Streamed."""

    method: str
    url: str
    headers: Mapping[str, str]
    timeout: httpx.Timeout
    content: Mapping[str, Any] = field(default_factory=dict)
    part: FilePart | None = None
    streamed: bool = False

    def _request(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        headers = dict(self.headers)
        if self.part:
            headers["Content-Length"] = str(self.part.size_bytes)
        request = http.build_request(
            self.method, self.url, headers=headers, timeout=self.timeout, **self.content
        )
        if self.part:
            request.stream = self.part
        return request

    def do(self, http: httpx.Client) -> httpx.Response | Streamed:
        response = http.send(self._request(http), stream=self.streamed)
        if self.streamed and response.is_success:
            return Streamed(response)
        response.read()
        return response

    async def do_async(self, http: httpx.AsyncClient) -> httpx.Response | Streamed:
        response = await http.send(self._request(http), stream=self.streamed)
        if self.streamed and response.is_success:
            return Streamed(response)
        await response.aread()
        return response


@dataclass(frozen=True)
class Read(Step):
    """The next bytes; None at the end."""

    streamed: Streamed

    def do(self, http: httpx.Client) -> bytes | None:
        if self.streamed.blocks is None:
            self.streamed.blocks = self.streamed.response.iter_raw()
        assert isinstance(self.streamed.blocks, Iterator)
        return next(self.streamed.blocks, None)

    async def do_async(self, http: httpx.AsyncClient) -> bytes | None:
        if self.streamed.blocks is None:
            self.streamed.blocks = self.streamed.response.aiter_raw()
        assert isinstance(self.streamed.blocks, AsyncIterator)
        return await anext(self.streamed.blocks, None)


@dataclass(frozen=True)
class Close(Step):
    streamed: Streamed

    def do(self, http: httpx.Client) -> None:
        self.streamed.response.close()

    async def do_async(self, http: httpx.AsyncClient) -> None:
        await self.streamed.response.aclose()


@dataclass(frozen=True)
class Pause(Step):
    seconds: float

    def do(self, http: httpx.Client) -> None:
        time.sleep(self.seconds)

    async def do_async(self, http: httpx.AsyncClient) -> None:
        await asyncio.sleep(self.seconds)


@dataclass(frozen=True)
class Call(Step):
    """A blocking call, of the disk; asyncio's loop goes on meanwhile."""

    function: Callable[[], Any]

    def do(self, http: httpx.Client) -> Any:
        return self.function()

    async def do_async(self, http: httpx.AsyncClient) -> Any:
        return await asyncio.to_thread(self.function)


@dataclass(frozen=True)
class Together(Step):
    """Flows at the same time. When one fails or the wait is interrupted, `stop` tells the others to begin nothing
    new."""

    flows: Sequence[Flow[None]]
    stop: Callable[[], None]

    def do(self, http: httpx.Client) -> None:
        with ThreadPoolExecutor(len(self.flows)) as pool:
            try:
                futures = [pool.submit(run, flow, http) for flow in self.flows]
                for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                    future.result()
            except BaseException:
                self.stop()
                raise

    async def do_async(self, http: httpx.AsyncClient) -> None:
        tasks = [asyncio.ensure_future(run_async(flow, http)) for flow in self.flows]
        try:
            await asyncio.gather(*tasks)
        finally:
            self.stop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
