"""Three workers, of which one has a broken ffmpeg: no render fails that the others can do."""

import json
from collections.abc import Callable
from pathlib import Path

from typer.testing import CliRunner

from app.cli.application import application
from app.platform.media.programs import find_programs
from app.platform.queue import make_celery, wake_workers
from app.platform.work_kinds import WorkQueue
from app.renders.statuses import RenderStatus
from app.work.workers import WorkerStatus, WorkerView, list_workers
from tests.integration.worker.conftest import Workplace, lines, wait_ready
from tests.servers.broker import BrokerServer
from tests.servers.process import wait_until

RENDERS = 4


def write_program(path: Path, *, broken: bool) -> None:
    """An ffmpeg which, broken, encodes and cannot read a file."""
    condition = '*lavfi*|*pipe:0*) ;; *" -i "*) echo "decoder not found" >&2; exit 1 ;;' if broken else ""
    path.write_text(f'#!/bin/sh\ncase "$*" in {condition} esac\nexec {find_programs().ffmpeg} "$@"\n')
    path.chmod(0o755)


def test_a_worker_with_a_broken_ffmpeg_costs_no_render_and_comes_back_when_it_is_mended(
    workplace: Callable[..., Workplace], broker_server: BrokerServer, tmp_path: Path
) -> None:
    place = workplace(
        broker_url=broker_server.url,
        broker_password=broker_server.password,
        sandbox="off",
        lease_seconds="3",  # so that the sweeper soon finds what has rested
    )
    program = tmp_path / "ffmpeg"
    write_program(program, broken=True)
    bad = place.start_worker(machine="bad", ffmpeg=str(program))
    for name in ("good-1", "good-2"):
        place.start_worker(machine=name)
    for worker in place.workers:
        wait_ready(worker)
    celery = make_celery(place.settings)

    def view(machine: str) -> WorkerView:
        with place.database.read() as session:
            (found,) = [one for one in list_workers(session) if one.machine == machine]
            return found

    def is_quarantined() -> bool:
        if all(place.status(render_id).is_final for render_id in renders):
            renders.append(place.submit())
        for queue in WorkQueue:
            wake_workers(celery, queue, units=3)
        return view("bad").status is WorkerStatus.QUARANTINED

    renders: list[str] = []
    try:
        renders += [place.submit() for _ in range(RENDERS)]
        wait_until(is_quarantined, seconds=60, what="the broken one is in quarantine", pause_seconds=0.3)
        for render_id in renders:
            place.wait_completed(render_id)
        bad.wait_until(lambda: lines(bad, "self_test_failed"), seconds=30, what="it has tested itself")
        assert view("bad").quarantine_reason
        assert {view(name).status for name in ("good-1", "good-2")} == {WorkerStatus.ACTIVE}

        write_program(program, broken=False)
        name = view("bad").name
        data = str(place.root / "data")
        environment = {key: value for key, value in place.environment.items() if key.startswith("REGEN_")}
        resumed = CliRunner().invoke(
            application, ["workers", "resume", name, "--data-dir", data], env=environment
        )
        assert resumed.exit_code == 0, resumed.output
        bad.wait_until(lambda: lines(bad, "worker_recovered"), seconds=30, what="it is back")
        drained = CliRunner().invoke(
            application, ["workers", "drain", name, "--data-dir", data], env=environment
        )
        assert drained.exit_code == 0, drained.output
        bad.wait_until(lambda: lines(bad, "worker_drained"), seconds=30, what="it is drained")
        listed = CliRunner().invoke(application, ["workers", "--json", "--data-dir", data], env=environment)
        assert {one["machine"]: one["status"] for one in json.loads(listed.stdout)["workers"]}[
            "bad"
        ] == "drained"
        assert {place.status(render_id) for render_id in renders} == {RenderStatus.COMPLETED}
    finally:
        celery.close()
