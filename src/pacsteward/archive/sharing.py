"""The keeper's door for instances that lie in shared memory (`arena.py`).

A connection of `handover.py` becomes one of these when the other process asks for it::

    {"call": "share"}            ▶   {"result": "ready"}
    one byte, and a descriptor   ▶   {"result": "shared"}

From then on a message is the head of twelve bytes, with the number of the request in place of the
size of the data set, and a text. An instance that is here as a whole, and was examined by the other
process, is what `ready.py` says. Of a big one the keeper hears while it arrives, in JSON::

    ["part", transfer, origin, meta, places]   more of it
    ["end", transfer, size, checksum]          that was all of it
    ["drop", transfer]                         it will not come

`origin` is the text in JSON of an `Origin`, `meta` the fields of a `FileMeta`. `places` are offset
and length of each piece of the data set in turn; in place of the two the bytes themselves may
stand, in base64. Requests may follow each other without waiting; the answers come under the number
of each, in the order in which they are ready, and are those of `handover.py`; that to an instance
which was simply stored is the one letter S. That to a part says that more may come.

Nothing of a whole instance is copied on the way: the pieces go as they are to the landing log. They
belong to the keeper until the answer is sent. Parts are copied; they go to a file. When the other
process dies, what had been asked for as a whole is carried out: its memory lives as long as it is
mapped here.

A thread reads each connection and has written what came together; whoever settles an instance
writes the answer: no event loop has to be woken on the way. Big instances go by the keeper's loop.

References
----------
unix(7), SCM_RIGHTS; memfd_create(2); fcntl(2), file sealing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import struct
import threading
from binascii import a2b_base64
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Protocol

from pacsteward.archive.arena import mapped
from pacsteward.archive.messages import (
    HEAD,
    STORED,
    TEXT_MAX,
    error_fields,
    not_understood,
    result_fields,
)
from pacsteward.archive.model import Incoming, Origin, Outcome, StoreResult
from pacsteward.archive.ready import LETTER, Places, unpacked
from pacsteward.archive.record import checksum_of
from pacsteward.archive.ticket import Answer, Ticket
from pacsteward.base.errors import Broken, PacstewardError
from pacsteward.dicom.part10 import FileMeta

READ_BYTES: Final = 64 << 10

_PATIENCE: Final = struct.pack("@ll", 2, 0)
"""Seconds, and microseconds: a process that takes no answers must not hold up all others."""

_log = logging.getLogger(__name__)


class Keeping(Protocol):
    """What a connection needs of the keeper."""

    def receive(self, origin: Origin, meta: FileMeta) -> Incoming: ...  # noqa: D102

    def take(self, ticket: Ticket) -> None: ...  # noqa: D102

    def carry_on(self) -> None: ...  # noqa: D102


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
        Given the memory, and the connection.
    lose
        Called instead when the other process goes away, or sends something else.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        take: Callable[[memoryview, socket.socket], None],
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
        self._loop.remove_reader(self._socket.fileno())
        try:
            memory = _mapped(descriptors)
        except (PacstewardError, OSError):
            self.close()
            self._lose()
            return
        self._take(memory, self._socket)

    def close(self) -> None:
        """Wait no more; may be said twice."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()


def _mapped(descriptors: list[int]) -> memoryview:
    if not descriptors:
        raise ConnectionError
    try:
        return mapped(descriptors[0])
    finally:
        os.close(descriptors[0])


