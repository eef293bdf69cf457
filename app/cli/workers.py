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
    from app.work.workers import list_workers

    with open_database(settings, read_only=True) as database, database.read() as session:
        found = [
            (view, view.is_alive(lease_seconds=settings.lease_seconds)) for view in list_workers(session)
        ]
    if as_json:
        views = [{**asdict(view), "alive": alive} for view, alive in found]
        typer.echo(json.dumps(views, indent=2, default=_plain))
        return
    rows = []
    for view, alive in found:
        in_hand = f"{view.kind.value} {view.render_id}" if view.kind else "idle"
        row = (
            view.name,
            view.device,
            ",".join(view.queues),
            view.version,
            f"{view.started_at:%Y-%m-%d %H:%M}",
            in_hand if alive else f"silent since {view.heartbeat_at:%Y-%m-%d %H:%M:%S}",
            str(view.units_done),
        )
        rows.append(row)
    print_rows(("worker", "device", "queues", "version", "started", "state", "units done"), rows)


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
