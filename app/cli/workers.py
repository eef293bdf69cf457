"""`regen workers`."""

import json
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

import typer

from app.cli.database import open_database
from app.cli.reporting import DataDirectory, load_settings, print_rows


def workers(
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
    data_dir: DataDirectory = None,
) -> None:
    """List the workers: what they are, and what they have in hand."""
    settings = load_settings(data_dir)
    from app.work.workers import count_workers, list_workers

    with open_database(settings, read_only=True) as database, database.read() as session:
        found = [
            (view, view.is_alive(lease_seconds=settings.lease_seconds)) for view in list_workers(session)
        ]
        workforce = count_workers(session, lease_seconds=settings.lease_seconds)
    if as_json:
        views = [
            {**asdict(view), "alive": alive, "stalled": view.is_stalled(lease_seconds=settings.lease_seconds)}
            for view, alive in found
        ]
        typer.echo(json.dumps(views, indent=2, default=_plain))
        return
    rows = []
    for view, alive in found:
        state = f"{view.kind.value} {view.render_id}" if view.kind else "idle"
        if view.is_stalled(lease_seconds=settings.lease_seconds):
            state += f", which has not moved for {view.still_seconds:.0f} s"
        if not alive:
            held = f", with {state}" if view.kind else ""
            state = f"silent since {view.heartbeat_at:%Y-%m-%d %H:%M:%S}{held}"
        row = (
            view.name,
            view.device,
            ",".join(view.queues),
            view.version,
            f"{view.started_at:%Y-%m-%d %H:%M}",
            state,
            str(view.units_done),
        )
        rows.append(row)
    print_rows(("worker", "device", "queues", "version", "started", "state", "units done"), rows)
    for warning in workforce.warnings:
        typer.echo(warning)


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
