"""Bodies of requests: bounded in size, and kept out of memory when they are large.

References
----------
RFC 9110 15.5.14 (413); PS3.18 8.5.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from starlette.requests import ClientDisconnect, Request

from pacsteward.base.disk_failure import speaking
from pacsteward.base.errors import Invalid
from pacsteward.dicom.web.errors import TooLarge
from pacsteward.web.inflow import Inflow, Room, Take

IN_MEMORY_BYTES: Final = 8 * 1024 * 1024
"""Up to so much one payload is collected in memory; beyond, in a file."""

_NOT_TAKEN = "The data were not taken."


async def chunks(request: Request, *, max_bytes: int) -> AsyncIterator[bytes]:
    """Give the body as it arrives. A client that stalls is given up by the HTTP door.

    Raises
    ------
    TooLarge
        It is longer than `max_bytes`; when its length was announced, before anything is read.
    Invalid
        The client went away before the end.
    """
    check_announced(request, max_bytes=max_bytes)
    size = 0
    stream = request.stream()
    while True:
        try:
            chunk = await anext(stream, b"")
        except ClientDisconnect as error:
            raise _not_received() from error
        if not chunk:
            return
        size += len(chunk)
        if size > max_bytes:
            raise _too_large(max_bytes)
        yield chunk


def check_announced(request: Request, *, max_bytes: int) -> None:
    """Refuse a body that is announced as too large.

    Raises
    ------
    TooLarge
        It would be longer than `max_bytes`.
    """
    announced = announced_bytes(request)
    if announced is not None and announced > max_bytes:
        raise _too_large(max_bytes)


def announced_bytes(request: Request) -> int | None:
    """Return how long the body is said to be; None where that is not said."""
    announced = request.headers.get("content-length", "")
    return int(announced) if announced.isdigit() else None


async def received(inflow: Inflow, take: Take, room: Room | None = None) -> None:
    """Give the body to `take` as it arrives; see `Inflow.into`.

    Raises
    ------
    Invalid
        The client went away before the end.
    """
    try:
        await inflow.into(take, room)
    except ClientDisconnect as error:
        raise _not_received() from error


def _not_received() -> Invalid:
    return Invalid(
        "The body was not received.",
        why="The connection ended before it did.",
        remedy="Send it again.",
    )


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(
        "The body is too large.",
        why=f"It may have {max_bytes} bytes.",
        remedy="Send it in several requests.",
    )


class Spool:
    """Collects one payload; use it in a ``with`` block, which frees it.

    A small payload stays in memory. A larger one goes into a file without a name, so that a crash
    leaves nothing behind, and is read through a mapping: its pages are the system's to give back.

    Parameters
    ----------
    folder
        Where the file is made; None for the system's folder of temporary files.
    max_bytes
        Largest payload that is taken.
    """

    def __init__(self, folder: Path | None, *, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._pieces: list[bytes | memoryview] = []
        self._in_memory = 0
        self.size = 0
        self._file: IO[bytes] | None = None
        self._view: memoryview | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes, which must stay unchanged.

        Raises
        ------
        TooLarge
            The payload is longer than it may be.
        Exhausted, Unavailable
            The disk is full, or failed.
        """
        self.size += len(data)
        if self.size > self._max_bytes:
            raise _too_large(self._max_bytes)
        self._pieces.append(data)
        self._in_memory += len(data)
        if self._in_memory > IN_MEMORY_BYTES:
            self._flush()

    def value(self) -> memoryview:
        """Return the whole payload; valid until `close`.

        Raises
        ------
        Exhausted, Unavailable
            The disk is full, or failed.
        """
        if self._view is None:
            self._view = memoryview(self._collect())
        return self._view

    def close(self) -> None:
        """Free everything. A mapping lives until the last view of it is gone."""
        self._pieces.clear()
        self._view = None
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):  # what a full disk has not taken, nobody wants any more
                file.close()

    def _collect(self) -> bytes | mmap.mmap:
        if self._file is None:
            return b"".join(self._pieces)
        file = self._flush()
        with speaking(_NOT_TAKEN):
            file.flush()
            return mmap.mmap(file.fileno(), self.size, access=mmap.ACCESS_READ)

    def _flush(self) -> IO[bytes]:
        with speaking(_NOT_TAKEN):
            if self._file is None:
                # Not in a with block: it lives as long as the spool, and `close` ends both.
                self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
            self._file.writelines(self._pieces)
        self._pieces.clear()
        self._in_memory = 0
        return self._file