class SharedConnection:
    """A process at the other end that hands over what lies in its memory.

    Parameters
    ----------
    keeping
        Takes the instances.
    memory
        Of the other process, mapped.
    connection
        To it; this closes it.
    connections
        Where this is noted while it lasts.
    """

    def __init__(
        self,
        keeping: Keeping,
        memory: memoryview,
        connection: socket.socket,
        connections: set[Closable],
    ) -> None:
        self._keeping = keeping
        self._memory = memory
        self._connection = connection
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._writing = threading.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._transfers: dict[int, _Transfer] = {}
        """What arrives in parts."""
        self._thread = threading.Thread(target=self._read_on, name="sharing", daemon=True)

    def start(self) -> None:
        """Say that the memory is shared, and listen."""
        self._connections.add(self)
        self._connection.setblocking(True)
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _PATIENCE)
        self._write(_answer_of(0, {"result": "shared"}))
        self._thread.start()

    def close(self) -> None:
        """End it; what was asked for is carried out."""
        # The thread lets go of it: to close what somebody reads would leave that one waiting.
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    # --- the thread -------------------------------------------------------------------------

    def _read_on(self) -> None:
        received = bytearray()
        buffer = bytearray(READ_BYTES)
        view = memoryview(buffer)
        try:
            while count := self._receive_into(buffer):
                received += view[:count]
                makes_sense = self._take_all(received)
                self._keeping.carry_on()
                if not makes_sense:
                    break
        except Exception:  # noqa: BLE001
            # The other end connects anew, and its senders try again.
            _log.exception("A connection to another process ends.")
        finally:
            with self._writing:
                self._connection.close()
            with contextlib.suppress(RuntimeError):
                # When the loop is closed, nothing is left to be abandoned.
                self._loop.call_soon_threadsafe(self._ended)

    def _receive_into(self, buffer: bytearray) -> int:
        """Wait for bytes; 0 when the connection is over."""
        try:
            return self._connection.recv_into(buffer)
        except OSError:
            return 0

    def _take_all(self, received: bytearray) -> bool:
        """Take the messages that are whole; return False when it makes no sense to go on."""
        start = 0
        while len(received) - start >= HEAD.size:
            text_bytes, number = HEAD.unpack_from(received, start)
            if not 0 < text_bytes <= TEXT_MAX:
                return False
            end = start + HEAD.size + text_bytes
            if end > len(received):
                break
            self._take(number, bytes(received[start + HEAD.size : end]))
            start = end
        del received[:start]
        return True

    def _take(self, number: int, text: bytes) -> None:
        if not text.startswith(LETTER):
            with contextlib.suppress(RuntimeError):
                # When the loop is closed, nobody is told anything more.
                self._loop.call_soon_threadsafe(self._begin, number, text)
            return
        try:
            self._keeping.take(self._ticket(number, text))
        except PacstewardError as error:
            self._write(_answer_of(number, {"error": error_fields(error)}))
        except Exception as error:  # noqa: BLE001 — the other process must get an answer
            self._write(_answer_of(number, {"error": self._fault(error)}))

    def _ticket(self, number: int, text: bytes) -> Ticket:
        found, size_bytes, checksum, places = unpacked(text)
        try:
            pieces = self._pieces(places)
            if sum(map(len, pieces)) != size_bytes:
                raise ValueError
        except (ValueError, TypeError) as error:
            raise not_understood(error) from error
        return Ticket(
            description=found.description,
            file_meta=found.file_meta,
            data=tuple(pieces),
            size_bytes=size_bytes,
            checksum=checksum,
            header=found.header,
            warnings=found.warnings,
            loop=None,
            future=None,
            shortage=found.shortage,
            desk=self,
            number=number,
        )

    def answer(self, answers: Sequence[tuple[Ticket, Answer]]) -> None:
        """Tell the other process what became of its instances; from any thread."""
        texts: list[bytes] = []
        for ticket, answer in answers:
            if isinstance(answer, PacstewardError):
                texts.append(_answer_of(ticket.number, {"error": error_fields(answer)}))
            elif answer.outcome is Outcome.STORED and answer.warnings == ticket.warnings:
                texts.append(HEAD.pack(len(STORED), ticket.number) + STORED)
            else:
                texts.append(_answer_of(ticket.number, {"result": result_fields(answer)}))
        self._write(b"".join(texts))

    def _write(self, data: bytes) -> None:
        with self._writing:
            try:
                self._connection.sendall(data)
            except OSError:
                self.close()

    # --- on the loop ------------------------------------------------------------------------

    def _ended(self) -> None:
        self._connections.discard(self)
        while self._transfers:
            self._transfers.popitem()[1].incoming.abandon()

    def _begin(self, number: int, text: bytes) -> None:
        try:
            work = self._understood(text)
        except PacstewardError as error:
            self._write(_answer_of(number, {"error": error_fields(error)}))
            return
        except Exception as error:  # noqa: BLE001 — the other process must get an answer
            self._write(_answer_of(number, {"error": self._fault(error)}))
            return
        task = self._loop.create_task(self._carry_out(number, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry_out(self, number: int, work: Coroutine[Any, Any, StoreResult | None]) -> None:
        try:
            result = await work
            answer = {"result": None if result is None else result_fields(result)}
        except PacstewardError as error:
            answer = {"error": error_fields(error)}
        except Exception as error:  # noqa: BLE001 — the other process must get an answer
            answer = {"error": self._fault(error)}
        self._write(_answer_of(number, answer))

    def _fault(self, error: Exception) -> dict[str, str]:
        _log.error("A request to the keeper failed.", exc_info=error)
        return error_fields(Broken("The request to the keeper failed."))

    def _understood(self, text: bytes) -> Coroutine[Any, Any, StoreResult | None]:
        """Take what a message brings, in the order of messages; return what is to be awaited.

        Raises
        ------
        Unavailable
            It says nothing that makes sense.
        """
        try:
            kind, *said = json.loads(text)
            return self._kinds[kind](self, *said)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise not_understood(error) from error

    def _part(
        self, transfer: int, origin: str, meta: list[str], places: Places
    ) -> Coroutine[Any, Any, None]:
        known = self._transfers.get(transfer)
        if known is None:
            known = self._transfers[transfer] = _Transfer(self._begun(origin, meta))
        try:
            for piece in self._pieces(places):
                # Copied: its place is the other process's again as soon as this is answered.
                known.write(bytes(piece))
        except Exception:
            # Without this part the others are worth nothing.
            known.incoming.abandon()
            known.incoming = _Refused(Broken("A part of the instance was not taken."))
            raise
        return known.incoming.catch_up()

    def _begun(self, origin: str, meta: list[str]) -> Incoming:
        try:
            return self._keeping.receive(_origin(origin), FileMeta(*meta))
        except PacstewardError as error:
            # Nor is any later part taken for the beginning.
            return _Refused(error)

    def _end(
        self, transfer: int, size_bytes: int, checksum: int
    ) -> Coroutine[Any, Any, StoreResult]:
        known = self._transfers.pop(transfer)
        if isinstance(known.incoming, _Refused) or known.is_as_sent(size_bytes, checksum):
            return known.incoming.finish()
        known.incoming.abandon()
        raise Broken("The instance was not stored.", why="Not all of it reached the keeper.")

    async def _drop(self, transfer: int) -> None:
        known = self._transfers.pop(transfer, None)
        if known is not None:
            known.incoming.abandon()

    _kinds: Final[Mapping[str, Callable[..., Coroutine[Any, Any, StoreResult | None]]]] = {
        "part": _part,
        "end": _end,
        "drop": _drop,
    }

    def _pieces(self, places: Places) -> list[memoryview]:
        """Return the memory at the places that the other process names, if it is there."""
        size_bytes = len(self._memory)
        pieces: list[memoryview] = []
        rest = iter(places)
        for place in rest:
            if isinstance(place, str):
                pieces.append(memoryview(a2b_base64(place)))
                continue
            length = next(rest, 0)
            if isinstance(length, str) or not 0 <= place < place + length <= size_bytes:
                raise ValueError
            pieces.append(self._memory[place : place + length])
        return pieces


def _answer_of(number: int, fields: Mapping[str, Any]) -> bytes:
    text = json.dumps(fields).encode()
    return HEAD.pack(len(text), number) + text


class _Transfer:
    """An instance that arrives in parts."""

    def __init__(self, incoming: Incoming) -> None:
        self.incoming = incoming
        self._size_bytes = 0
        self._checksum = 0

    def write(self, piece: bytes) -> None:
        self._size_bytes += len(piece)
        self._checksum = checksum_of(piece, self._checksum)
        self.incoming.write(memoryview(piece))

    def is_as_sent(self, size_bytes: int, checksum: int) -> bool:
        return (self._size_bytes, self._checksum) == (size_bytes, checksum)


class _Refused:
    """An instance that was refused at its beginning, whatever comes of it."""

    def __init__(self, error: PacstewardError) -> None:
        self._error = error

    def write(self, fragment: memoryview) -> None:
        """Take nothing."""

    def is_behind(self) -> bool:
        return False

    async def catch_up(self) -> None:
        raise self._error

    async def finish(self) -> StoreResult:
        raise self._error

    def abandon(self) -> None:
        """Have nothing to leave behind."""


@lru_cache(maxsize=256)
def _origin(text: str) -> Origin:
    """Return who hands in; one serves all instances of a request."""
    return Origin(**json.loads(text))
