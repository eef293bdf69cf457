"""`regen healthcheck`, for the health checks of containers and probes."""

from __future__ import annotations

import http.client
import os
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from app.cli.reporting import EXIT_FAILURE, DataDirectory, ReportingGroup, load_settings
from app.platform.liveness import WORK_DIRECTORY

ASK_SECONDS = 5.0


def healthcheck(
    url: Annotated[
        str, typer.Option(help="The URL that must answer 200: /healthz, or /readyz for a load balancer.")
    ] = "http://127.0.0.1:8000/healthz",
    worker: Annotated[
        bool, typer.Option("--worker", help="Check the workers of the data directory instead.")
    ] = False,
    data_dir: DataDirectory = None,
) -> None:
    """Say in a sentence whether a server, or the workers of this machine, are healthy: exit status 0 or 1."""
    if worker:
        from app.platform.liveness import FRESH_SECONDS, silent_seconds

        ages = silent_seconds(_work_dir(data_dir))
        is_well = bool(ages) and max(ages) <= FRESH_SECONDS
        sentence = (
            f"{len(ages)} worker{'s' if len(ages) > 1 else ''} alive."
            if is_well
            else "A worker stands still."
        )
        if not ages:
            sentence = "No worker is running here."
    else:
        is_well, sentence = _ask(url)
    typer.echo(sentence)
    if not is_well:
        raise typer.Exit(EXIT_FAILURE)


def main() -> None:
    """The command alone: the imports of all others take seconds on a busy machine, and a probe has few."""
    alone = typer.Typer(cls=ReportingGroup, pretty_exceptions_enable=False)
    alone.callback()(lambda: None)
    alone.command("healthcheck")(healthcheck)
    alone(prog_name="regen")


def _work_dir(data_dir: Path | None) -> Path:
    stated = data_dir or os.environ.get("REGEN_DATA_DIR")
    # The settings take longer to import than all else.
    return Path(stated).expanduser() / WORK_DIRECTORY if stated else load_settings(None).work_dir


def _ask(url: str) -> tuple[bool, str]:
    address = urlsplit(url)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise typer.BadParameter("it must look like http://127.0.0.1:8000/healthz.", param_hint="--url")
    kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
    try:
        connection = kind(address.hostname, address.port, timeout=ASK_SECONDS)
        target = f"{address.path or '/'}{f'?{address.query}' if address.query else ''}"
        connection.request("GET", target)
        status = connection.getresponse().status
    except (OSError, ValueError, http.client.HTTPException) as error:
        return False, f"{url} does not answer: {error or type(error).__name__}."
    return status == 200, f"{url} answers {status}."
