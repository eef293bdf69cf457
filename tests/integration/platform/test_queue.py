"""Wake-ups: how many lie in a queue, bounded in time when the broker is in trouble, and who is let in."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.cli.reporting import load_settings
from app.platform.errors import ConfigurationError, Unavailable
from app.platform.queue import MOST_WAKE_UPS, check_broker, make_celery, waiting_messages, wake_workers
from app.platform.settings import Settings
from app.platform.work_kinds import WorkQueue
from tests.servers.broker import BrokerServer, StartBroker
from tests.servers.process import free_port

PROMISED_SECONDS = 5


@contextmanager
def bounded() -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < PROMISED_SECONDS


def assert_away(url: str) -> None:
    celery = make_celery(Settings(broker_url=url))
    with bounded():
        assert wake_workers(celery, WorkQueue.GPU, units=3) is False
    with bounded(), pytest.raises(Unavailable):
        waiting_messages(celery, WorkQueue.GPU)
    with bounded(), pytest.raises(Unavailable):
        check_broker(celery)


def test_a_broker_that_never_answers_costs_a_few_seconds_at_most(black_hole: int) -> None:
    assert_away(f"redis://127.0.0.1:{black_hole}/0")


def test_a_broker_that_refuses_costs_a_few_seconds_at_most() -> None:
    assert_away(f"redis://127.0.0.1:{free_port()}/0")


def test_a_broker_whose_name_nobody_knows_is_away() -> None:
    assert_away("redis://no-such-host.invalid:6379/0")


def test_an_embedded_broker_that_was_not_started_is_away(tmp_path: Path) -> None:
    assert_away(f"redis+socket://{tmp_path}/none.sock")


def test_a_broker_that_falls_silent_is_away_until_it_answers_again(start_broker: StartBroker) -> None:
    broker = start_broker()
    celery = make_celery(Settings(broker_url=broker.url))
    assert wake_workers(celery, WorkQueue.CPU)
    broker.pause()
    for _ in range(2):
        with bounded():
            assert wake_workers(celery, WorkQueue.CPU) is False
    broker.resume()
    assert wake_workers(celery, WorkQueue.CPU)
    broker.restart()
    assert wake_workers(celery, WorkQueue.CPU)
    assert waiting_messages(celery, WorkQueue.CPU) == 1


def test_messages_do_not_pile_up_while_every_worker_is_busy(broker_server: BrokerServer) -> None:
    celery = make_celery(Settings(broker_url=broker_server.url, broker_password=broker_server.password))
    assert wake_workers(celery, WorkQueue.GPU, units=3)
    assert waiting_messages(celery, WorkQueue.GPU) == 3
    assert wake_workers(celery, WorkQueue.GPU, units=MOST_WAKE_UPS)
    assert wake_workers(celery, WorkQueue.GPU)
    assert waiting_messages(celery, WorkQueue.GPU) == MOST_WAKE_UPS
    assert waiting_messages(celery, WorkQueue.CPU) == 0


@pytest.mark.parametrize("password", [None, "not it"])
def test_a_wrong_password_is_told_and_not_repeated(
    broker_server: BrokerServer, password: str | None, capfd: pytest.CaptureFixture[str]
) -> None:
    celery = make_celery(Settings(broker_url=broker_server.url, broker_password=password))
    with pytest.raises(ConfigurationError, match="REGEN_BROKER_PASSWORD") as caught:
        check_broker(celery)
    assert wake_workers(celery, WorkQueue.CPU) is False
    said = f"{caught.value} {caught.value.detail} {capfd.readouterr()}"
    assert password is None or password not in said


def test_a_broker_behind_tls_is_verified(start_broker: StartBroker) -> None:
    broker = start_broker(password="secret", tls=True)

    def celery(url: str) -> Callable[[], None]:
        return lambda: check_broker(make_celery(Settings(broker_url=url, broker_password="secret")))

    celery(f"{broker.url}?ssl_ca_certs={broker.ca_file}")()
    celery(f"{broker.url}?ssl_cert_reqs=required&ssl_ca_certs={broker.ca_file}")()
    celery(f"{broker.url}?ssl_cert_reqs=none")()
    for untrusted in (broker.url, f"{broker.url}?ssl_cert_reqs=required"):
        with pytest.raises(ConfigurationError, match="ssl_ca_certs"):
            celery(untrusted)()
    with pytest.raises(Unavailable):
        celery(broker.url.replace("rediss:", "redis:"))()


@pytest.mark.parametrize(
    "url",
    [
        "amqp://:s3cret@host",
        "unix://:s3cret@/run/broker.sock",
        "redis://host:port/0",
        "redis://:s3/cret@host:6379/0",
        "redis://host/database",
        "rediss://host?ssl_cert_reqs=perhaps",
        "rediss://host?ssl_ca_certs=/no/such/file",
    ],
)
def test_an_address_that_cannot_be_one_is_told_without_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match="REGEN_BROKER_URL") as caught:
        make_celery(load_settings(None, broker_url=url))
    assert "s3" not in f"{caught.value} {caught.value.detail}"
