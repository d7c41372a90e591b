"""The keeper's door for instances that lie in shared memory (`arena.py`).

A connection of `handover.py` becomes one of these when the other process asks for it::

    {"call": "share"}            ▶   {"result": "ready"}
    one byte, and a descriptor   ▶   {"result": "shared"}

From then on a message is the head of twelve bytes, with the number of the request in place of the
size of the data set, and a text: ``[origin, meta, places]``. `origin` is the text in JSON of an
`Origin`, `meta` the fields of a `FileMeta`, `places` offset and length of each piece of the data
set in turn. Requests may follow each other without waiting; the answers are those of
`handover.py`, each under the number of its request, in the order in which they are ready.

Nothing is copied on the way: the pieces go as they are to the landing log. They belong to the
keeper until the answer is sent. When the other process dies, what had been asked for is carried
out: its memory lives as long as it is mapped here.

References
----------
unix(7), SCM_RIGHTS; memfd_create(2); fcntl(2), file sealing.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable
from functools import lru_cache
from typing import Final, Protocol, cast

from pacsteward.archive.arena import mapped
from pacsteward.archive.messages import HEAD, Receiver, error_fields, result_fields
from pacsteward.archive.model import Origin, StoreResult
from pacsteward.base.errors import Broken, Invalid, PacstewardError
from pacsteward.dicom.part10 import FileMeta

TEXT_MAX: Final = 1 << 20
"""Places of an instance in the smallest pieces, and more."""


Receive = Callable[[Origin, FileMeta], Receiver]


class Closable(Protocol):
    """A connection that can be ended."""

    def close(self) -> None: ...  # noqa: D102


class DescriptorWait:
    """Waits for the descriptor of an arena on a connection that is not read meanwhile.

    Parameters
    ----------
    transport
        Of the connection; its reading is paused.
    take
        Given the memory. What it raises is the caller's, who hears of it by `refuse`.
    lose
        Called instead when the other process goes away, or sends something else.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        take: Callable[[memoryview], None],
        lose: Callable[[], None],
    ) -> None:
        self._take = take
        self._lose = lose
        self._loop = asyncio.get_running_loop()
        # The event loop has no way to receive a descriptor, and watches each number once.
        theirs = transport.get_extra_info("socket")
        self._socket = socket.socket(fileno=os.dup(theirs.fileno()))
        self._loop.add_reader(self._socket.fileno(), self._receive)

    def _receive(self) -> None:
        try:
            _, descriptors, _, _ = socket.recv_fds(
                self._socket, 1, 1, flags=socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            descriptors = []
        self.close()
        if not descriptors:
            self._lose()
            return
        try:
            memory = mapped(descriptors[0])
        except (PacstewardError, OSError):
            self._lose()
            return
        finally:
            os.close(descriptors[0])
        self._take(memory)

    def close(self) -> None:
        """Wait no more; may be said twice."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()


class SharedConnection(asyncio.Protocol):
    """A process at the other end that hands over what lies in its memory.

    Parameters
    ----------
    receive
        Begins to take an instance.
    memory
        Of the other process, mapped.
    connections
        Where this is noted while it lasts.
    """

    def __init__(self, receive: Receive, memory: memoryview, connections: set[Closable]) -> None:
        self._receive = receive
        self._memory = memory
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._received = bytearray()
        self._tasks: set[asyncio.Task[None]] = set()
        self._answers: list[bytes] = []

    # --- what asyncio calls -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        # Not asserted: uvloop's transports are no subclass of asyncio's.
        self._transport = cast(asyncio.Transport, transport)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Be noted no more; what was asked for is carried out."""
        self._connections.discard(self)

    def data_received(self, data: bytes) -> None:
        """Begin what was asked for as a whole."""
        self._received += data
        start = 0
        while len(self._received) - start >= HEAD.size:
            text_bytes, number = HEAD.unpack_from(self._received, start)
            if not 0 < text_bytes <= TEXT_MAX:
                self.close()
                return
            end = start + HEAD.size + text_bytes
            if end > len(self._received):
                break
            self._begin(number, self._received[start + HEAD.size : end])
            start = end
        del self._received[:start]

    def eof_received(self) -> bool:
        """Close: nobody waits for the answers."""
        return False

    def close(self) -> None:
        """End it; what was asked for is carried out."""
        if self._transport is not None:
            self._transport.close()

    # --- one instance -----------------------------------------------------------------------

    def _begin(self, number: int, text: bytearray) -> None:
        task = self._loop.create_task(self._carry_out(number, text))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry_out(self, number: int, text: bytearray) -> None:
        try:
            answer = {"result": result_fields(await self._store(text))}
        except PacstewardError as error:
            answer = {"error": error_fields(error)}
        except Exception as error:  # noqa: BLE001 — the other process must get an answer
            self._loop.call_exception_handler(
                {"message": "A request to the keeper failed.", "exception": error}
            )
            answer = {"error": error_fields(Broken("The request to the keeper failed."))}
        self._answer(number, json.dumps(answer).encode())

    async def _store(self, text: bytearray) -> StoreResult:
        origin, meta, pieces = self._understood(text)
        receiver = self._receive(origin, meta)
        try:
            for piece in pieces:
                receiver.write(piece)
        except BaseException:
            receiver.abandon()
            raise
        return await receiver.finish()

    def _understood(self, text: bytearray) -> tuple[Origin, FileMeta, list[memoryview]]:
        try:
            origin, meta, places = json.loads(text)
            return _origin(origin), FileMeta(*meta), self._pieces(places)
        except (ValueError, KeyError, TypeError) as error:
            raise Invalid(
                "A request to the keeper was not understood.", why=f"{type(error).__name__}."
            ) from error

    def _pieces(self, places: list[int]) -> list[memoryview]:
        """Return the memory at the places that the other process names, if it is there."""
        size_bytes = len(self._memory)
        pieces: list[memoryview] = []
        for offset, length in zip(places[::2], places[1::2], strict=True):
            if offset < 0 or length <= 0 or offset + length > size_bytes:
                raise ValueError
            pieces.append(self._memory[offset : offset + length])
        return pieces

    def _answer(self, number: int, text: bytes) -> None:
        if not self._answers:
            # What one sync made safe is answered together.
            self._loop.call_soon(self._send)
        self._answers += HEAD.pack(len(text), number), text

    def _send(self) -> None:
        answers, self._answers = b"".join(self._answers), []
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.write(answers)


@lru_cache(maxsize=256)
def _origin(text: str) -> Origin:
    """Return who hands in; one serves all instances of a request."""
    return Origin(**json.loads(text))
