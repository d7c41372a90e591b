"""Where HTTP is listened: one address, and a few processes that take callers from it in turn.

The sockets are bound before the processes are forked, so that all of them hold the same ones. A
process that ends takes nothing along: who calls meanwhile is taken by another, or waits until it is
started again.

A caller goes to the process that has the fewest. Which one the kernel wakes first is chance, and a
viewer keeps its connections for hours: with chance alone, one process would often have them all
while another has none. So each process writes down how many it has where the others see it, and
one that has more than another lets it go first, for a moment.

Who calls alone needs one process. The others are begun when there are two callers at once.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from pacsteward.base.bind import remedy_of
from pacsteward.base.errors import Unavailable
from pacsteward.base.shared import shared_numbers

BACKLOG: Final = 2048
GIVE_WAY_S: Final = 0.003
"""So long another process that has fewer callers may take one; then whoever can does."""

_LOOK_AGAIN_S: Final = 0.001
"""Event loops count in milliseconds."""

AGAIN_AFTER_S: Final = 1.0
"""How long no caller is taken after one could not be: no descriptor is free."""

_ABSENT: Final = 2**64 - 1
"""What stands in place of the number of callers of a process that does not run."""

logger = logging.getLogger(__name__)


class Listener:
    """The bound sockets, and how many callers each process has.

    Parameters
    ----------
    host, port
        Where to listen; nobody is listened to before a process does.
    processes
        How many will take callers.
    """

    def __init__(self, host: str, port: int, processes: int) -> None:
        self.sockets: list[socket.socket] = []
        self._address = f"Port {port} on {host}"
        self._fault: OSError | None = None
        self._counts = shared_numbers(processes)
        self._is_crowded = shared_numbers(1)
        for number in range(processes):
            self._counts[number] = _ABSENT
        try:
            self._bind(host, port)
        except OSError as error:
            # Said by the process that needs it, when those that start before it are ready.
            self._fault = error
            self.close()

    @property
    def is_crowded(self) -> bool:
        """Whether there were ever two callers at once."""
        return bool(self._is_crowded[0])

    def seat(self, number: int) -> Seat:
        """Return the place of a process, which has no callers yet.

        Raises
        ------
        Unavailable
            The address cannot be had.
        """
        if self._fault is not None:
            raise _not_opened(self._address, self._fault)
        self._counts[number] = 0
        return Seat(self._address, self.sockets, self._counts, number, self._is_crowded)

    def vacate(self, number: int) -> None:
        """Take back the place of a process that has ended; its callers went with it.

        Said by whoever sees processes end. What one wrote down before it died would have the others
        give way to it.
        """
        self._counts[number] = _ABSENT

    def close(self) -> None:
        """Let go of the sockets in this process."""
        for one in self.sockets:
            one.close()
        self.sockets = []

    def _bind(self, host: str, port: int) -> None:
        refused: OSError | None = None
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(found):
            try:
                one = socket.socket(family, kind, protocol)
            except OSError as error:
                # A machine without IPv6, say; the other family may do.
                refused = error
                continue
            self.sockets.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                # The other family has a socket of its own.
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.setblocking(False)
            one.bind(address)
        if refused is not None and not self.sockets:
            raise refused


_PASSIVE: Final = socket.AI_PASSIVE


def _not_opened(address: str, error: OSError) -> Unavailable:
    return Unavailable(
        f"{address} could not be opened.",
        why=f"The system says: {error.strerror or error}.",
        remedy=remedy_of(
            error, "Choose another one with --http-port, or stop the program that uses it."
        ),
    )


@dataclass(frozen=True, slots=True)
class Seat:
    """The place of one process at the listener."""

    address: str
    sockets: Sequence[socket.socket]
    counts: memoryview
    number: int
    crowded: memoryview

    @property
    def is_busier(self) -> bool:
        """Whether another process has fewer callers."""
        return self.counts[self.number] > min(self.counts)

    def came(self) -> None:
        """Count a caller that was taken."""
        self.counts[self.number] += 1
        if self.counts[self.number] > 1:
            self.crowded[0] = 1

    def went(self) -> None:
        """Count a caller that left."""
        self.counts[self.number] -= 1


class Acceptor:
    """Takes callers for one process; stands for the servers of asyncio.

    Parameters
    ----------
    make_protocol
        Makes what talks with a caller; it says `Seat.went` when that one has left.
    """

    def __init__(self, seat: Seat, make_protocol: Callable[[], asyncio.Protocol]) -> None:
        self._seat = seat
        self._make_protocol = make_protocol
        self._loop = asyncio.get_running_loop()
        self._sockets = list(seat.sockets)
        self._tasks: set[asyncio.Task[None]] = set()
        for one in self._sockets:
            try:
                one.listen(BACKLOG)
            except OSError as error:
                # Bound by two at the same time, who both asked to share an address that ends.
                raise _not_opened(seat.address, error) from error
            self._loop.add_reader(one.fileno(), self._knocked, one)

    def close(self) -> None:
        """Take no more callers; may be said twice."""
        for one in self._sockets:
            self._loop.remove_reader(one.fileno())
            one.close()
        self._sockets = []

    async def wait_closed(self) -> None:
        """Return when those who were just being let in are in."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _knocked(self, one: socket.socket) -> None:
        if self._seat.is_busier:
            self._loop.remove_reader(one.fileno())
            self._give_way(one, self._loop.time() + GIVE_WAY_S)
        else:
            self._take(one)

    def _give_way(self, one: socket.socket, until: float) -> None:
        if one not in self._sockets:
            return
        if self._seat.is_busier and self._loop.time() < until:
            self._loop.call_later(_LOOK_AGAIN_S, self._give_way, one, until)
            return
        self._loop.add_reader(one.fileno(), self._knocked, one)
        self._take(one)

    def _go_on(self, one: socket.socket) -> None:
        if one in self._sockets:
            self._loop.add_reader(one.fileno(), self._knocked, one)

    def _take(self, one: socket.socket) -> None:
        try:
            caller, _ = one.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another process was faster, or the caller has gone
        except OSError as error:
            logger.error("A caller could not be let in.", extra={"error": error.strerror})
            self._loop.remove_reader(one.fileno())
            self._loop.call_later(AGAIN_AFTER_S, self._go_on, one)
            return
        caller.setblocking(False)
        self._seat.came()
        task = self._loop.create_task(self._let_in(caller))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _let_in(self, caller: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make_protocol, caller)
        except BaseException as error:
            self._seat.went()
            with suppress(OSError):
                caller.close()
            if not isinstance(error, OSError):
                raise
