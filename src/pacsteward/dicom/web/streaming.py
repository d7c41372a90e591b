"""Bodies of answers on their way: in pieces from a thread, in parts from memory, or as they are.

What a room reads becomes a response here. Pieces are read in a thread while the previous ones are
on their way, so neither a slow disk nor a slow client stops the event loop, and of a study of
gigabytes only a megabyte or two is ever in memory. When the client goes away the iterator is
closed, and with it whatever it held open.

Once the first byte is sent an error can no longer become a status. The connection is then cut
before the promised length, so that a client never takes a part for the whole.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import (
    AsyncGenerator,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from functools import lru_cache
from typing import Final, Protocol

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from pacsteward.base.errors import PacstewardError, WouldWait
from pacsteward.dicom.fragments import Buffer
from pacsteward.web.threads import in_thread

_BATCH_BYTES: Final = 1 << 20
_SMALL_BYTES: Final = 16 * 1024


class _Streamed(Response, ABC):
    """Sends an answer batch by batch, for as long as the client stays."""

    def __init__(
        self,
        *,
        media_type: str,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        size_bytes: int | None = None,
    ) -> None:
        self.status_code = status_code
        self.media_type = media_type
        self.background = None
        every = {"content-type": media_type, **(headers or {})}
        if size_bytes is not None:
            every["content-length"] = str(size_bytes)
        self.raw_headers = _raw_headers(every)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the whole answer, or as much of it as the client stays for."""
        gone = asyncio.ensure_future(_until_gone(receive))
        try:
            async with aclosing(self._batches()) as batches:
                # The first pieces are read before the status is sent, so that what fails at once
                # still becomes a problem document.
                nothing: list[Buffer] = []
                pieces = await anext(batches, nothing)
                await send(_start(self.status_code, self.raw_headers))
                if scope.get("method") == "HEAD":
                    pieces = nothing
                while pieces and not gone.done():
                    for piece in pieces:
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
                    pieces = await anext(batches, nothing)
                if not pieces:
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            gone.cancel()

    @abstractmethod
    def _batches(self) -> AsyncGenerator[list[Buffer], None]:
        """Give the pieces that are to be sent together, until there are none."""


class StreamedAnswer(_Streamed):
    """Sends pieces of bytes while later ones are being read.

    Parameters
    ----------
    pieces
        Consumed in a worker thread, and closed at the end if it is a generator.
    size_bytes
        Of all pieces together, when it is known; the answer then carries Content-Length.
    """

    def __init__(
        self,
        pieces: Iterable[Buffer],
        *,
        media_type: str,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        size_bytes: int | None = None,
    ) -> None:
        super().__init__(
            media_type=media_type, status_code=status_code, headers=headers, size_bytes=size_bytes
        )
        self._pieces = iter(pieces)

    def _batches(self) -> AsyncGenerator[list[Buffer], None]:
        return _read_ahead(self._pieces)


class Part(Protocol):
    """Some of the bytes of an answer, such as one object of many."""

    def at_once(self) -> Buffer:
        """Give them on the event loop, or raise `WouldWait`."""
        ...

    def pieces(self) -> Iterator[Buffer]:
        """Give them in a thread."""
        ...


class PartsAnswer(_Streamed):
    """Sends parts one after the other, those at once that are in memory already.

    Most of a series that somebody looks at comes from memory. What the disk has to bring, and what
    is long (`WouldWait`), is read in a thread as by `StreamedAnswer`.

    Parameters
    ----------
    end
        What follows the last part.
    """

    def __init__(
        self,
        parts: Iterable[Part],
        end: bytes,
        *,
        media_type: str,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        size_bytes: int | None = None,
    ) -> None:
        super().__init__(
            media_type=media_type, status_code=status_code, headers=headers, size_bytes=size_bytes
        )
        self._parts = parts
        self._end = end

    async def _batches(self) -> AsyncGenerator[list[Buffer], None]:
        since_pause = 0
        for part in self._parts:
            whole = _at_once(part)
            if whole is None:
                async with aclosing(_read_ahead(part.pieces())) as batches:
                    async for batch in batches:
                        yield batch
                continue
            yield [whole]
            since_pause += len(whole)
            if since_pause >= _BATCH_BYTES:
                # A client that takes everything as fast as it is read must not keep the others
                # waiting.
                await asyncio.sleep(0)
                since_pause = 0
        yield [self._end]


def _at_once(part: Part) -> Buffer | None:
    try:
        return part.at_once()
    except (WouldWait, PacstewardError):
        return None


async def _read_ahead(pieces: Iterator[Buffer]) -> AsyncGenerator[list[Buffer], None]:
    """Give pieces by the megabyte, while the next megabyte is being read in a thread."""
    reading = asyncio.ensure_future(in_thread(_take, pieces))
    try:
        while batch := await reading:
            reading = asyncio.ensure_future(in_thread(_take, pieces))
            yield batch
    finally:
        await asyncio.wait([reading])
        if isinstance(pieces, Generator):
            await in_thread(pieces.close)


class PiecesAnswer(Response):
    """Sends a few pieces that are in memory already, without joining them."""

    def __init__(
        self,
        pieces: Sequence[Buffer],
        *,
        media_type: str,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status_code = status_code
        self.media_type = media_type
        self.background = None
        self.pieces = _joined(pieces)
        size = sum(map(len, pieces))
        self.raw_headers = [
            (b"content-type", media_type.encode("latin-1")),
            (b"content-length", b"%d" % size),
            *_raw(tuple(headers.items()) if headers else ()),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the whole answer."""
        await send(_start(self.status_code, self.raw_headers))
        pieces = [b""] if scope.get("method") == "HEAD" else self.pieces
        last = len(pieces) - 1
        for number, piece in enumerate(pieces):
            await send({"type": "http.response.body", "body": piece, "more_body": number < last})


class EmptyAnswer(Response):
    """An answer without a body, such as 204."""

    pieces: Sequence[Buffer] = ()

    def __init__(self, status_code: int, headers: Mapping[str, str]) -> None:
        super().__init__(status_code=status_code, headers=headers)


def _joined(pieces: Iterable[Buffer]) -> list[Buffer]:
    """Put small pieces that follow each other together: each one sent passes many layers."""
    joined: list[Buffer] = []
    for piece in pieces:
        if joined and len(joined[-1]) + len(piece) <= _SMALL_BYTES:
            joined[-1] = b"".join((joined[-1], piece))
        else:
            joined.append(piece)
    return joined or [b""]


def _raw_headers(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [
        (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()
    ]


# The answers of a route bear the same ones, apart from type and length.
@lru_cache(maxsize=64)
def _raw(headers: tuple[tuple[str, str], ...]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple(_raw_headers(dict(headers)))


def _start(status: int, headers: list[tuple[bytes, bytes]]) -> Message:
    return {"type": "http.response.start", "status": status, "headers": headers}


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _take(pieces: Iterator[Buffer]) -> list[Buffer]:
    """Take about a megabyte of pieces: one change of thread for many small ones."""
    taken: list[Buffer] = []
    size = 0
    for piece in pieces:
        if piece:
            taken.append(piece)
            size += len(piece)
        if size >= _BATCH_BYTES:
            break
    return _joined(taken) if taken else taken
