"""A Redis or Valkey server for tests: with a password, with TLS, and with faults."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from app.serving.broker import find_program
from tests.servers.process import ServerProcess, free_port
from tests.servers.relay import Relay

START_SECONDS = 20.0
ASK_SECONDS = 5.0


class BrokerServer:
    """One server on one port of loopback for its whole life, through any number of restarts. It writes no file."""

    def __init__(self, directory: Path, *, password: str | None = None, tls: bool = False) -> None:
        """With `tls` it speaks nothing else, and `ca_file` holds the authority that vouches for it."""
        self.port = self._own_port = free_port()
        self.password = password
        self.ca_file: Path | None = None
        self._directory = directory
        self._tls = tls
        self._program = _debian_program() or find_program()
        self._relay: Relay | None = None
        if tls:
            self.ca_file = make_certificates(directory)
            if _debian_program() is None:
                # The wheel's Valkey is built without TLS.
                certificate, key = directory / "server.crt", directory / "server.key"
                self._relay = Relay(self._own_port, certificate=certificate, key=key)
                self.port = self._relay.port
        self._process: ServerProcess | None = None

    @property
    def url(self) -> str:
        """Without password or certificates."""
        return f"{'rediss' if self._tls else 'redis'}://127.0.0.1:{self.port}/0"

    @property
    def process(self) -> ServerProcess:
        assert self._process is not None, "the broker was not started"
        return self._process

    def client(self) -> redis.Redis:
        """A connection that knows the password and the authority."""
        return redis.Redis(
            port=self.port,
            password=self.password,
            socket_timeout=ASK_SECONDS,
            socket_connect_timeout=ASK_SECONDS,
            ssl=self._tls,
            ssl_ca_certs=str(self.ca_file) if self._tls else None,
        )

    def start(self) -> None:
        """Returns once it answers."""
        self._process = ServerProcess(
            [self._program, *self._arguments()], log=self._directory / "broker.log", directory=self._directory
        )
        self._process.wait_until(self.answers, seconds=START_SECONDS, what="the broker answers")

    def answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except (redis.RedisError, OSError):
            return False

    def stop(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.stop()

    def close(self) -> None:
        """End it for good, also when it has ended already."""
        if self.process.status is None:
            self.stop()
        if self._relay is not None:
            self._relay.close()

    def kill(self) -> None:
        self.process.kill()

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        """It accepts connections, and answers nothing."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def drop_connections(self) -> int:
        """Close the connections of all others. Returns how many there were."""
        with self.client() as client:
            return int(client.client_kill_filter(_type="normal", skipme=True))

    def _arguments(self) -> list[str]:
        own_tls = self._tls and self._relay is None
        plain_port, tls_port = (0, self._own_port) if own_tls else (self._own_port, 0)
        arguments = [
            *("--bind", "127.0.0.1", "--port", str(plain_port)),
            *("--daemonize", "no", "--save", "", "--appendonly", "no"),
            *("--maxmemory-policy", "noeviction"),
        ]
        if self.password is not None:
            arguments += ["--requirepass", self.password]
        if own_tls:
            arguments += ["--tls-port", str(tls_port), "--tls-auth-clients", "no"]
            arguments += ["--tls-cert-file", str(self._directory / "server.crt")]
            arguments += ["--tls-key-file", str(self._directory / "server.key")]
            arguments += ["--tls-ca-cert-file", str(self.ca_file)]
        return arguments


def _debian_program() -> Path | None:
    """Debian's redis-server, unless there is none or wheels are asked for."""
    found = shutil.which("redis-server")
    return None if found is None or os.environ.get("REGEN_TEST_SERVERS") == "wheels" else Path(found)


def make_certificates(directory: Path) -> Path:
    """`server.crt` and `server.key` for 127.0.0.1 and localhost. Returns the file of the authority that made them."""
    authority, key = directory / "ca.crt", directory / "ca.key"

    def openssl(*arguments: object) -> None:
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)

    new_key = ("-newkey", "rsa:2048", "-nodes")
    openssl(
        *("req", "-x509", *new_key, "-keyout", key, "-out", authority, "-days", "2"),
        *("-subj", "/CN=Authority of these tests"),
        *("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"),
    )
    request, names = directory / "server.csr", directory / "names"
    names.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    openssl("req", *new_key, "-keyout", directory / "server.key", "-out", request, "-subj", "/CN=localhost")
    openssl(
        *("x509", "-req", "-in", request, "-out", directory / "server.crt", "-days", "2"),
        *("-CA", authority, "-CAkey", key, "-CAcreateserial", "-extfile", names),
    )
    return authority


StartBroker = Callable[..., BrokerServer]


@pytest.fixture(scope="session")
def _broker_server() -> Iterator[BrokerServer]:
    with tempfile.TemporaryDirectory(prefix="regen-broker-") as directory:
        server = BrokerServer(Path(directory), password="a pass/word:@?#")
        server.start()
        yield server
        server.close()


@pytest.fixture
def broker_server(_broker_server: BrokerServer) -> BrokerServer:
    """A running broker with a password, empty. For tests that leave it running; others start their own."""
    with _broker_server.client() as client:
        client.flushall()
    return _broker_server


@pytest.fixture
def start_broker(tmp_path: Path) -> Iterator[StartBroker]:
    """Start brokers of the test's own: `start_broker(password=..., tls=True)`."""
    started: list[BrokerServer] = []

    def start(**options: object) -> BrokerServer:
        directory = tmp_path / f"broker-{len(started)}"
        directory.mkdir()
        server = BrokerServer(directory, **options)  # type: ignore[arg-type]
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.close()


@pytest.fixture
def black_hole() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        yield port
