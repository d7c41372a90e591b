"""The keeper's end of a connection with shared memory (`arena.py`); the other is `line.py`.

A connection of `handover.py` becomes one of these when the other process asks for it::

    {"call": "share"}            ▶   {"result": "ready"}
    one byte, and a descriptor   ▶   {"result": "shared"}

From then on a message is the head of twelve bytes, with the number of the request in place of the
size of the data set, and a text. An instance that is here as a whole, and was examined by the other
process, is what `ready.py` says; of a big one the keeper hears while it arrives (`transfers.py`).
Requests may follow each other without waiting; the answers come under the number of each, in the
order in which they are ready, and are those of `handover.py`; that to an instance which was simply
stored is the one letter S.

Nothing of a whole instance is copied on the way: the pieces go as they are to the landing log. They
belong to the keeper until the answer is sent. When the other process dies, what had been asked for
as a whole is carried out: its memory lives as long as it is mapped here.

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
from collections.abc import Callable, Coroutine, Mapping, Sequence
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
from pacsteward.archive.model import Outcome, StoreResult
from pacsteward.archive.ready import LETTER, pieces_at, unpacked
from pacsteward.archive.ticket import Answer, Ticket
from pacsteward.archive.transfers import Receiving, Transfers
from pacsteward.base.errors import Broken, PacstewardError

READ_BYTES: Final = 64 << 10

_PATIENCE: Final = struct.pack("@ll", 2, 0)
"""Seconds, and microseconds: a process that takes no answers must not hold up all others."""

_log = logging.getLogger(__name__)


class Keeping(Receiving, Protocol):
    """What a connection needs of the keeper."""

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
        self._transfers = Transfers(keeping, memory)
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

    # --- whole instances, in the thread -----------------------------------------------------

    def _read_on(self) -> None:
        received = bytearray()
        buffer = bytearray(READ_BYTES)
        view = memoryview(buffer)
        try:
            while count := self._receive_into(buffer):
                received += view[:count]
                makes_sense = self._take_messages(received)
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

    def _take_messages(self, received: bytearray) -> bool:
        """Take the messages that are whole; return False when it makes no sense to go on."""
        start = 0
        while len(received) - start >= HEAD.size:
            text_bytes, number = HEAD.unpack_from(received, start)
            if not 0 < text_bytes <= TEXT_MAX:
                return False
            end = start + HEAD.size + text_bytes
            if end > len(received):
                break
            self._take_message(number, bytes(received[start + HEAD.size : end]))
            start = end
        del received[:start]
        return True

    def _take_message(self, number: int, text: bytes) -> None:
        if text.startswith(LETTER):
            self._take_whole(number, text)
            return
        with contextlib.suppress(RuntimeError):
            # When the loop is closed, nobody is told anything more.
            self._loop.call_soon_threadsafe(self._take_part, number, text)

    def _take_whole(self, number: int, text: bytes) -> None:
        try:
            self._keeping.take(self._ticket(number, text))
        except Exception as error:  # noqa: BLE001 — the other process must get an answer
            self._write(_refusal_of(number, error))

    def _ticket(self, number: int, text: bytes) -> Ticket:
        found, size_bytes, checksum, places = unpacked(text)
        try:
            pieces = pieces_at(places, self._memory)
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
                texts.append(_refusal_of(ticket.number, answer))
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

    # --- big ones, on the loop --------------------------------------------------------------

    def _ended(self) -> None:
        self._connections.discard(self)
        self._transfers.abandon()

    def _take_part(self, number: int, text: bytes) -> None:
        try:
            work = self._transfers.take(text)
        except Exception as error:  # noqa: BLE001 — the other process must get an answer
            self._write(_refusal_of(number, error))
            return
        task = self._loop.create_task(self._answer_when_done(number, work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer_when_done(
        self, number: int, work: Coroutine[Any, Any, StoreResult | None]
    ) -> None:
        try:
            result = await work
            fields = None if result is None else result_fields(result)
            answer = _answer_of(number, {"result": fields})
        except Exception as error:  # noqa: BLE001 — the other process must get an answer
            answer = _refusal_of(number, error)
        self._write(answer)


def _refusal_of(number: int, error: Exception) -> bytes:
    if not isinstance(error, PacstewardError):
        _log.error("A request to the keeper failed.", exc_info=error)
        error = Broken("The request to the keeper failed.")
    return _answer_of(number, {"error": error_fields(error)})


def _answer_of(number: int, fields: Mapping[str, Any]) -> bytes:
    text = json.dumps(fields).encode()
    return HEAD.pack(len(text), number) + text
