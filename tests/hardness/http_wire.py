"""HTTP/1.1 by hand: bytes on a socket, and the answer with the time that it took."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass

PATIENCE_S = 20.0
"""Less than the half minute after which a door cuts whoever says nothing."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What came back: a status and a body, or a close (0), or nothing in time (-1)."""

    status: int
    head: str
    body: bytes
    seconds: float


def say(port: int, data: bytes, *, is_whole: bool = True, patience_s: float = PATIENCE_S) -> Heard:
    """Send `data` on a new connection and read the first answer.

    Parameters
    ----------
    is_whole
        Whether there is all that an answer needs; else the other side is told that no more comes.
    """
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=patience_s) as line:
        try:
            line.sendall(data)
            if not is_whole:
                line.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # answered and closed before all was sent: the answer is there to be read
        received = b""
        while not _is_complete(received):
            try:
                piece = line.recv(65536)
            except TimeoutError:
                return Heard(-1, "", received, time.monotonic() - began)
            except ConnectionResetError:
                piece = b""
            if not piece:
                break
            received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
    return Heard(status, head.decode("latin-1").lower(), body, time.monotonic() - began)


def _is_complete(received: bytes) -> bool:
    head, separator, body = received.partition(b"\r\n\r\n")
    if not separator:
        return False
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.partition(b":")[2])
    return head.split(b" ", 2)[1] in (b"204", b"304") or body.endswith(b"0\r\n\r\n")


def request(
    method: str,
    path: str,
    token: str,
    *headers: str,
    body: bytes = b"",
    length: int | str | None = None,
) -> bytes:
    """Return a request; `length` lies about the size of its body."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {token}"]
    lines += headers
    if body or length is not None:
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + body
