"""The server's listening socket."""

import errno
import ipaddress
import os
import socket

from app.platform.errors import ConfigurationError

BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """A listening socket on `host` (a name, an IPv4 or an IPv6 address); port 0 chooses a free one.

    Raises ConfigurationError.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(f"This machine has no address {host!r}.", detail=str(error)) from error
    # asyncio sets TCP_NODELAY only if the socket's protocol is TCP. Without it an answer of two packets takes 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # At once, because two sockets can bind the same port until one of them listens.
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        reason = {
            errno.EADDRINUSE: "it is in use. Choose another with --port, or 0 for any free one",
            errno.EACCES: "this user may not use it. Choose 1024 or higher with --port",
            errno.EADDRNOTAVAIL: "this machine does not have that address",
        }.get(error.errno or 0, str(error.strerror))
        raise ConfigurationError(f"Port {port} on {host} cannot be served: {reason}.") from error
    return listener


def inherited(descriptor: int) -> socket.socket:
    """The listening socket that a parent process has opened, which no program that this process starts inherits."""
    os.set_inheritable(descriptor, False)
    found = socket.socket(fileno=descriptor)
    return socket.socket(found.family, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=found.detach())


def local_url(listener: socket.socket) -> str:
    """The URL for clients on this machine: the loopback address if the socket listens on every address."""
    host, port = listener.getsockname()[:2]
    address = ipaddress.ip_address(host.partition("%")[0])
    if address.is_unspecified:
        address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
    return f"http://[{address}]:{port}" if address.version == 6 else f"http://{address}:{port}"
