"""`regen login` and `regen open`."""

from __future__ import annotations

import os
import sys
import webbrowser
from typing import Annotated

import typer

from app.cli.remote.connection import ServerOption, checked_key, find_server, keep_login, server_address
from app.cli.remote.session import carry_out
from app.cli.reporting import AsJson, print_json, stderr


def login(
    server: Annotated[
        str | None,
        typer.Argument(metavar="[URL]", help="The server, such as https://regen.example.com."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Keep a server's address and a key of it, for the other commands; the file can be read by you alone.

    Asks for the key, or reads it from standard input or REGEN_KEY, and tries it.
    """
    address = server_address(server or os.environ.get("REGEN_SERVER") or _ask("Server"))
    key = os.environ.get("REGEN_KEY") or _ask("Key", hidden=True)
    engines = carry_out(lambda regen: regen.engines(), server=address, key=key, as_json=as_json)
    path = keep_login(address, checked_key(key))
    if as_json:
        print_json({"server": address, "engines": [engine.raw for engine in engines]})
        return
    stderr().print(f"Logged in to {address}; kept in {path}.", soft_wrap=True, highlight=False, markup=False)


def open_console(
    render: Annotated[str | None, typer.Argument(metavar="[ID]", help="The page of this render.")] = None,
    server: ServerOption = None,
    as_json: AsJson = False,
) -> None:
    """Open the server's page in a browser. Prints its address."""
    url = f"{find_server(server)}/{f'#/renders/{render}' if render else ''}"
    if as_json:
        print_json({"url": url})
    else:
        typer.echo(url)
    webbrowser.open(url)


def _ask(what: str, *, hidden: bool = False) -> str:
    if sys.stdin.isatty():
        answer: str = typer.prompt(what, hide_input=hidden, err=True)
    else:
        answer = sys.stdin.readline()
    if not answer.strip():
        raise typer.BadParameter(f"no {what.lower()} was given.")
    return answer.strip()
