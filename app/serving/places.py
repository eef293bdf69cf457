"""What a server holds while it runs: its data directory, its socket, its ready file."""

import contextlib
import errno
import fcntl
import ipaddress
import json
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.platform.errors import ConfigurationError

LOCK_NAME = "serve.lock"
BACKLOG = 2048


@contextmanager
def locked_data_directory(root: Path) -> Iterator[None]:
    """Make the data directory and hold it for this server alone. Raises ConfigurationError."""
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (root / LOCK_NAME).open("a+")
    except OSError as error:
        raise ConfigurationError(f"The data directory {root} cannot be used: {error.strerror}.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise ConfigurationError(
                f"Another `regen serve` (process {lock.read().strip() or 'unknown'}) already uses {root}. Stop it, or "
                "choose another directory with --data-dir."
            ) from error
        except OSError as error:
            raise ConfigurationError(
                f"The data directory {root} is on a file system without locks: {error.strerror}."
            ) from error
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def listen(host: str, port: int) -> socket.socket:
    """A listening socket on `host` (a name, an IPv4 or an IPv6 address); port 0 takes a free one.

    Raises ConfigurationError.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(f"This machine has no address {host!r}.", detail=str(error)) from error
    # asyncio sets TCP_NODELAY on connections that say that they are TCP. Without, an answer of two packets takes 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # At once: two sockets may share a port that nobody listens on.
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        reason = {
            errno.EADDRINUSE: "it is in use. Choose another with --port, or 0 for any free one",
            errno.EACCES: "this user may not use it. Choose one from 1024 on with --port",
            errno.EADDRNOTAVAIL: "this machine does not have that address",
        }.get(error.errno or 0, str(error.strerror))
        raise ConfigurationError(f"Port {port} on {host} cannot be served: {reason}.") from error
    return listener


def local_url(listener: socket.socket) -> str:
    """The URL under which this machine itself reaches the socket: the loopback address where it listens on all."""
    host, port = listener.getsockname()[:2]
    address = ipaddress.ip_address(host.partition("%")[0])
    if address.is_unspecified:
        address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
    return f"http://[{address}]:{port}" if address.version == 6 else f"http://{address}:{port}"


def write_ready_file(path: Path, *, url: str, key: str | None) -> None:
    """Have the file appear whole, by a rename, readable by its owner alone: it may hold a key."""
    content: dict[str, str | int] = {"url": url, "pid": os.getpid()}
    if key is not None:
        content["key"] = key
    # mkstemp opens with mode 0600.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(content, file)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def remove_ready_file(path: Path) -> None:
    """Remove the file if it is the one this process wrote."""
    with contextlib.suppress(OSError, ValueError):
        if json.loads(path.read_text()).get("pid") == os.getpid():
            path.unlink()
