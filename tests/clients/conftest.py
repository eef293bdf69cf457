import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# As a project gets them that has the package installed.
from pytest_regen import regen_mock, regen_mock_server
from regen_client import AsyncRegen, Regen

__all__ = ["regen_mock", "regen_mock_server"]


class FromAsync:
    """An AsyncRegen with the methods of a Regen."""

    def __init__(self, client: AsyncRegen, runner: asyncio.Runner) -> None:
        self._client = client
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **options: self._runner.run(getattr(self._client, name)(*args, **options))


@pytest.fixture(scope="session")
def clip() -> Path:
    """240 x 136, 25 frames a second, 50 frames, with sound."""
    return Path(__file__).parents[1] / "media" / "bunny-240x136-25fps.mp4"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regen_client.calls.FIRST_PAUSE_SECONDS", 0.01)


@pytest.fixture(params=["sync", "async"])
def regen(request: pytest.FixtureRequest, regen_mock) -> Iterator[Any]:
    """A client of the mock. What stands still for 0.6 s counts as lost."""
    settings: Any = {"timeout": 0.6, "retries": 3, "poll_seconds": 0.02}
    if request.param == "sync":
        with Regen(regen_mock.url, regen_mock.key, **settings) as client:
            yield client
    else:
        client = AsyncRegen(regen_mock.url + "/v1/", regen_mock.key, **settings)
        with asyncio.Runner() as runner:
            yield FromAsync(client, runner)
            runner.run(client.close())
