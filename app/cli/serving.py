"""`regen serve` and `regen worker`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import structlog
import typer

from app.cli.database import require_database
from app.cli.reporting import (
    DataDirectory,
    Host,
    ParentPid,
    Port,
    load_settings,
    print_error,
    require_worker_packages,
    start_logging,
)
from app.platform.errors import ConfigurationError, FfmpegMissing, StorageError
from app.platform.garbage import without_collection
from app.platform.media.sandbox import close_memory
from app.platform.work_kinds import WorkQueue

log = structlog.get_logger(__name__)


def serve(
    host: Host = "127.0.0.1",
    port: Port = 8000,
    data_dir: DataDirectory = None,
    ready_file: Annotated[
        Path | None,
        typer.Option(
            help="A file that appears once the server answers requests, with the url, the process id and, on first "
            "start, the key as JSON; it is removed when the server stops.",
            show_default=False,
        ),
    ] = None,
    no_worker: Annotated[bool, typer.Option("--no-worker", help="Serve the API alone.")] = False,
    api_processes: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=64,
            help="Answer requests with so many processes. Overrides REGEN_API_PROCESSES.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Serve the API, with an embedded broker and worker."""
    settings = load_settings(data_dir)
    if api_processes is not None:
        settings = settings.model_copy(update={"api_processes": api_processes})
    if settings.mode == "mock":
        from app.cli.mock import run_mock

        run_mock(settings, data_dir=data_dir, host=host, port=port, ready_file=ready_file)
        return
    start_logging(settings)
    close_memory(settings)
    if not no_worker:
        require_worker_packages()
    with without_collection():
        from app.serving.server import end_process
        from app.serving.server import serve as run_server

    run_server(
        settings,
        host=host,
        port=port,
        ready_file=ready_file,
        with_worker=not no_worker,
        on_first_key=_show_first_key,
        on_no_key=_tell_how_to_make_a_key,
        on_ready=lambda url: typer.echo(f"Regen is serving at {url}"),
        on_sign_in_link=lambda link: typer.echo(f"Its console, signed in once by this link: {link}"),
    )
    end_process()


def api_process(
    number: Annotated[int, typer.Option()],
    of: Annotated[int, typer.Option()],
    descriptor: Annotated[int, typer.Option()],
    parent_pid: Annotated[int, typer.Option()],
    data_dir: DataDirectory = None,
) -> None:
    """One of several API processes, on the listening socket that it inherits. `regen serve` starts it."""
    settings = load_settings(data_dir).model_copy(update={"api_processes": of})
    start_logging(settings)
    close_memory(settings)
    with without_collection():
        from app.serving.api_processes import serve_inherited
        from app.serving.child import end_with_parent
        from app.serving.server import end_process

    end_with_parent(parent_pid)
    try:
        serve_inherited(settings, number=number, descriptor=descriptor)
    except (ConfigurationError, FfmpegMissing, StorageError) as error:
        print_error(error)
        raise typer.Exit(os.EX_CONFIG) from error
    end_process()


def worker(
    data_dir: DataDirectory = None,
    queues: Annotated[
        str | None,
        typer.Option(
            help="What to do: `gpu` upscales segments, `cpu` reads videos and joins results, `cpu,gpu` both. "
            "Overrides REGEN_QUEUES.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            help="`cpu`, `mps`, `cuda`, the number of a CUDA device, or its UUID (`GPU-...`, `MIG-...`). Overrides "
            "REGEN_DEVICE; given several times, one process for each.",
            show_default=False,
        ),
    ] = None,
    all_gpus: Annotated[
        bool, typer.Option("--all-gpus", help="One process for every GPU or MIG instance.")
    ] = False,
    engines: Annotated[
        str | None,
        typer.Option(
            help="The engines to upscale with, such as `regen-4x`. Overrides REGEN_ENGINES.",
            show_default=False,
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            help="A label for this worker, such as `pool=a`; may be given several times. Overrides REGEN_LABELS.",
            show_default=False,
        ),
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Serve metrics on this port, several processes on consecutive ones; 0 takes free ones. Overrides "
            "REGEN_WORKER_METRICS_PORT.",
            show_default=False,
        ),
    ] = None,
    parent_pid: ParentPid = None,
) -> None:
    """Work on renders until stopped. Exit status 78: this machine is set up wrong."""
    try:
        status = _work(
            data_dir,
            queues=queues,
            engines=engines,
            labels=label,
            devices=[f"cuda:{name}" if name.isdecimal() else name for name in device or ()],
            all_gpus=all_gpus,
            metrics_port=metrics_port,
            parent_pid=parent_pid,
        )
    except (ConfigurationError, FfmpegMissing) as error:
        print_error(error)
        raise typer.Exit(os.EX_CONFIG) from error
    raise typer.Exit(status)


def _work(
    data_dir: Path | None,
    *,
    queues: str | None,
    engines: str | None,
    labels: list[str] | None,
    devices: list[str],
    all_gpus: bool,
    metrics_port: int | None,
    parent_pid: int | None,
) -> int:
    if all_gpus and devices:
        raise typer.BadParameter("give either --all-gpus or --device.")
    changes: dict[str, object] = {}
    if queues is not None:
        changes["queues"] = _parse_queues(queues)
    if engines is not None:
        changes["engines"] = tuple(name.strip() for name in engines.split(","))
    if labels:
        changes["labels"] = tuple(labels)
    if metrics_port is not None:
        changes["worker_metrics_port"] = metrics_port
    if len(devices) == 1:
        changes["device"] = devices[0]
    settings = load_settings(data_dir).model_copy(update=changes)
    start_logging(settings)
    close_memory(settings)
    if parent_pid is not None:
        from app.serving.child import end_with_parent

        end_with_parent(parent_pid)
    require_worker_packages()
    # Otherwise it would be made empty, and be refused.
    require_database(settings)
    if all_gpus or len(devices) > 1:
        from app.serving.workers import accelerators, run_workers

        return run_workers(settings, accelerators() if all_gpus else devices)
    with without_collection():
        from worker.celery_app import run_worker

    try:
        return run_worker(settings)
    except (ConfigurationError, FfmpegMissing) as error:
        log.error("worker_cannot_start", error=error.message, detail=error.detail)
        raise


def _parse_queues(text: str) -> tuple[WorkQueue, ...]:
    try:
        return tuple(dict.fromkeys(WorkQueue(name.strip()) for name in text.split(",")))
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not {', '.join(WorkQueue)} or several of them, separated by commas.",
            param_hint="--queues",
        ) from None


def _show_first_key(key: str) -> None:
    typer.echo(f"API key of the user 'default' (shown only once): {key}")


def _tell_how_to_make_a_key() -> None:
    typer.echo(
        "No API key can be used: each was revoked or has expired. Make one with: regen keys create --user NAME",
        err=True,
    )
