"""The pytest fixture `regen_mock`: a mock of the Regen API in its own process, empty at the start of each
test. pytest loads this module at every start wherever the package is installed, so it imports very little. It
imports nothing of the server, whose command `regen` may be installed elsewhere.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import httpx

START_SECONDS = 60.0
STOP_SECONDS = 20.0
REQUEST_SECONDS = 120.0
FIRST_MOMENT = "2026-01-01T00:00:00Z"
COMMAND_VARIABLE = "PYTEST_REGEN_COMMAND"
COMMAND_SETTING = "regen_command"
# Of the project under test; they would hide or replace the server's own packages.
PYTHONS = frozenset({"PYTHONPATH", "PYTHONHOME"})
# The paths of programs depend on this machine; any other setting would change the mock.
KEPT_SETTINGS = frozenset({"REGEN_FFMPEG", "REGEN_FFPROBE"})


class RegenMock:
    """A running mock. `client` sends its key; `url` and `key` are for your own clients."""

    def __init__(self, *, url: str, key: str, client: httpx.Client) -> None:
        self.url = url
        self.key = key
        self.client = client

    def reset(self) -> None:
        """Remove all files, renders, rules, requests and webhooks. Ids and times start again."""
        self._control("POST", "/_mock/reset")

    def seed(self, **given: Any) -> None:
        """As `reset`, with a `seed`, `clock` (`2026-01-01T00:00:00Z`, None for the machine's time), `transitions`
        (`instant`, `seconds:1`, `polls:2`) or `strict` (whether unknown names are refused) of your own."""
        self._control("POST", "/_mock/seed", given)

    def advance(self, seconds: float) -> None:
        """Advance the mock's clock, without a reset: links and keys expire, retries of webhooks become due."""
        self._control("POST", "/_mock/clock", {"advance_seconds": seconds})

    def faults(self, *rules: Mapping[str, Any]) -> None:
        """Add rules, such as `{"route": "POST /v1/upscale", "times": 1, "action": {"status": 503}}`."""
        self._control("POST", "/_mock/faults", {"rules": [dict(rule) for rule in rules]})

    def clear_faults(self) -> None:
        self._control("DELETE", "/_mock/faults")

    @property
    def rules(self) -> list[dict[str, Any]]:
        """The rules in force, each with the requests it has `seen` and the `hits` among them."""
        rules: list[dict[str, Any]] = self._control("GET", "/_mock/faults")["rules"]
        return rules

    @property
    def requests(self) -> list[dict[str, Any]]:
        """The requests that the mock received since the test began, in order."""
        requests: list[dict[str, Any]] = self._control("GET", "/_mock/requests")["requests"]
        return requests

    @property
    def webhooks(self) -> list[dict[str, Any]]:
        """The sendings of events since the test began, in order: the `url`, the `body`, the answer's `status`."""
        webhooks: list[dict[str, Any]] = self._control("GET", "/_mock/webhooks")["webhooks"]
        return webhooks

    def _control(self, method: str, path: str, content: Any = None) -> Any:
        answer = self.client.request(method, path, json=content)
        answer.raise_for_status()
        return answer.json() if answer.content else None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(COMMAND_SETTING, f"the command `regen`, unless {COMMAND_VARIABLE} names it", default="")


def _find_command(config: pytest.Config) -> list[str]:
    """The setting's `regen`, else that of this environment, else that on the PATH."""
    import shlex
    import shutil
    import sysconfig

    stated = os.environ.get(COMMAND_VARIABLE) or config.getini(COMMAND_SETTING)
    if stated:
        return shlex.split(stated)
    found = shutil.which("regen", path=sysconfig.get_path("scripts")) or shutil.which("regen")
    if found is None:
        pytest.fail(
            "There is no command `regen`. Install regen-server, here or by itself (pipx install regen-server), or name "
            f"the command: {COMMAND_VARIABLE}=/path/to/regen, or {COMMAND_SETTING} in pytest's configuration.",
            pytrace=False,
        )
    return [found]


@pytest.fixture(scope="session")
def regen_mock_server(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str]]:
    """The address and the key of the session's one mock server."""
    import json
    import subprocess
    import time

    directory = tmp_path_factory.mktemp("regen-mock")
    ready_file, log = directory / "ready.json", directory / "log"
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in KEPT_SETTINGS or not (name.startswith("REGEN_") or name in PYTHONS)
    }
    command = [
        *_find_command(pytestconfig),
        *("mock", "--port", "0"),
        *("--ready-file", str(ready_file), "--seed", "0", "--clock", FIRST_MOMENT),
        *("--parent-pid", str(os.getpid())),
    ]
    with log.open("wb") as output:
        try:
            process = subprocess.Popen(
                command,
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        except OSError as error:
            pytest.fail(f"The command {command[0]} cannot be run: {error.strerror}.", pytrace=False)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not ready_file.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"The Regen mock did not start:\n{log.read_text(errors='replace')}")
            time.sleep(0.02)
        ready = json.loads(ready_file.read_text())
        yield ready["url"], ready["key"]
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        process.kill()
        process.wait()


@pytest.fixture
def regen_mock(regen_mock_server: tuple[str, str]) -> Iterator[RegenMock]:
    """A mock that has received no requests."""
    import httpx

    url, key = regen_mock_server
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=url, headers=headers, timeout=REQUEST_SECONDS) as client:
        mock = RegenMock(url=url, key=key, client=client)
        # Undoes also a `seed` in the previous test: a reset restores the options of the mock's start.
        mock.reset()
        yield mock
