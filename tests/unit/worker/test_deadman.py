"""A worker that hangs ends itself, whatever it hangs in; one that works on is left alone."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from celery.worker.consumer.consumer import CONNECTION_ERROR
from celery.worker.consumer.consumer import logger as consumer_logger

from app.platform.progress import Progress, Stillness, current_progress, reporting_to
from app.work.drain import Drain
from app.work.heartbeat import Heartbeat
from tests.servers.process import wait_until
from worker import deadman
from worker.celery_app import CONSUMER_LOGGER, reconnects_as_warnings
from worker.deadman import EXIT_HANGS, Deadman


class Ends:
    """What a deadman did, in place of the end of the process."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.given_back: list[bool] = []


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Ends:
    monkeypatch.setattr(deadman, "MARGIN_SECONDS", 0.0)
    monkeypatch.setattr(deadman, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(deadman, "END_SECONDS", 0.3)
    monkeypatch.setattr(deadman, "LAST_STEP_SECONDS", 0.3)
    # The test's own process goes on.
    monkeypatch.setattr(deadman.faulthandler, "dump_traceback_later", lambda *_args, **_options: None)
    monkeypatch.setattr(deadman.faulthandler, "dump_traceback", lambda *_args: None)
    return Ends()


@pytest.fixture
def start(ends: Ends) -> Iterator[Callable[..., Deadman]]:
    made: list[Deadman] = []

    def start(progress: Progress, drain: Drain, **options: Any) -> Deadman:
        options = {"give_back": ends.given_back.append, "end": ends.statuses.append} | options
        made.append(Deadman(stall_seconds=0.3, drain=drain, **options))
        made[-1].watch("work", progress)
        made[-1].start()
        return made[-1]

    yield start
    for one in made:
        one.stop()


def test_work_without_a_beat_ends_the_process_after_it_was_given_back(
    start: Callable[..., Deadman], ends: Ends
) -> None:
    start(Progress(), Drain(grace_seconds=60))
    wait_until(lambda: ends.statuses, seconds=10, what="it ends")
    assert (ends.statuses, ends.given_back) == ([EXIT_HANGS], [True])


def test_neither_a_lock_nor_an_error_keeps_it_from_ending(start: Callable[..., Deadman], ends: Ends) -> None:
    lock = threading.Lock()
    lock.acquire()
    started = time.monotonic()
    start(Progress(), Drain(grace_seconds=60), give_back=lambda _hangs: lock.acquire() and None)
    wait_until(lambda: ends.statuses, seconds=10, what="it ends")
    assert time.monotonic() - started < 5


def test_work_that_beats_or_is_allowed_to_take_long_goes_on(
    start: Callable[..., Deadman], ends: Ends
) -> None:
    progress = Progress()
    start(progress, Drain(grace_seconds=60))
    for _ in range(10):
        progress.beat()
        time.sleep(0.1)
    with progress.allowing(60):
        time.sleep(0.8)
    assert not ends.statuses


def test_the_log_says_that_a_worker_was_told_to_stop(
    start: Callable[..., Deadman], ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    with structlog.testing.capture_logs() as lines:
        before = signal.signal(signal.SIGTERM, lambda *_: None)
        try:
            start(Progress(), Drain(grace_seconds=30))
            signal.raise_signal(signal.SIGTERM)
            wait_until(lambda: lines, seconds=10, what="it is logged")
        finally:
            signal.signal(signal.SIGTERM, before)
    assert lines[0] == {
        "event": "worker_stopping",
        "log_level": "info",
        "signal": "SIGTERM",
        "grace_seconds": 30,
    }


def test_a_broker_that_is_asked_again_is_a_warning() -> None:
    def record(message: str) -> logging.LogRecord:
        return logging.LogRecord(
            "celery", logging.ERROR, __file__, 1, message, ("redis://", "away", ""), None
        )

    attempt, defect = record(CONNECTION_ERROR), record("another fault %s %s %s")
    assert reconnects_as_warnings(attempt) and reconnects_as_warnings(defect)
    assert (attempt.levelname, defect.levelname) == ("WARNING", "ERROR")
    assert logging.getLogger(CONSUMER_LOGGER) is consumer_logger


@pytest.mark.parametrize("asked", [1, 2])
def test_a_worker_that_was_asked_to_end_ends_though_its_main_thread_beats(
    start: Callable[..., Deadman], ends: Ends, asked: int
) -> None:
    progress, drain = Progress(), Drain(grace_seconds=60 if asked == 2 else 0.1)
    start(progress, drain)
    for _ in range(asked):
        drain.request()
    deadline = time.monotonic() + 10
    while not ends.statuses and time.monotonic() < deadline:
        progress.beat()
        time.sleep(0.02)
    assert (ends.statuses[:1], ends.given_back[:1]) == ([EXIT_HANGS], [False])


def test_time_in_which_the_whole_process_stood_still_does_not_count() -> None:
    progress = Progress()
    stillness = Stillness(progress)
    assert stillness.tick(5) == 5
    progress.beat()
    assert stillness.tick(5) == 0
    assert stillness.tick(2) == 2
    with progress.allowing(1.5):
        assert stillness.tick(1) == 1.5
    assert stillness.tick(1) == 0, "a step that ended was progress"


def test_threads_with_a_copy_of_the_context_beat_the_same_progress() -> None:
    progress = Progress()
    with reporting_to(progress):
        assert current_progress() is progress
    assert current_progress() is not progress


def test_no_lease_is_renewed_for_ever_for_work_that_hangs() -> None:
    class Ledger:
        lease_seconds = 0.06
        renewals = 0

        def renew(self, _claim: object, *, frames_done: int) -> bool:
            self.renewals += 1
            return True

    ledger, progress = Ledger(), Progress()
    with reporting_to(progress), Heartbeat(ledger, object(), still_seconds=0.3) as heartbeat:
        for _ in range(20):
            progress.beat()
            time.sleep(0.03)
        assert not heartbeat.lost
        wait_until(lambda: heartbeat.lost, seconds=10, what="it is given up")
        renewals = ledger.renewals
        time.sleep(0.1)
        assert ledger.renewals == renewals


def test_a_lease_is_lost_for_work_that_fails_by_it_and_not_for_work_that_was_reported() -> None:
    class Ledger:
        lease_seconds = 0.03

        def renew(self, _claim: object, *, frames_done: int) -> bool:
            return False

    with structlog.testing.capture_logs() as lines, Heartbeat(Ledger(), object()) as heartbeat:
        wait_until(lambda: heartbeat.lost, seconds=10, what="it is refused")
    assert lines == []

    with (
        structlog.testing.capture_logs() as lines,
        pytest.raises(RuntimeError),
        Heartbeat(Ledger(), object()) as heartbeat,
    ):
        wait_until(lambda: heartbeat.lost, seconds=10, what="it is refused")
        raise RuntimeError
    assert [line["event"] for line in lines] == ["lease_lost"]


HANGING = """
import signal, sys, threading, time, ctypes, faulthandler
from worker import deadman
from app.platform.progress import Progress
from app.work.drain import Drain
deadman.MARGIN_SECONDS = 0.0
deadman.END_SECONDS = 1.0
drain = Drain(grace_seconds=0.0)
signal.signal(signal.SIGTERM, lambda *_: drain.request())
one = deadman.Deadman(stall_seconds=float(sys.argv[2]), drain=drain, give_back=lambda _: None)
progress = Progress()
one.watch("work", progress)
one.start()
time.sleep(0.6)
print("ready", flush=True)
match sys.argv[1]:
    case "loop":  # as a walk over causes that has no end
        while True:
            pass
    case "lock":
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()
    case "call":  # no handler of Python's runs
        libc = ctypes.CDLL(None)
        libc.sleep(60)
        libc.sleep(60)
        time.sleep(60)
    case "interpreter":  # no thread of Python's runs
        ctypes.PyDLL(None).sleep(60)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hang", "sends", "stall_seconds", "status"),
    [
        ("loop", False, 1.0, EXIT_HANGS),
        ("lock", False, 1.0, EXIT_HANGS),
        ("call", False, 1.0, EXIT_HANGS),
        ("interpreter", False, 1.0, 1),
        ("loop", True, 60.0, EXIT_HANGS),
        ("call", True, 60.0, EXIT_HANGS),
    ],
)
def test_a_process_ends_wherever_its_main_thread_hangs(
    hang: str, sends: bool, stall_seconds: float, status: int
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", HANGING, hang, str(stall_seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    if sends:
        process.send_signal(signal.SIGTERM)
    _out, said = process.communicate(timeout=30)
    assert process.returncode == status
    assert b"most recent call first" in said, "the log shows where it hung"
