"""What the sweeper heals: work that nobody announced, and work whose worker is gone."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from celery import Celery
from prometheus_client import REGISTRY

from app.platform.errors import Unavailable
from app.platform.queue import MOST_WAKE_UPS, make_celery, waiting_messages, wake_workers
from app.platform.settings import Settings
from app.platform.work_kinds import WorkQueue
from app.renders.tables import Render
from app.work.ledger import WorkLedger
from tests.servers.broker import BrokerServer, StartBroker
from tests.servers.process import wait_until
from worker.sweeper import Sweeper

MakeLedger = Callable[..., WorkLedger]


@pytest.fixture
def celery(broker_server: BrokerServer) -> Iterator[Celery]:
    celery = make_celery(Settings(broker_url=broker_server.url, broker_password=broker_server.password))
    yield celery
    celery.close()


def depths(celery: Celery) -> dict[str, int]:
    return {queue.value: waiting_messages(celery, queue) for queue in WorkQueue}


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_work_that_nobody_announced_is_announced_to_the_workers_of_its_queue_and_only_once(
    celery: Celery, make_ledger: MakeLedger, add_render: Callable[[], Render], prepare: Callable[..., object]
) -> None:
    ledger = make_ledger()
    sweeper = Sweeper(ledger=ledger, celery=celery)
    sweeper.sweep()
    assert depths(celery) == {"cpu": 0, "gpu": 0}
    add_render()
    sweeper.sweep()
    assert depths(celery) == {"cpu": 1, "gpu": 0}
    prepare(ledger, ledger.claim(), segments=MOST_WAKE_UPS + 20)
    wake_workers(celery, WorkQueue.GPU, units=3)
    for _ in range(3):
        sweeper.sweep()
    assert depths(celery) == {"cpu": 1, "gpu": MOST_WAKE_UPS}


def test_the_work_of_a_worker_that_is_gone_is_given_back_counted_and_announced(
    celery: Celery, make_ledger: MakeLedger, add_render: Callable[[], Render]
) -> None:
    add_render()
    assert make_ledger("gone", lease_seconds=-1.0).claim() is not None
    before = counted("regen_leases_expired_total", kind="prepare")
    Sweeper(ledger=make_ledger(), celery=celery).sweep()
    assert counted("regen_leases_expired_total", kind="prepare") == before + 1
    assert depths(celery) == {"cpu": 1, "gpu": 0}


def test_a_round_that_fails_is_counted_and_followed_by_others(
    celery: Celery, make_ledger: MakeLedger, add_render: Callable[[], Render], monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = [Unavailable("away"), RuntimeError("a defect")]
    ready_units = WorkLedger.ready_units

    def fails_twice(ledger: WorkLedger) -> object:
        if faults:
            raise faults.pop()
        return ready_units(ledger)

    monkeypatch.setattr(WorkLedger, "ready_units", fails_twice)
    add_render()
    before = counted("regen_sweep_failures_total")
    sweeper = Sweeper(ledger=make_ledger(lease_seconds=0.6), celery=celery)
    sweeper.start()
    wait_until(lambda: depths(celery)["cpu"] == 1, what="the render is announced")
    sweeper.stop()
    assert counted("regen_sweep_failures_total") == before + 2


def test_after_an_outage_of_the_database_every_worker_has_a_lease_to_say_that_it_lives(
    celery: Celery, make_ledger: MakeLedger, add_render: Callable[[], Render], monkeypatch: pytest.MonkeyPatch
) -> None:
    add_render()
    late = make_ledger("cut off", lease_seconds=-1.0)
    claim = late.claim()
    assert claim is not None
    other = make_ledger(lease_seconds=4)
    sweeper = Sweeper(ledger=other, celery=celery)
    with monkeypatch.context() as patch, pytest.raises(Unavailable):
        patch.setattr(WorkLedger, "give_back_expired", _raise_unavailable)
        sweeper.sweep()
    for _ in range(2):
        sweeper.sweep()
        assert late.renew(claim, frames_done=0), "it is still its own"

    def given_back() -> bool:
        sweeper.sweep()
        return not late.renew(claim, frames_done=0) or time.sleep(0.15) is not None

    wait_until(given_back, seconds=20, what="silent again, it loses its work")


def _raise_unavailable(_ledger: WorkLedger) -> None:
    raise Unavailable("away")


def test_a_silent_broker_does_not_hold_up_who_announces(
    start_broker: StartBroker, make_ledger: MakeLedger
) -> None:
    broker = start_broker()
    celery = make_celery(Settings(broker_url=broker.url))
    sweeper = Sweeper(ledger=make_ledger(lease_seconds=600), celery=celery)
    sweeper.start()
    sweeper.announce(Counter({WorkQueue.CPU: 1}))
    wait_until(lambda: depths(celery)["cpu"] == 1, what="the wake-up is sent at once")
    broker.pause()
    started = time.monotonic()
    for _ in range(100):
        sweeper.announce(Counter({WorkQueue.GPU: 1}))
    assert time.monotonic() - started < 1
    broker.resume()
    sweeper.announce(Counter({WorkQueue.CPU: 1}))
    sweeper.stop()
    assert depths(celery)["cpu"] == 2
    celery.close()


def test_what_is_announced_right_before_the_end_is_sent(
    celery: Celery, make_ledger: MakeLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while the broker takes its time over what was announced before."""
    sent: list[WorkQueue] = []
    sending, may_go_on = threading.Event(), threading.Event()

    def wake_slowly(_celery: Celery, queue: WorkQueue, *, units: int) -> bool:
        sending.set()
        assert may_go_on.wait(20)
        sent.append(queue)
        return True

    monkeypatch.setattr("worker.sweeper.wake_workers", wake_slowly)
    sweeper = Sweeper(ledger=make_ledger(lease_seconds=600), celery=celery)
    sweeper.start()
    sweeper.announce(Counter({WorkQueue.GPU: 1}))
    assert sending.wait(20)
    sweeper.announce(Counter({WorkQueue.CPU: 1}))
    stopping = threading.Thread(target=sweeper.stop)
    stopping.start()
    wait_until(sweeper._ended.is_set, what="it is told to stop")
    may_go_on.set()
    stopping.join(20)
    assert sent == [WorkQueue.GPU, WorkQueue.CPU]
