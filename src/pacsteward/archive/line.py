"""A connection to the keeper, and the memory that it shares; for another process's event loop.

Any number of requests may use a line at a time; each is told where its answer will be. When the
connection breaks, the memory goes with it, since nobody knows who still reads there; what was under
way is raised as `Undelivered`, and may be sent once more by another way: storing is idempotent.

References
----------
`messages.py` for who speaks with whom, `sharing.py` for what is said, `arena.py` for who may write
where.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeVar, cast

from pacsteward.archive.arena import SharedMemory
from pacsteward.archive.client import answer_on, connected
from pacsteward.archive.messages import HEAD, STORED, TEXT_MAX
from pacsteward.archive.model import Origin
from pacsteward.base.errors import Unavailable
from pacsteward.dicom.part10 import FileMeta

GREETING_S: Final = 5.0
AGAIN_AFTER_S: Final = 1.0
"""How long nothing is tried after a connection failed."""


class Undelivered(Exception):
    """The connection broke before the answer came; the instance may be stored, or not."""


Tell = Callable[[Any], None]
"""Is told an answer, or that there will be none."""


class Held(Protocol):
    """Memory that a message speaks of."""

    def hold(self) -> None:
        """Take note that it is the keeper's."""
        ...

    def release(self) -> None:
        """Take note that the keeper has done with it."""
        ...


MemoryT = TypeVar("MemoryT", bound=SharedMemory)


class Line(asyncio.Protocol, Generic[MemoryT]):
    """One connection to the keeper, with the memory that it knows.

    Parameters
    ----------
    memory
        Which the keeper has mapped.
    """

    def __init__(self, memory: MemoryT) -> None:
        self.loop = asyncio.get_running_loop()
        self.memory = memory
        self.ended = asyncio.Event()
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._number = 0
        self._waiting: dict[int, tuple[Tell, Held]] = {}
        self._unsent: list[bytes] = []

    @property
    def is_open(self) -> bool:
        """Whether anything can be sent."""
        return not self.memory.is_retired

    def ask(self, text: bytes, held: Held) -> asyncio.Future[Any]:
        """Send a message; return where its answer will be: None for `STORED`, else its fields.

        Parameters
        ----------
        held
            See `say`.

        Raises
        ------
        Undelivered
            As `say`; so does the answer, when the keeper goes away later.
        """
        answer: asyncio.Future[Any] = self.loop.create_future()
        self.say(text, held, partial(_resolve, answer))
        return answer

    def ask_all(self, messages: Sequence[tuple[bytes, Held]]) -> list[asyncio.Future[Any]]:
        """Send several messages, or none of them when one cannot be sent; see `ask`."""
        if max(len(text) for text, _ in messages) > TEXT_MAX:
            raise Undelivered
        return [self.ask(text, held) for text, held in messages]

    def say(self, text: bytes, held: Held, tell: Tell) -> None:
        """Send a message, together with others of this moment, and have its answer told.

        Parameters
        ----------
        held
            Is held, and released when the answer is there: it is the keeper's until then, whatever
            becomes of the one who waits.
        tell
            Given the answer: None for `STORED`, else its fields; or `Undelivered` when the keeper
            went away. It must not raise.

        Raises
        ------
        Undelivered
            The keeper went away, or would not read so long a text.
        """
        if self._transport is None or self.memory.is_retired or len(text) > TEXT_MAX:
            raise Undelivered
        held.hold()
        number = self._number = self._number + 1
        self._waiting[number] = tell, held
        unsent = self._unsent
        if not unsent:
            # Each write wakes the keeper, which costs more than all of this.
            self.loop.call_soon(self._send)
        unsent += HEAD.pack(len(text), number), text

    def _send(self) -> None:
        unsent, self._unsent = self._unsent, []
        if unsent and self._transport is not None:
            self._transport.write(b"".join(unsent))

    def close(self) -> None:
        """End the connection; what was said goes out first."""
        if not self.loop.is_closed():
            self._send()
        self.memory.retire()
        if self._transport is not None and not self.loop.is_closed():
            self._transport.abort()

    # --- what asyncio calls -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        # Not asserted: uvloop's transports are no subclass of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell all who wait, and never use this memory again."""
        self.memory.retire()
        self._transport = None
        self.ended.set()
        # Parcels stay held: a keeper that still runs may be writing them. It may be writing what
        # associations received, too, and that memory is retired.
        waiting, self._waiting = self._waiting, {}
        for tell, _held in waiting.values():
            tell(Undelivered())

    def data_received(self, data: bytes) -> None:
        """Give each its answer."""
        self._received += data
        start = 0
        while len(self._received) - start >= HEAD.size:
            text_bytes, number = HEAD.unpack_from(self._received, start)
            end = start + HEAD.size + text_bytes
            if end > len(self._received):
                break
            text = bytes(self._received[start + HEAD.size : end])
            self._answered(number, None if text == STORED else json.loads(text))
            start = end
        del self._received[:start]

    def _answered(self, number: int, fields: Any) -> None:
        if number not in self._waiting:
            return  # nobody asked
        tell, held = self._waiting.pop(number)
        held.release()
        tell(fields)


