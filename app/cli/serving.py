"""`regen serve` and `regen worker`."""

from pathlib import Path
from typing import Annotated

import typer

from app.cli.reporting import DataDirectory, load_settings, require_worker_packages, start_logging


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8000,
    data_dir: DataDirectory = None,
    ready_file: Annotated[
        Path | None,
        typer.Option(
            help="A file that appears once requests are answered, with the url, the process id and, on first "
            "start, the key as JSON; it goes when the server stops.",
            show_default=False,
        ),
    ] = None,
    no_worker: Annotated[bool, typer.Option("--no-worker", help="Serve the API alone.")] = False,
) -> None:
    """Serve the API, with an embedded broker and worker."""
    settings = load_settings(data_dir)
    start_logging(settings)
    if not no_worker:
        require_worker_packages()
    from app.serving.server import serve as run_server

    run_server(
        settings,
        host=host,
        port=port,
        ready_file=ready_file,
        with_worker=not no_worker,
        on_first_key=_show_first_key,
        on_ready=lambda url: typer.echo(f"Regen is serving at {url}"),
    )


def worker(
    data_dir: DataDirectory = None,
    parent_pid: Annotated[
        int | None, typer.Option(hidden=True, help="End when this process, our parent, has ended.")
    ] = None,
) -> None:
    """Work on renders until stopped: one process per device."""
    settings = load_settings(data_dir)
    start_logging(settings)
    if parent_pid is not None:
        from app.serving.child import end_with_parent

        end_with_parent(parent_pid)
    require_worker_packages()
    from worker.celery_app import run_worker

    raise typer.Exit(run_worker(settings))


def _show_first_key(key: str) -> None:
    typer.echo(f"API key of the user 'default' (shown this once): {key}")
