"""Regen, and AsyncRegen, which does the same with asyncio."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Generator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Self, Unpack

import httpx

from regen_client.answers import (
    Engine,
    Estimate,
    File,
    Preview,
    Render,
    RenderEvent,
    Usage,
)
from regen_client.calls import Calls, OnRetry
from regen_client.errors import RenderFailed
from regen_client.flows import run, run_async
from regen_client.operations import Operations, Result, Source
from regen_client.options import PreviewOptions, RenderOptions
from regen_client.uploads import OnProgress

# As many as are asked for: streams of events, each for as long as its render, would keep an upload waiting for one.
CONNECTIONS = httpx.Limits(max_connections=None, max_keepalive_connections=20)
PathLike = str | os.PathLike[str]

try:
    VERSION = version("regen-client")
except PackageNotFoundError:
    VERSION = "0"


class _Client(ABC):
    def __init__(
        self,
        base_url: str | None = None,
        key: str | None = None,
        *,
        timeout: float = 60.0,
        retries: int = 4,
        longest_wait_seconds: float = 60.0,
        parts_at_once: int = 4,
        poll_seconds: float = 2.0,
        on_retry: OnRetry | None = None,
    ) -> None:
        """`base_url` and `key` default to REGEN_SERVER and REGEN_KEY. `timeout` is in seconds, for each read or write
        of a socket. A lost connection and the statuses 408, 429, 502, 503 and 504 are tried again, `retries` times
        in a row, unless the server asks for a pause over `longest_wait_seconds`. `on_retry` is called before, with the
        error; in a Regen by the thread that sends the part.
        """
        base_url, key = base_url or os.environ.get("REGEN_SERVER"), key or os.environ.get("REGEN_KEY")
        if not base_url or not key:
            raise ValueError("Name the server's address and an API key, or set REGEN_SERVER and REGEN_KEY.")
        calls = Calls(
            base_url=Calls.address(base_url),
            key=Calls.checked_key(key),
            timeout=timeout,
            retries=retries,
            longest_wait_seconds=longest_wait_seconds,
            user_agent=f"regen-client/{VERSION}",
            on_retry=on_retry,
        )
        self._poll_seconds = poll_seconds
        self._operations = Operations(
            calls=calls, parts_at_once=max(1, parts_at_once), poll_seconds=poll_seconds
        )
        self._open()

    @abstractmethod
    def _open(self) -> None: ...


class Regen(_Client):
    """A client of the Regen API; threads may share it. Every method may raise ApiError and NoAnswer.

    `on_progress` is called with a Progress: bytes of uploads and downloads, frames of renders. `Source` is a path, the
    id of an uploaded file or a File, or an http(s) URL if the server allows it.
    """

    def _open(self) -> None:
        self._http = httpx.Client(limits=CONNECTIONS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def upload(self, path: PathLike, *, on_progress: OnProgress | None = None) -> File:
        """Upload a video: over 8 MiB in parts, several at once, going on with an open upload of the same content.
        An http(s) URL is fetched by the server, where its operator allows that."""
        return run(self._operations.upload(path, on_progress), self._http)

    def upscale(
        self,
        video: Source,
        *,
        idempotency_key: str | None = None,
        on_progress: OnProgress | None = None,
        **options: Unpack[RenderOptions],
    ) -> Render:
        """Ask for a render. Options that this version does not know are sent as they are."""
        return run(self._operations.upscale(video, options, idempotency_key, on_progress), self._http)

    def estimate(
        self, video: Source, *, on_progress: OnProgress | None = None, **options: Unpack[RenderOptions]
    ) -> Estimate:
        """What a render would cost and how long it would take. A video over 8 MiB is uploaded and kept for it."""
        return run(self._operations.estimate(video, options, on_progress), self._http)

    def preview(
        self,
        video: Source,
        at_seconds: float = 0.0,
        *,
        engine: str | None = None,
        crop: Mapping[str, int] | None = None,
        timeout: float | None = 300.0,
        on_progress: OnProgress | None = None,
        **options: Unpack[PreviewOptions],
    ) -> Preview:
        """One frame before and after, once it was made. `crop` has `x`, `y`, `width` and `height`."""
        fields = {"at_seconds": at_seconds, "engine": engine, "crop": crop, **options}
        return run(self._operations.preview(video, fields, timeout, on_progress), self._http)

    def get_frame(self, file: File | str, at_seconds: float = 0.0) -> bytes:
        """One frame of an uploaded file, as a JPEG of at most 960 pixels a side, to look for a moment."""
        return run(self._operations.frame(file, at_seconds), self._http)

    def wait(
        self, render: Render | str, *, timeout: float | None = None, on_progress: OnProgress | None = None
    ) -> Render:
        """The render once it is completed. Raises RenderFailed, and WaitTimeout after `timeout` seconds."""
        return _completed(run(self._operations.wait(render, timeout, on_progress), self._http))

    def events(self, render: Render | str) -> Generator[RenderEvent, None, None]:
        """What the server tells of a render, as it happens, until its end; a stream that breaks off is continued.
        Raises RegenError where there are no events: `wait` asks at intervals then."""
        events = self._operations.events(render)
        try:
            while (event := run(events.next_until_end(self._poll_seconds), self._http)) is not None:
                yield event
        finally:
            run(events.close(), self._http)

    def download(
        self,
        what: Render | str,
        path: PathLike,
        *,
        result: Result = "output",
        on_progress: OnProgress | None = None,
    ) -> Path:
        """Write the result of a render, given by its id too, or what is at a signed URL. The file appears when it is
        complete; called again, a download that was interrupted goes on."""
        return run(self._operations.download(what, path, result, on_progress), self._http)

    def file_name(self, what: Render | str, *, result: Result = "output") -> str:
        """What the server calls the result of a render, such as `clip-4x.mp4`: a plain name for `download`."""
        return run(self._operations.file_name(what, result), self._http)

    def get_render(self, render: Render | str) -> Render:
        return run(self._operations.get(render), self._http)

    def list_renders(
        self, *, status: str | None = None, engine: str | None = None, limit: int = 100
    ) -> list[Render]:
        """At most `limit`, the newest first."""
        return run(self._operations.renders(status, engine, limit), self._http)

    def cancel(self, render: Render | str) -> Render:
        return run(self._operations.act(render, "cancel"), self._http)

    def retry(self, render: Render | str) -> Render:
        """A new render like one that failed."""
        return run(self._operations.act(render, "retry"), self._http)

    def deliver(self, render: Render | str, *, destination: str | None = None) -> Render:
        """Send the result to its destination again, or to another one. Returns before that is done: see
        `Render.destination`."""
        return run(self._operations.deliver(render, destination), self._http)

    def engines(self) -> list[Engine]:
        return run(self._operations.engines(), self._http)

    def usage(self) -> Usage:
        """What was rendered and the limits, as `GET /v1/usage` answers it."""
        return run(self._operations.usage(), self._http)


class AsyncRegen(_Client):
    """As Regen, with asyncio. `on_progress` is an ordinary function."""

    def _open(self) -> None:
        self._http = httpx.AsyncClient(limits=CONNECTIONS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def upload(self, path: PathLike, *, on_progress: OnProgress | None = None) -> File:
        return await run_async(self._operations.upload(path, on_progress), self._http)

    async def upscale(
        self,
        video: Source,
        *,
        idempotency_key: str | None = None,
        on_progress: OnProgress | None = None,
        **options: Unpack[RenderOptions],
    ) -> Render:
        flow = self._operations.upscale(video, options, idempotency_key, on_progress)
        return await run_async(flow, self._http)

    async def estimate(
        self, video: Source, *, on_progress: OnProgress | None = None, **options: Unpack[RenderOptions]
    ) -> Estimate:
        return await run_async(self._operations.estimate(video, options, on_progress), self._http)

    async def preview(
        self,
        video: Source,
        at_seconds: float = 0.0,
        *,
        engine: str | None = None,
        crop: Mapping[str, int] | None = None,
        timeout: float | None = 300.0,
        on_progress: OnProgress | None = None,
        **options: Unpack[PreviewOptions],
    ) -> Preview:
        fields = {"at_seconds": at_seconds, "engine": engine, "crop": crop, **options}
        return await run_async(self._operations.preview(video, fields, timeout, on_progress), self._http)

    async def get_frame(self, file: File | str, at_seconds: float = 0.0) -> bytes:
        return await run_async(self._operations.frame(file, at_seconds), self._http)

    async def wait(
        self, render: Render | str, *, timeout: float | None = None, on_progress: OnProgress | None = None
    ) -> Render:
        flow = self._operations.wait(render, timeout, on_progress)
        return _completed(await run_async(flow, self._http))

    async def events(self, render: Render | str) -> AsyncGenerator[RenderEvent, None]:
        events = self._operations.events(render)
        try:
            while (
                event := await run_async(events.next_until_end(self._poll_seconds), self._http)
            ) is not None:
                yield event
        finally:
            await run_async(events.close(), self._http)

    async def download(
        self,
        what: Render | str,
        path: PathLike,
        *,
        result: Result = "output",
        on_progress: OnProgress | None = None,
    ) -> Path:
        return await run_async(self._operations.download(what, path, result, on_progress), self._http)

    async def file_name(self, what: Render | str, *, result: Result = "output") -> str:
        return await run_async(self._operations.file_name(what, result), self._http)

    async def get_render(self, render: Render | str) -> Render:
        return await run_async(self._operations.get(render), self._http)

    async def list_renders(
        self, *, status: str | None = None, engine: str | None = None, limit: int = 100
    ) -> list[Render]:
        return await run_async(self._operations.renders(status, engine, limit), self._http)

    async def cancel(self, render: Render | str) -> Render:
        return await run_async(self._operations.act(render, "cancel"), self._http)

    async def retry(self, render: Render | str) -> Render:
        return await run_async(self._operations.act(render, "retry"), self._http)

    async def deliver(self, render: Render | str, *, destination: str | None = None) -> Render:
        return await run_async(self._operations.deliver(render, destination), self._http)

    async def engines(self) -> list[Engine]:
        return await run_async(self._operations.engines(), self._http)

    async def usage(self) -> Usage:
        return await run_async(self._operations.usage(), self._http)


def _completed(render: Render) -> Render:
    if render.status == "failed":
        raise RenderFailed(render)
    return render
