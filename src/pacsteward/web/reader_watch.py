"""Watches whether a client reads its answer, and cuts one that does not.

Somebody who asks and takes nothing has the answer held in memory for as long as the connection
lasts, and a transport that closes waits for ever until the last of it is gone. So the watch begins
where an answer has to wait for its client, and where a connection closes while the least of one
waits; it ends when nothing does. What waits is counted for the whole process (`unread.py`), which
has less patience with everybody while that is much.

The event loop asks for more only when a third of what the system holds for it has gone. That may be
megabytes, which somebody who reads slowly takes in many small steps: so the watch looks by itself,
also into the system's queue.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import sys
import termios
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from pacsteward.web.unread import AHEAD_BYTES, UNREAD, Waiting


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a client is waited for.

    Parameters
    ----------
    stall_s
        It may take nothing for so long of an answer that waits for it.
    pressed_stall_s
        The same while very much waits for clients.
    look_s
        Time between two looks.
    """

    stall_s: float = 30.0
    pressed_stall_s: float = 3.0
    look_s: float = 1.5


class ReaderWatch:
    """Watches the client of one connection.

    Parameters
    ----------
    transport, loop
        Of the connection.
    is_idle
        Says whether no answer is being made: else there is more of it than waits on the connection.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        is_idle: Callable[[], bool],
        patience: Patience,
    ) -> None:
        self._transport = transport
        self._socket: socket.socket | None = transport.get_extra_info("socket")
        self._loop = loop
        self._is_idle = is_idle
        self._patience = patience
        self._waiting = Waiting(UNREAD)
        self._timer: asyncio.TimerHandle | None = None
        self._unsent_bytes = 0
        """The least that was seen, here and with the system."""
        self._read_at = 0.0

    def begin(self) -> None:
        """Watch from now on: something waits."""
        # One watch, also where more is written on a connection that is closing and watched already:
        # a second one would go on behind the end and count what nobody keeps any more.
        self.end()
        waiting = self._transport.get_write_buffer_size()
        self._waiting.now(waiting)
        self._unsent_bytes = waiting + _queued_bytes(self._socket)
        self._read_at = self._loop.time()
        self._look_again()

    def begin_to_close(self) -> None:
        """Watch although little waits: a transport that closes waits for ever for it."""
        if self._timer is None and self._transport.get_write_buffer_size():
            self.begin()

    def look(self) -> None:
        """Cut a client that has taken nothing for too long."""
        waiting, now = self._transport.get_write_buffer_size(), self._loop.time()
        unsent = waiting + _queued_bytes(self._socket)
        if unsent < self._unsent_bytes:
            self._unsent_bytes, self._read_at = unsent, now
        elif not self._is_idle():
            waiting += AHEAD_BYTES
        self._waiting.now(waiting)
        patience_s = self._patience.stall_s
        if UNREAD.is_much:
            patience_s = min(patience_s, self._patience.pressed_stall_s)
        if now - self._read_at >= patience_s:
            self._transport.abort()
            # Now, not when the loop comes to tell that it is lost: others whose time is up in the
            # same turn would be cut although there is room for them by then.
            self._waiting.now(0)
        else:
            self._look_again()

    def end(self) -> None:
        """Stop watching: nothing waits any more."""
        self._waiting.now(0)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def forget_connection(self) -> None:
        """Stop watching, and let go of the connection, which is lost: the two hold each other."""
        self.end()
        self._is_idle = lambda: True

    def _look_again(self) -> None:
        self._timer = self._loop.call_later(self._patience.look_s, self.look)


_QUEUED: Final[int | None] = getattr(termios, "TIOCOUTQ", None)
_INT_BYTES: Final = 4


def _queued_bytes(connection: socket.socket | None) -> int:
    """Return how much the system holds that the client's has not taken; 0 where it cannot say."""
    if connection is None or _QUEUED is None:
        return 0
    with suppress(OSError, ValueError):  # gone already, or no system that counts it
        count = fcntl.ioctl(connection.fileno(), _QUEUED, bytes(_INT_BYTES))
        return int.from_bytes(count, sys.byteorder)
    return 0
