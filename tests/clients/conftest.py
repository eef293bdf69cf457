import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# As a project gets them that has the package installed.
from pytest_regen import regen_mock
from regen_client import AsyncRegen, Regen, RenderEvent

__all__ = ["regen_mock"]


class FromAsync:
    """An AsyncRegen with the methods of a Regen."""

    def __init__(self, client: AsyncRegen, runner: asyncio.Runner) -> None:
        self._client = client
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **options: self._runner.run(getattr(self._client, name)(*args, **options))

    def events(self, render: Any) -> Iterator[RenderEvent]:
        events = self._client.events(render)

        async def next_one() -> RenderEvent | None:
            return await anext(events, None)

        try:
            while (event := self._runner.run(next_one())) is not None:
                yield event
        finally:
            self._runner.run(events.aclose())


@pytest.fixture(scope="session")
def clip() -> Path:
    """240 x 136, 25 frames a second, 50 frames, with sound."""
    return Path(__file__).parents[1] / "media" / "bunny-240x136-25fps.mp4"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regen_client.calls.FIRST_PAUSE_SECONDS", 0.01)


@pytest.fixture
def timeout() -> float:
    """Seconds for which a connection may be silent: more than a busy machine needs. Tests of silence have less."""
    return 20.0


@pytest.fixture(params=["sync", "async"])
def regen(request: pytest.FixtureRequest, regen_mock, timeout: float) -> Iterator[Any]:
    """A client of the mock."""
    settings: Any = {"timeout": timeout, "retries": 3, "poll_seconds": 0.02}
    if request.param == "sync":
        with Regen(regen_mock.url, regen_mock.key, **settings) as client:
            yield client
    else:
        client = AsyncRegen(regen_mock.url + "/v1/", regen_mock.key, **settings)
        with asyncio.Runner() as runner:
            yield FromAsync(client, runner)
            runner.run(client.close())
