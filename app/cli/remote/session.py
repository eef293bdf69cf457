"""How a command talks to a server and ends: errors as sentences, exit codes, and what to do after an interruption."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, TypeVar

import typer
from rich.markup import escape

from app.cli.remote.connection import NoLogin, checked_key, find_key, find_server
from app.cli.reporting import sentence_of, stderr

if TYPE_CHECKING:
    from regen_client import AsyncRegen

T = TypeVar("T")
# Short questions are tried for a few seconds, transfers for longer.
FEW_RETRIES, RETRIES = 2, 6


class ExitCode(IntEnum):
    FAILED = 1
    USAGE = 2
    NO_ANSWER = 3
    NO_ACCESS = 4
    RENDER_FAILED = 5
    TIME_OVER = 6
    INTERRUPTED = 130


def carry_out(
    work: Callable[[AsyncRegen], Awaitable[T]],
    *,
    server: str | None,
    as_json: bool,
    key: str | None = None,
    retries: int = FEW_RETRIES,
    going_on: Callable[[], Iterable[str]] = tuple,
) -> T:
    """What `work` returns. Its errors end the command with their exit code; an interruption prints the lines of
    `going_on`, which say what is left and how to go on."""
    from regen_client import AsyncRegen
    from regen_client.errors import RegenError as ClientError

    address = ""

    async def connected() -> T:
        known = checked_key(key) if key else find_key(address)
        async with AsyncRegen(address, known, retries=retries) as regen:
            return await work(regen)

    try:
        address = find_server(server)
        return asyncio.run(connected())
    except KeyboardInterrupt:
        stderr().print("[yellow]Interrupted.[/yellow]")
        for line in going_on():
            stderr().print(escape(line), soft_wrap=True, highlight=False)
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    except (ClientError, NoLogin, OSError) as error:
        report([(None, error)], server=address, as_json=as_json)
        raise typer.Exit(exit_code_of(error)) from error


async def attempt(work: Awaitable[T]) -> T | Exception:
    """What it returns, or its error, for commands that do the same to several things."""
    from regen_client.errors import RegenError as ClientError

    try:
        return await work
    except (ClientError, OSError) as error:
        return error


def end_with(
    failed: Sequence[tuple[str, Exception]], *, of: Sequence[str], server: str | None, as_json: bool
) -> None:
    """Report what failed of several things, if any did, and end the command with the exit code of the first."""
    if failed:
        shown = [(name if len(of) > 1 else None, error) for name, error in failed]
        report(shown, server=find_server(server), as_json=as_json)
        raise typer.Exit(exit_code_of(failed[0][1]))


def report(failures: Sequence[tuple[str | None, Exception]], *, server: str, as_json: bool) -> None:
    """Print what failed on stderr: a sentence each, after what it is about; as JSON in the API's shape of errors."""
    told = [
        (f"{subject}: {sentence}" if subject else sentence)
        for subject, error in failures
        for sentence in _sentences(error, server)
    ]
    if as_json:
        typer.echo(json.dumps({"errors": [{"message": sentence} for sentence in told]}), err=True)
        return
    for sentence in told:
        stderr().print(f"[red]{escape(sentence)}[/red]", soft_wrap=True, highlight=False)


def exit_code_of(error: Exception) -> ExitCode:
    from regen_client.errors import ApiError, NoAnswer, RenderFailed, WaitTimeout

    if isinstance(error, NoLogin) or (isinstance(error, ApiError) and error.status in (401, 403)):
        return ExitCode.NO_ACCESS
    if isinstance(error, NoAnswer) or (isinstance(error, ApiError) and error.status in (502, 503, 504)):
        return ExitCode.NO_ANSWER
    if isinstance(error, WaitTimeout):
        return ExitCode.TIME_OVER
    return ExitCode.RENDER_FAILED if isinstance(error, RenderFailed) else ExitCode.FAILED


def _sentences(error: Exception, server: str) -> Iterable[str]:
    from regen_client.errors import ApiError, NoAnswer

    if isinstance(error, ApiError):
        yield from error.messages
        if error.status == 401:
            yield f"Log in by `regen login {server}`, or set REGEN_KEY."
        elif error.status >= 500 and error.request_id:
            yield f"The server's log has more, under {error.request_id}."
    elif isinstance(error, NoAnswer):
        yield f"{server} does not answer: {str(error).partition(': ')[2] or error}"
    else:
        yield sentence_of(error)
