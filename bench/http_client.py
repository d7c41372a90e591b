"""An HTTP client that is cheaper than any server: requests are bytes before the clock starts.

One connection is kept alive. Of an answer the head is read; the body is counted in one large
buffer, and kept only where it is to be compared.

References
----------
RFC 9112 6 and 7.1 — Content-Length and chunked bodies.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

BUFFER_BYTES: Final = 1 << 20
TIMEOUT_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; the body is empty unless it was to be kept."""

    status: int
    size_bytes: int
    head: bytes
    body: bytes = b""


class HttpConnection:
    """A connection that is kept alive."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection = _connect(port)
        self._buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._begin = self._end = 0

    def ask(self, request: bytes, *, keep: bool = False) -> Answer:
        """Send a request and read the whole answer.

        Some servers close a connection that was idle for a second; a GET is then asked once more.

        Raises
        ------
        ConnectionError
            The server closed before the answer's end.
        """
        try:
            head = self._head_of_answer(request)
        except ConnectionError:
            if self._begin != self._end or not request.startswith(b"GET "):
                raise
            self._connection.close()
            self._connection = _connect(self._port)
            head = self._head_of_answer(request)
        status = int(head[9:12])
        kept = bytearray() if keep else None
        lower = head.lower()
        if b"transfer-encoding: chunked" in lower:
            size_bytes = self._chunks(kept)
        elif status in (204, 304):
            size_bytes = 0
        elif (start := lower.find(b"content-length:")) >= 0:
            size_bytes = int(lower[start + 15 : lower.index(b"\r\n", start)])
            self._skip(size_bytes, kept)
        else:
            size_bytes = self._rest(kept)
            self._connection.close()
            self._connection = _connect(self._port)
        return Answer(status, size_bytes, head, bytes(kept or b""))

    def _head_of_answer(self, request: bytes) -> bytes:
        self._connection.sendall(request)
        return self._until(b"\r\n\r\n")

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def _chunks(self, kept: bytearray | None) -> int:
        total = 0
        while True:
            size = int(self._until(b"\r\n").split(b";")[0], 16)
            if size:
                self._skip(size, kept)
            self._until(b"\r\n")
            if not size:
                return total
            total += size

    def _rest(self, kept: bytearray | None) -> int:
        """Read until the server closes, which is how some say that a body has ended."""
        total = 0
        try:
            while True:
                there = max(1, self._end - self._begin)
                self._skip(there, kept)
                total += there
        except ConnectionError:
            return total

    def _until(self, mark: bytes) -> bytes:
        """Return what comes before the end of `mark`, and the mark."""
        while True:
            found = self._buffer.find(mark, self._begin, self._end)
            if found >= 0:
                start, self._begin = self._begin, found + len(mark)
                return bytes(self._view[start : self._begin])
            self._receive()

    def _skip(self, size: int, kept: bytearray | None) -> None:
        while size:
            if self._begin == self._end:
                self._receive()
            step = min(size, self._end - self._begin)
            if kept is not None:
                kept += self._view[self._begin : self._begin + step]
            self._begin += step
            size -= step

    def _receive(self) -> None:
        if self._begin == self._end:
            self._begin = self._end = 0
        elif self._end == len(self._buffer):
            rest = self._end - self._begin
            self._view[:rest] = self._view[self._begin : self._end]
            self._begin, self._end = 0, rest
        received = self._connection.recv_into(self._view[self._end :])
        if not received:
            raise ConnectionError("The server closed the connection.")
        self._end += received


def _connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def request(
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes = b"",
) -> bytes:
    """Return a request as it goes over the wire."""
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: 127.0.0.1",
        *(f"{k}: {v}" for k, v in headers.items()),
    ]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def first_part(answer: Answer) -> bytes:
    """Return the content of the first part of a multipart body (PS3.18 8.6.1.2)."""
    boundary = answer.body[: answer.body.index(b"\r\n")]
    start = answer.body.index(b"\r\n\r\n") + 4
    return answer.body[start : answer.body.index(b"\r\n" + boundary, start)]
