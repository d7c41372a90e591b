"""What the tests of connections share: a server on a free port, and a client that talks by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
import uvloop

from pacsteward.web.protocol import PatientProtocol
from pacsteward.web.reader_watch import Patience

converse = uvloop.run
"""Runs a conversation on the event loop that the product has: transports of another one differ in
when they go on after a pause, and in what they say of a connection that is lost."""

LOST = (ConnectionError, RuntimeError)
"""Raised where something is sent on a connection that is lost; the second one by this loop."""


class Hasty(PatientProtocol):
    """Waits for nobody."""

    head_timeout_s = 0.3
    patience = Patience(stall_s=0.3, look_s=0.015)


async def hello(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
    await receive()
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
    )
    await send({"type": "http.response.body", "body": b"hi"})


class Short:
    """A short way for paths that begin so; answers with the path and so many bytes."""

    def __init__(self, size: int = 0) -> None:
        self.size = size

    def answer(
        self, scope: dict[str, Any], own_headers: object, memory: object
    ) -> list[bytes] | None:
        if not scope["path"].startswith("/short"):
            return None
        body = scope["path"].encode() + bytes(self.size)
        return [b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body), body]


@asynccontextmanager
async def connected(
    app: Any = hello, short: Short | None = None, protocol: type[PatientProtocol] = Hasty
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    class Protocol(protocol):  # type: ignore[misc, valid-type]
        short_way = short  # type: ignore[assignment]

    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, http=Protocol, lifespan="off", log_config=None
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        server.should_exit = True
        await task


def get(path: str, *headers: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "host: x", *headers]
    return "\r\n".join([*lines, "", ""]).encode()
