"""`regen mock`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.reporting import Host, ParentPid, Port, load_settings, start_logging

if TYPE_CHECKING:
    from app.platform.settings import Settings


def mock(
    host: Host = "127.0.0.1",
    port: Port = 8000,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Keep files in its folder `mock`, instead of a directory that is removed when the mock stops.",
            show_default=False,
        ),
    ] = None,
    ready_file: Annotated[
        Path | None,
        typer.Option(
            help="A file that appears once the mock answers requests, with the url, the process id and the key as "
            "JSON; it is removed when the mock stops.",
            show_default=False,
        ),
    ] = None,
    transitions: Annotated[
        str | None,
        typer.Option(
            help="When renders change status: `instant`, or after `seconds:2` or `polls:3` in each status.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="What ids follow from.", show_default=False)] = None,
    clock: Annotated[
        str | None,
        typer.Option(
            help="The moment of the first request, as 2026-01-01T00:00:00Z; each further request comes a second later.",
            show_default=False,
        ),
    ] = None,
    strict: Annotated[
        bool | None,
        typer.Option(
            "--strict/--no-strict",
            help="Refuse unknown names of fields and query parameters, which the server ignores.",
            show_default=False,
        ),
    ] = None,
    parent_pid: ParentPid = None,
) -> None:
    """Serve the same API with stand-ins behind it, for tests of clients. A plain scaler makes the renders."""
    given: dict[str, Any] = {
        "mock_transitions": transitions,
        "mock_seed": seed,
        "mock_clock": clock,
        "mock_strict": strict,
    }
    settings = load_settings(None, **{name: value for name, value in given.items() if value is not None})
    if parent_pid is not None:
        from app.serving.child import end_with_parent

        end_with_parent(parent_pid)
    run_mock(settings, data_dir=data_dir, host=host, port=port, ready_file=ready_file)


def run_mock(
    settings: Settings, *, data_dir: Path | None, host: str, port: int, ready_file: Path | None
) -> None:
    """Serve until a signal requests a stop."""
    start_logging(settings)
    from app.mock.options import KEY
    from app.mock.server import serve_mock

    serve_mock(
        settings,
        data_dir=data_dir,
        host=host,
        port=port,
        ready_file=ready_file,
        on_ready=lambda url: typer.echo(f"The Regen mock is serving at {url}, with the key {KEY}"),
    )
