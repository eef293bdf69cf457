"""Wake-ups are bounded in time and may fail."""

import socket
import time
from collections.abc import Iterator

import pytest

from app.core.errors import Unavailable
from app.core.queue import make_celery, waiting_messages, wake_workers
from app.core.settings import Settings

PROMISED_SECONDS = 5


@pytest.fixture
def black_hole() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def seconds_to_wake(url: str) -> float:
    celery = make_celery(Settings(broker_url=url))
    started = time.monotonic()
    assert wake_workers(celery, units=3) is False
    return time.monotonic() - started


def test_a_broker_that_never_answers_costs_a_few_seconds_at_most(black_hole: int) -> None:
    assert seconds_to_wake(f"redis://127.0.0.1:{black_hole}/0") < PROMISED_SECONDS


def test_a_broker_that_refuses_costs_a_few_seconds_at_most() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert seconds_to_wake(f"redis://127.0.0.1:{port}/0") < PROMISED_SECONDS


def test_an_embedded_broker_that_was_not_started_is_no_error(tmp_path: object) -> None:
    assert seconds_to_wake(f"redis+socket://{tmp_path}/none.sock") < PROMISED_SECONDS


def test_a_broker_that_is_away_is_named_as_such() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(Unavailable):
        waiting_messages(make_celery(Settings(broker_url=f"redis://127.0.0.1:{port}/0")))
