"""What both clients can do, as flows."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from regen_client.answers import Engine, Estimate, File, Preview, Progress, Render, RenderEvent, Usage
from regen_client.calls import Calls
from regen_client.downloads import download, server_name
from regen_client.errors import RegenError, WaitTimeout
from regen_client.events import PATIENCE_SECONDS, SILENCE_SECONDS, Events
from regen_client.flows import Call, Flow, Pause
from regen_client.uploads import SMALL_BYTES, OnProgress, send_whole, upload

Source = str | os.PathLike[str] | File
Result = Literal["output", "input", "thumbnail"]

PREVIEW_SECONDS = 20


@dataclass(frozen=True, kw_only=True)
class Operations:
    calls: Calls
    parts_at_once: int
    poll_seconds: float

    def upload(self, video: str | os.PathLike[str], on_progress: OnProgress | None) -> Flow[File]:
        """A file of the video at a path, or at a URL, which the server fetches."""
        if isinstance(video, str) and _is_url(video):
            body = {"file_url": video}
            return File.read((yield from self.calls.row("POST", "/v1/files", "file", json=body, slow=True)))
        sent = upload(self.calls, Path(video), parts_at_once=self.parts_at_once, on_progress=on_progress)
        return (yield from sent)

    def upscale(
        self, video: Source, options: Mapping[str, Any], key: str | None, on_progress: OnProgress | None
    ) -> Flow[Render]:
        headers = {"Idempotency-Key": key} if key else {}
        return Render.read(
            (yield from self._of("/v1/upscale", "render", video, options, headers, on_progress))
        )

    def estimate(
        self, video: Source, options: Mapping[str, Any], on_progress: OnProgress | None
    ) -> Flow[Estimate]:
        return Estimate.read(
            (yield from self._of("/v1/estimates", "estimate", video, options, {}, on_progress))
        )

    def _of(
        self,
        url: str,
        name: str,
        video: Source,
        options: Mapping[str, Any],
        headers: Mapping[str, str],
        on_progress: OnProgress | None,
    ) -> Flow[Any]:
        """The answer about a video: sent with the request if it is small, otherwise uploaded before."""
        given = {option: value for option, value in options.items() if value is not None}
        source = _source(video)
        if isinstance(source, Path) and (yield Call(source.stat)).st_size <= SMALL_BYTES:
            fields = {option: _as_text(value) for option, value in given.items()}
            return (yield from send_whole(self.calls, url, name, source, fields, on_progress, headers))
        if isinstance(source, Path):
            source = {"file_id": (yield from self.upload(source, on_progress)).id}
        body = given | source
        return (yield from self.calls.row("POST", url, name, json=body, headers=headers, slow=True))

    def preview(
        self,
        video: Source,
        fields: Mapping[str, Any],
        timeout: float | None,
        on_progress: OnProgress | None,
    ) -> Flow[Preview]:
        """The preview once it has ended."""
        source = _source(video)
        if isinstance(source, Path) or "file_url" in source:
            assert not isinstance(video, File)
            source = {"file_id": (yield from self.upload(video, on_progress)).id}
        body = {name: value for name, value in fields.items() if value is not None} | source
        deadline = _deadline(timeout)
        request: dict[str, Any] = {"method": "POST", "path": "/v1/previews", "json": body}
        while True:
            seconds = int(min(PREVIEW_SECONDS, max(0.0, deadline - time.monotonic())))
            prefer = {"Prefer": f"wait={seconds}"} if seconds else {}
            row = yield from self.calls.row(name="preview", headers=prefer, slow=True, **request)
            preview = Preview.read(row)
            if preview.ended:
                return preview
            if time.monotonic() >= deadline:
                raise WaitTimeout(f"The preview {preview.id} has not ended within {timeout} seconds.")
            request = {"method": "GET", "path": f"/v1/previews/{preview.id}"}
            yield Pause(min(0.5, max(0.0, deadline - time.monotonic())))

    def get(self, render: Render | str) -> Flow[Render]:
        return Render.read((yield from self.calls.row("GET", f"/v1/renders/{_id(render)}", "render")))

    def frame(self, file: File | str, at_seconds: float) -> Flow[bytes]:
        """A JPEG."""
        path = f"/v1/files/{quote(file if isinstance(file, str) else file.id, safe='')}/frame"
        response = yield from self.calls.send("GET", path, params={"at_seconds": at_seconds})
        return response.content

    def act(self, render: Render | str, action: str, **request: Any) -> Flow[Render]:
        path = f"/v1/renders/{_id(render)}/{action}"
        return Render.read((yield from self.calls.row("POST", path, "render", **request)))

    def deliver(self, render: Render | str, destination: str | None) -> Flow[Render]:
        return self.act(render, "deliver", **({"json": {"destination": destination}} if destination else {}))

    def renders(self, status: str | None, engine: str | None, most: int) -> Flow[list[Render]]:
        rows = yield from self.calls.rows("/v1/renders", "renders", most=most, status=status, engine=engine)
        return [Render.read(row) for row in rows]

    def engines(self) -> Flow[list[Engine]]:
        return [Engine.read(row) for row in (yield from self.calls.row("GET", "/v1/engines", "engines"))]

    def usage(self) -> Flow[Usage]:
        return Usage.read((yield from self.calls.row("GET", "/v1/usage", "usage")))

    def download(
        self,
        what: Render | str,
        path: str | os.PathLike[str],
        result: Result,
        on_progress: OnProgress | None,
    ) -> Flow[Path]:
        return download(self.calls, lambda: self._locate(what, result), Path(path), on_progress=on_progress)

    def file_name(self, what: Render | str, result: Result) -> Flow[str]:
        url = yield from self._locate(what, result)
        return (yield from server_name(self.calls, url))

    def _locate(self, what: Render | str, result: Result) -> Flow[str]:
        """A fresh signed URL."""
        if isinstance(what, str) and _is_url(what):
            return what
        render = yield from self.get(what)
        url: str | None = getattr(render, f"{result}_file_url" if result != "thumbnail" else "thumbnail_url")
        if url is None:
            raise RegenError(f"The render {render.id} is {render.status} and has no {result}.")
        return url

    def events(self, render: Render | str) -> Events:
        return Events(self.calls, _id(render))

    def wait(
        self, render: Render | str, timeout: float | None, on_progress: OnProgress | None
    ) -> Flow[Render]:
        """The render once it has ended, however. Events tell when to look; without them it is asked at intervals."""
        deadline = _deadline(timeout)
        events = self.events(render)
        away_since: float | None = None
        while True:
            try:
                seen = yield from self.get(render)
            except RegenError as error:
                away_since = away_since or time.monotonic()
                if not error.repeatable or time.monotonic() - away_since > PATIENCE_SECONDS:
                    raise
            else:
                away_since = None
                if on_progress:
                    on_progress(_progress_of(seen))
                if seen.ended:
                    return seen
            if time.monotonic() >= deadline:
                raise WaitTimeout(f"The render {_id(render)} has not ended within {timeout} seconds.")
            # Close to the end of the time a stream might be silent for longer.
            short = deadline - time.monotonic() <= SILENCE_SECONDS
            if not short and events.available:
                yield from _follow(events, deadline, on_progress)
                if events.ended:
                    continue
            yield Pause(min(self.poll_seconds, max(0.0, deadline - time.monotonic())))


def _follow(events: Events, deadline: float, on_progress: OnProgress | None) -> Flow[None]:
    """Tells of the events of one stream."""
    try:
        while (event := (yield from events.next(deadline))) is not None:
            if on_progress:
                on_progress(_progress_of(event))
    finally:
        yield from events.close()


def _progress_of(render: Render | RenderEvent) -> Progress:
    if isinstance(render, RenderEvent):
        done, total = render.frames_done or 0, render.frames or 0
    else:
        total = render.output.frames if render.output else 0
        done = round(render.progress * total)
    return Progress(
        stage="render", done=done, total=total, status=render.status, eta_seconds=render.eta_seconds
    )


def _deadline(timeout: float | None) -> float:
    return time.monotonic() + (timeout if timeout is not None else float("inf"))


def _id(render: Render | str) -> str:
    return quote(render if isinstance(render, str) else render.id, safe="")


def _is_url(text: str) -> bool:
    return text.lower().startswith(("http://", "https://"))


def _source(video: Source) -> Path | dict[str, str]:
    """A file on this machine, or the fields that name a video."""
    if isinstance(video, File):
        return {"file_id": video.id}
    if isinstance(video, str):
        if _is_url(video):
            return {"file_url": video}
        # An id has no dot and no folder.
        if re.fullmatch(r"[\w-]+", video) and not Path(video).is_file():
            return {"file_id": video}
    return Path(video)


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
