"""Servers that answer a constant, for what a client and a framework cost by themselves.

    python -m bench.constant_server bytes|fastapi FILE_WITH_THE_ANSWER

`bytes` looks for the end of each request and sends prepared bytes. `fastapi` is one route of FastAPI under uvicorn, set
up as ours is (h11, asyncio), that reads the body and returns the constant. Writes its port to standard output.
"""

import asyncio
import json
import socket
import sys
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request

HOST = "127.0.0.1"
BACKLOG = 256


class _Bytes(asyncio.Protocol):
    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._head = b""
        self._left_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._left_bytes == 0:
            self._head += data
            head, end, rest = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            length = head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
            self._left_bytes = int(length or 0) - len(rest)
            self._head = b""
        else:
            self._left_bytes -= len(data)
        if self._left_bytes == 0:
            self._transport.write(self._answer)


async def _serve_bytes(listener: socket.socket, content: bytes) -> None:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    answer = head.encode() + content
    server = await asyncio.get_running_loop().create_server(lambda: _Bytes(answer), sock=listener)
    await server.serve_forever()


def _serve_fastapi(listener: socket.socket, content: bytes) -> None:
    constant = json.loads(content)
    app = FastAPI()

    @app.get("/v1/renders/{render_id}")
    async def get_constant(render_id: str) -> dict[str, Any]:
        return dict(constant)

    @app.post("/v1/upscale")
    async def drop_body(request: Request) -> dict[str, Any]:
        async for _chunk in request.stream():
            pass
        return dict(constant)

    config = uvicorn.Config(
        app, loop="asyncio", http="h11", ws="none", log_config=None, access_log=False, server_header=False
    )
    uvicorn.Server(config).run(sockets=[listener])


def main() -> None:
    kind, path = sys.argv[1:]
    content = Path(path).read_bytes()
    # By its protocol asyncio knows that small answers must not wait for acknowledgements (TCP_NODELAY).
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind((HOST, 0))
    listener.listen(BACKLOG)
    print(listener.getsockname()[1], flush=True)
    if kind == "bytes":
        asyncio.run(_serve_bytes(listener, content))
    else:
        _serve_fastapi(listener, content)


if __name__ == "__main__":
    main()
