"""Which server, and with which key: `--server`, REGEN_SERVER and REGEN_KEY, or what `regen login` has kept."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from app.platform.errors import ConfigurationError

ServerOption = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="URL",
        help="The server, instead of REGEN_SERVER and that of `regen login`.",
        show_default=False,
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        min=0, metavar="SECONDS", help="Wait no longer for a render; it goes on.", show_default=False
    ),
]


class NoLogin(ConfigurationError):
    """No server or no key is known."""


@dataclass(frozen=True)
class Logins:
    """The server of the last login, and the key of each."""

    current: str | None
    keys: Mapping[str, str]


def logins_file() -> Path:
    stated = os.environ.get("XDG_CONFIG_HOME")
    return (Path(stated) if stated else Path.home() / ".config") / "regen" / "logins.json"


def read_logins() -> Logins:
    try:
        kept = json.loads(logins_file().read_text())
        return Logins(kept["current"], dict(kept["keys"]))
    except FileNotFoundError:
        return Logins(None, {})
    except (ValueError, KeyError, TypeError) as error:
        raise NoLogin(f"{logins_file()} cannot be read. Remove it, and log in again.") from error


def keep_login(server: str, key: str) -> Path:
    """Adds a server's key to the file, which its owner alone can read. The old file stays until the new is whole."""
    path = logins_file()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    content = {"current": server, "keys": {**read_logins().keys, server: key}}
    # Of mode 0600 from the start.
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        try:
            json.dump(content, file, indent=2)
            file.flush()
            Path(file.name).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(file.name).unlink()
            raise
    return path


def server_address(text: str) -> str:
    """As regen-client spells it. Raises BadParameter for what is no address."""
    from regen_client.calls import Calls

    parts = urlsplit(text.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise typer.BadParameter(f"a server looks like https://regen.example.com, not {text!r}.")
    return Calls.address(text)


def find_server(given: str | None) -> str:
    stated = given or os.environ.get("REGEN_SERVER") or read_logins().current
    if not stated:
        raise NoLogin("Which server? Log in by `regen login URL`, or set REGEN_SERVER and REGEN_KEY.")
    return server_address(stated)


def find_key(server: str) -> str:
    """A key is sent to the server that it was given for; REGEN_KEY to any."""
    key = os.environ.get("REGEN_KEY") or read_logins().keys.get(server)
    if not key:
        raise NoLogin(f"There is no key for {server}. Log in by `regen login {server}`, or set REGEN_KEY.")
    return checked_key(key)


def checked_key(key: str) -> str:
    """Raises NoLogin for what no header can hold."""
    from regen_client.calls import Calls

    try:
        return Calls.checked_key(key)
    except ValueError as error:
        raise NoLogin(str(error)) from error
