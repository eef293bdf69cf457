"""Worker processes: which work they take, and that they outlive their broker's troubles and others' messages."""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import select

from app.platform.queue import OLD_QUEUE, WORK_TASK, make_celery, queue_name, waiting_messages, wake_workers
from app.platform.work_kinds import WorkKind, WorkQueue
from app.renders.statuses import RenderStatus
from app.work.ledger import WorkLedger
from app.work.tables import MeasuredSpeed, WorkerProcess
from tests.integration.worker.conftest import (
    CLIP_FRAMES,
    CLIP_HEIGHT,
    CLIP_WIDTH,
    Workplace,
    lines,
    wait_ready,
)
from tests.servers.broker import BrokerServer, StartBroker
from tests.servers.process import ServerProcess, free_port, wait_until

MakeWorkplace = Callable[..., Workplace]


def metrics(port: int) -> dict[tuple[str, ...], float]:
    """Samples by name and label values, in the order of the labels' names."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return {
            (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in families
            for sample in family.samples
        }


def check_zeros(port: int, *, kinds: list[str], engines: list[str]) -> None:
    """Prometheus sees the growth of what is there, at zero, before anything happens."""
    seen = metrics(port)

    def labels(name: str) -> list[tuple[str, ...]]:
        assert all(value == 0 for sample, value in seen.items() if sample[0] == name)
        return sorted(sample[1:] for sample in seen if sample[0] == name)

    outcomes = ("done", "failed", "given_back", "lease_lost", "postponed")
    assert labels("regen_work_units_total") == [(kind, outcome) for kind in kinds for outcome in outcomes]
    for name in ("regen_work_seconds_count", "regen_lease_losses_total"):
        assert labels(name) == [(kind,) for kind in kinds]
    assert labels("regen_leases_expired_total") == [("finish",), ("prepare",), ("upscale",)]
    for name in ("frames_upscaled", "input_pixels", "output_pixels", "upscaling_seconds"):
        assert labels(f"regen_{name}_total") == [("cpu", engine) for engine in engines]


def kinds_of(worker: ServerProcess) -> set[str]:
    return {line["kind"] for line in lines(worker, "work_done")}


def test_workers_of_different_queues_share_a_render_and_count_what_they_do(
    workplace: MakeWorkplace, broker_server: BrokerServer
) -> None:
    # So long a lease that nothing but wake-ups brings the work from one worker to the other in time.
    place = workplace(
        broker_url=broker_server.url, broker_password=broker_server.password, lease_seconds="600"
    )
    gpu_port, cpu_port = free_port(), free_port()
    gpu = place.start_worker("--queues", "gpu", "--metrics-port", str(gpu_port))
    # What no worker of this queue needs may be missing.
    cpu = place.start_worker("--queues", "cpu", "--metrics-port", str(cpu_port), device="cuda:99")
    wait_ready(gpu)
    wait_ready(cpu)
    check_zeros(gpu_port, kinds=["upscale"], engines=["regen-4x", "regen-4x-anime", "regen-4x-lite"])
    check_zeros(cpu_port, kinds=["finish", "prepare"], engines=[])
    render_id = place.submit(request_id="asked-for")
    assert wake_workers(make_celery(place.settings), WorkKind.PREPARE.queue)
    place.wait_completed(render_id)

    cpu.wait_until(lambda: len(lines(cpu, "work_done")) == 2, seconds=10, what="the finish is counted")
    assert kinds_of(gpu) == {"upscale"}
    assert kinds_of(cpu) == {"prepare", "finish"}
    for worker, device in ((gpu, "cpu"), (cpu, "none")):
        for line in lines(worker, "work_started"):
            assert (line["render_id"], line["request_id"]) == (render_id, "asked-for")
            assert line["device"] == device
            assert str(worker.pid) in line["worker"]
    assert all(line["segment_id"] and line["attempt"] == 1 for line in lines(gpu, "work_done"))
    assert not any("render_id" in line for line in lines(gpu, "metrics_served"))

    seen = metrics(gpu_port)
    frame_pixels = CLIP_WIDTH * CLIP_HEIGHT
    assert seen["regen_work_units_total", "upscale", "done"] == 2 == len(lines(gpu, "work_done"))
    assert seen["regen_work_seconds_count", "upscale"] == 2
    assert seen["regen_frames_upscaled_total", "cpu", "regen-4x-lite"] == CLIP_FRAMES
    assert seen["regen_input_pixels_total", "cpu", "regen-4x-lite"] == CLIP_FRAMES * frame_pixels
    assert seen["regen_output_pixels_total", "cpu", "regen-4x-lite"] == CLIP_FRAMES * frame_pixels * 16
    assert seen["regen_upscaling_seconds_total", "cpu", "regen-4x-lite"] > 0
    assert seen["regen_worker_busy",] == 0
    (info,) = [labels for labels in seen if labels[0] == "regen_worker_info"]
    # In the order of the labels' names: device, driver, ffmpeg, queues, ...
    assert (info[1], info[4]) == ("cpu", "gpu")
    assert metrics(cpu_port)["regen_work_units_total", "finish", "done"] == 1
    with place.database.read() as session:
        speed = session.scalars(select(MeasuredSpeed)).one()
        assert (speed.engine, speed.pixels_per_second > 0) == ("regen-4x-lite", True)
        # It says nothing of what a network takes on such a device.
        assert speed.worker_device.startswith("stand-in network, CPU, ")
        names = {worker.queues: worker.device_name for worker in session.scalars(select(WorkerProcess))}
        assert names == {"gpu": speed.worker_device, "cpu": None}


def test_old_and_unknown_messages_are_drained_and_stop_no_worker(
    workplace: MakeWorkplace, broker_server: BrokerServer
) -> None:
    place = workplace(
        broker_url=broker_server.url, broker_password=broker_server.password, lease_seconds="600"
    )
    celery = make_celery(place.settings)
    render_id = place.submit()
    with celery.connection_for_write() as connection:
        for queue in (OLD_QUEUE, queue_name(WorkQueue.GPU)):
            celery.send_task(
                "regen.upscale_segment", args=["an id", 3], queue=queue, connection=connection, retry=False
            )
        producer = connection.Producer()
        for body in ("neither", {"task": "old style"}):
            producer.publish(body, exchange=OLD_QUEUE, routing_key=OLD_QUEUE)
        # The wake-up of a server of the version before.
        celery.send_task("regen.work", queue=OLD_QUEUE, connection=connection, retry=False)
    worker = place.start_worker()
    place.wait_completed(render_id)
    worker.wait_until(
        lambda: len(lines(worker, "message_dropped")) == 4, seconds=10, what="the messages are dropped"
    )
    assert [line["task"] for line in lines(worker, "message_dropped")].count("regen.upscale_segment") == 2
    with broker_server.client() as client:
        names = [OLD_QUEUE, *map(queue_name, WorkQueue)]
        wait_until(lambda: not any(map(client.llen, names)), what="every message is taken")
    assert worker.stop() == os.EX_OK


def test_a_worker_outlives_its_brokers_restart_its_silence_and_a_dropped_connection(
    workplace: MakeWorkplace, start_broker: StartBroker
) -> None:
    broker = start_broker(password="with a password", tls=True)
    place = workplace(
        broker_url=f"{broker.url}?ssl_ca_certs={broker.ca_file}",
        broker_password=broker.password or "",
        lease_seconds="3",
    )
    worker = place.start_worker()
    wait_ready(worker)

    at_work = place.submit()
    worker.wait_until(lambda: lines(worker, "work_started"), seconds=30, what="the sweeper finds the render")
    assert broker.drop_connections() > 0
    broker.restart()
    place.wait_completed(at_work)
    after_restart = place.submit()
    place.wait_completed(after_restart)

    broker.pause()
    in_silence = place.submit()
    # By the sweeper, or, when a message from before had the worker take the render, by its own wake-ups.
    worker.wait_until(
        lambda: lines(worker, "sweep_failed") or lines(worker, "wake_up_failed"),
        seconds=30,
        what="the silence is noticed",
    )
    broker.resume()
    place.wait_completed(in_silence)
    assert broker.password not in worker.log.read_text()
    assert worker.stop() == os.EX_OK


def test_a_worker_that_waits_for_its_broker_can_be_stopped(workplace: MakeWorkplace) -> None:
    place = workplace(broker_url=f"redis://127.0.0.1:{free_port()}/0", queues="cpu")
    worker = place.start_worker()
    worker.wait_until(lambda: lines(worker, "broker_awaited"), seconds=30, what="the broker is missed")
    worker.wait_until(lambda: "Trying again" in worker.tail(), seconds=30, what="it tries again")
    assert worker.stop(with_signal=signal.SIGINT) == os.EX_OK


def catches_sigterm(worker: ServerProcess) -> bool:
    status = Path(f"/proc/{worker.pid}/status").read_text()
    (caught,) = re.findall(r"^SigCgt:\s+(\w+)", status, re.MULTILINE)
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def has_torch(worker: ServerProcess) -> bool:
    return "libtorch" in Path(f"/proc/{worker.pid}/maps").read_text()


@pytest.mark.parametrize(
    "moment",
    [
        lambda worker: catches_sigterm(worker) and not has_torch(worker),
        has_torch,
        lambda worker: lines(worker, "broker_awaited"),
    ],
    ids=["before torch is loaded", "torch is being loaded", "the broker is away"],
)
def test_a_worker_can_be_stopped_while_it_starts(
    workplace: MakeWorkplace, moment: Callable[[ServerProcess], object]
) -> None:
    worker = workplace(broker_url=f"redis://127.0.0.1:{free_port()}/0", debuggable="true").start_worker(
        forked=False
    )
    worker.wait_until(lambda: moment(worker), seconds=30, what="the moment comes")
    assert not lines(worker, "worker_ready")
    assert worker.stop() == os.EX_OK
    assert "Traceback" not in worker.tail()


def test_a_worker_with_a_wrong_password_says_so_and_ends(
    workplace: MakeWorkplace, broker_server: BrokerServer
) -> None:
    place = workplace(broker_url=broker_server.url, broker_password="not it, and secret", queues="cpu")
    worker = place.start_worker()
    wait_until(lambda: worker.status is not None, seconds=30, what="the worker ends")
    assert worker.status == os.EX_CONFIG
    assert "REGEN_BROKER_PASSWORD" in worker.tail()
    assert "not it, and secret" not in worker.tail()


def test_work_is_handed_on_by_a_worker_that_is_stopped(
    workplace: MakeWorkplace, broker_server: BrokerServer
) -> None:
    place = workplace(
        broker_url=broker_server.url,
        broker_password=broker_server.password,
        lease_seconds="600",
        segment_seconds="0.1",  # enough of them that it is not done before it is stopped
    )
    worker = place.start_worker()
    wait_ready(worker)
    render_id = place.submit()
    celery = make_celery(place.settings)
    wake_workers(celery, WorkKind.PREPARE.queue)
    worker.wait_until(lambda: "upscale" in str(lines(worker, "work_started")), seconds=30, what="it works")
    assert worker.stop() == os.EX_OK
    assert place.status(render_id) is RenderStatus.PROCESSING
    assert waiting_messages(celery, WorkQueue.GPU) > 0
    ledger = WorkLedger(database=place.database, worker="other", lease_seconds=600, max_attempts=3)
    assert ledger.ready_units()[WorkQueue.GPU] > 0


def test_operators_of_celery_see_workers_also_while_they_work(
    workplace: MakeWorkplace, broker_server: BrokerServer
) -> None:
    place = workplace(
        broker_url=broker_server.url,
        broker_password=broker_server.password,
        stand_in_seconds_per_frame="0.5",
        labels="pool=a",
    )
    celery = make_celery(place.settings)
    events: list[str] = []
    receiver_connection = celery.connection_for_read()
    receiver = celery.events.Receiver(receiver_connection)

    def note(event: dict[str, str]) -> None:
        events.append(event["type"])
        receiver.should_stop = event["type"] == "worker-heartbeat"

    receiver.handlers["*"] = note
    try:
        worker = place.start_worker("--engines", "regen-4x-lite")
        wait_ready(worker)

        def rows() -> list[WorkerProcess]:
            with place.database.read() as session:
                return list(session.scalars(select(WorkerProcess)))

        wait_until(rows, what="it is registered")
        with place.database.read() as session:
            (row,) = session.scalars(select(WorkerProcess))
            assert (row.engines, row.labels) == (["regen-4x-lite"], ["pool=a"])
            assert set(row.software or {}) == {"ffmpeg", "torch", "driver"}
        node = f"regen@{row.name}"
        render_id = place.submit()
        for queue in WorkQueue:
            wake_workers(celery, queue)
        worker.wait_until(
            lambda: any(line.get("kind") == "upscale" for line in lines(worker, "work_started")),
            seconds=30,
            what="it upscales",
        )
        inspect = celery.control.inspect(destination=[node], timeout=10, limit=1)
        assert inspect.ping() == {node: {"ok": "pong"}}
        (task,) = inspect.active()[node]
        assert task["name"] == WORK_TASK
        assert {queue["name"] for queue in inspect.active_queues()[node]} >= {*map(queue_name, WorkQueue)}
        assert inspect.registered()[node] == [WORK_TASK]
        assert inspect.stats()[node]["pid"] == worker.pid
        # A second without an event counts as one.
        receiver.capture(limit=30, timeout=30)
        assert "worker-heartbeat" in events
        place.wait_completed(render_id)
        celery.control.broadcast("shutdown", destination=[node])
        wait_until(lambda: worker.status == 0, seconds=30, what="it ends as it was told")
    finally:
        receiver_connection.release()
        celery.close()
