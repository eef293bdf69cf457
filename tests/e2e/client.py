"""A user of the API: submits videos, polls, downloads."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.servers.process import pause_after


@dataclass(frozen=True, kw_only=True)
class RegenClient:
    """`client` knows the address and holds a key."""

    client: httpx.Client

    def submit(self, video: Path, **fields: str) -> dict[str, Any]:
        with video.open("rb") as body:
            answer = self.client.post("/v1/upscale", files={"file": (video.name, body)}, data=fields)
        assert answer.status_code == 200, answer.text
        render: dict[str, Any] = answer.json()["render"]
        return render

    def get(self, render_id: str) -> dict[str, Any]:
        answer = self.client.get(f"/v1/renders/{render_id}")
        assert answer.status_code == 200, answer.text
        render: dict[str, Any] = answer.json()["render"]
        return render

    def wait(
        self, render_id: str, *, seconds: float = 240, seen: Callable[[dict[str, Any]], None] | None = None
    ) -> dict[str, Any]:
        """The render once it has ended."""
        began = time.monotonic()
        while (waited := time.monotonic() - began) < seconds:
            render = self.get(render_id)
            if seen:
                seen(render)
            if render["status"] in ("completed", "failed"):
                return render
            time.sleep(pause_after(waited))
        raise AssertionError(f"not finished within {seconds} s: {render}")

    def download(self, url: str, path: Path) -> Path:
        """Fetched as anybody with the URL would: without a key."""
        with httpx.stream("GET", url) as answer:
            assert answer.status_code == 200, answer.read()
            with path.open("wb") as out:
                for chunk in answer.iter_bytes():
                    out.write(chunk)
        return path