def _resolve(answer: asyncio.Future[Any], fields: Any) -> None:
    if answer.done():
        return
    if isinstance(fields, Undelivered):
        answer.set_exception(fields)
    else:
        answer.set_result(fields)


LineT = TypeVar("LineT", bound=Line[Any])


class Lines(Generic[LineT]):
    """Gives the line of this process, and another one when it has broken.

    Parameters
    ----------
    run_folder
        ``DIR/run``.
    make_line
        Makes the next one, with memory of its own.
    """

    def __init__(self, run_folder: Path, make_line: Callable[[], LineT]) -> None:
        self._run_folder = run_folder
        self._make_line = make_line
        self._line: LineT | None = None
        self._coming: asyncio.Task[LineT | None] | None = None
        self._again_at = 0.0

    async def get(self) -> LineT | None:
        """Return one that is open, or None: there is no keeper that shares memory."""
        line = self._line
        loop = asyncio.get_running_loop()
        if line is not None and line.is_open and line.loop is loop:
            return line
        if time.monotonic() < self._again_at:
            return None
        if self._coming is None or self._coming.get_loop() is not loop or self._coming.done():
            self._coming = loop.create_task(self._open())
        return await asyncio.shield(self._coming)

    async def _open(self) -> LineT | None:
        self._line = None
        try:
            line = self._make_line()
            try:
                connection = await asyncio.to_thread(_greet, self._run_folder, line.memory)
            finally:
                line.memory.close_descriptor()
            await line.loop.create_unix_connection(lambda: line, sock=connection)
        except (OSError, Unavailable):
            # No keeper; or no descriptor or memory is free.
            self._again_at = time.monotonic() + AGAIN_AFTER_S
        else:
            self._line = line
        return self._line

    def close(self) -> None:
        """End the connection."""
        if self._line is not None:
            self._line.close()
            self._line = None


def _greet(run_folder: Path, memory: SharedMemory) -> socket.socket:
    """Return a connection to a keeper that has mapped the memory."""
    connection = connected(run_folder)
    try:
        connection.settimeout(GREETING_S)
        text = json.dumps({"call": "share"}).encode()
        connection.sendall(HEAD.pack(len(text), 0) + text)
        if answer_on(connection) != {"result": "ready"}:
            raise ConnectionError
        socket.send_fds(connection, [b"\0"], [memory.descriptor])
        if answer_on(connection) != {"result": "shared"}:
            raise ConnectionError
        connection.setblocking(False)
    except BaseException:
        connection.close()
        raise
    return connection


@lru_cache(maxsize=256)
def origin_text(origin: Origin) -> str:
    """Return an origin as a message has it."""
    return json.dumps(asdict(origin))


def meta_fields(meta: FileMeta) -> tuple[str, ...]:
    """Return the fields of a `FileMeta` in their order; `astuple` takes ten times as long."""
    return (
        meta.media_storage_sop_class_uid,
        meta.media_storage_sop_instance_uid,
        meta.transfer_syntax_uid,
        meta.implementation_class_uid,
        meta.implementation_version_name,
        meta.source_application_entity_title,
    )
