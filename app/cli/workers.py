"""`regen workers`: lists workers, drains and resumes them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.database import open_database
from app.cli.reporting import AsJson, DataDirectory, load_settings, print_body, print_rows
from app.platform.errors import NotFound

if TYPE_CHECKING:
    from app.work.workers import WorkerView

workers = typer.Typer(help="The workers: list them, drain one and resume it.")

Name = Annotated[
    str,
    typer.Argument(help="The worker's name as in `regen workers`, or a label, for all workers that have it."),
]


@workers.callback(invoke_without_command=True)
def list_all(
    context: typer.Context,
    as_json: AsJson = False,
    data_dir: DataDirectory = None,
) -> None:
    """List the workers and the work they have in hand."""
    if context.invoked_subcommand is not None:
        return
    settings = load_settings(data_dir)
    from app.work.workers import count_workers, list_workers

    with open_database(settings, read_only=True) as database, database.read() as session:
        found = list_workers(session)
        workforce = count_workers(session, lease_seconds=settings.lease_seconds)
    if as_json:
        from app.work.schemas import Worker, WorkersBody

        print_body(
            WorkersBody(workers=[Worker.of(view, lease_seconds=settings.lease_seconds) for view in found])
        )
        return
    rows = [_row(view, lease_seconds=settings.lease_seconds) for view in found]
    columns = ("worker", "device", "queues", "for", "version", "with", "started", "state", "units done")
    print_rows(columns, rows)
    for warning in workforce.warnings:
        typer.echo(warning)
    if workforce.missing:
        typer.echo(
            "A worker that cannot start says why in its log (`worker_cannot_start`); `regen doctor` looks too."
        )


def _row(view: "WorkerView", *, lease_seconds: float) -> tuple[str, ...]:
    from app.work.workers import WorkerStatus

    state = f"{view.kind.value} {view.render_id}" if view.kind else "idle"
    if view.precision:
        state += f" in {view.precision}"
    if view.is_stalled(lease_seconds=lease_seconds):
        state += f", which has not moved for {view.still_seconds:.0f} s"
    if view.status is not WorkerStatus.ACTIVE:
        state = f"{view.status} since {view.status_since:%Y-%m-%d %H:%M:%S}, {state}"
    if view.quarantine_reason:
        state += f" ({view.quarantine_reason})"
    if not view.is_alive(lease_seconds=lease_seconds):
        held = f", with {state}" if view.kind else ""
        state = f"silent since {view.heartbeat_at:%Y-%m-%d %H:%M:%S}{held}"
    return (
        view.name,
        f"{view.device} ({', '.join(view.precisions)})" if view.precisions else view.device,
        ",".join(view.queues),
        ", ".join((*view.engines, *view.labels)),
        view.version,
        ", ".join(
            [f"{name} {version}" for name, version in view.software.items()]
            + (["VMAF"] if view.measures_vmaf else [])
        ),
        f"{view.started_at:%Y-%m-%d %H:%M}",
        state,
        str(view.units_done),
    )


@workers.command("drain")
def drain(name: Name, data_dir: DataDirectory = None) -> None:
    """Stop a worker from claiming. It finishes its work in hand, and the process continues."""
    _change(name, data_dir, is_to_claim=False)
    typer.echo(f"{name} claims no more work. `regen workers` shows when it is drained.")


@workers.command("resume")
def resume(name: Name, data_dir: DataDirectory = None) -> None:
    """Let a drained or quarantined worker claim again."""
    _change(name, data_dir, is_to_claim=True)
    typer.echo(f"{name} claims again.")


def _change(name: str, data_dir: Path | None, *, is_to_claim: bool) -> None:
    settings = load_settings(data_dir)
    from app.work import worker_standing
    from app.work.workers import list_workers

    with open_database(settings) as database, database.write() as session:
        named = [view.name for view in list_workers(session) if name in (view.name, *view.labels)]
        for one in named:
            (worker_standing.resume if is_to_claim else worker_standing.drain)(session, name=one)
    if not named:
        raise NotFound(f"There is no worker {name}. `regen workers` lists them.")
