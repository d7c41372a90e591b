"""The body of a request, given piece by piece to whoever wants it at once.

A handler that asks for the next piece of a body, and the next, waits for each of them: the pieces
of 256 KiB wake a task, pass through every layer and go through the HTTP parser, which copies them.
A handler that can take a piece in a plain function uses the `Inflow` of the request instead, where
there is one (`inflow_of`); it wakes up when the body is whole. It may also say where the pieces are
to be received, so that nobody copies them. For bodies of known length only.

References
----------
RFC 9112 6.2 — a body with Content-Length ends by counting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol

from starlette.requests import ClientDisconnect, Request
from starlette.types import Scope

SCOPE_KEY: Final = "pacsteward.inflow"

Take = Callable[[bytes | memoryview], None]


class Room(Protocol):
    """Memory that the pieces of a body are received into."""

    def room(self) -> memoryview | None:
        """Give memory for the next piece, or None for one that comes as bytes."""
        ...

    def received(self, count: int) -> None:
        """Take note of so many bytes at the beginning of the last `room`."""
        ...


class Connection(Protocol):
    """What is needed of the HTTP connection (`protocol.py`)."""

    flow: Any

    def divert(self, inflow: Inflow) -> int:
        """Give what comes to `inflow` from now on; return how many bytes the body still lacks."""
        ...

    def rejoin(self) -> None:
        """Take what comes for the next request: the body is whole."""
        ...


class Inflow:
    """The body of one request.

    Parameters
    ----------
    connection
        On which it comes.
    cycle
        Uvicorn's request and answer.
    length
        Its Content-Length.
    """

    def __init__(self, connection: Connection, cycle: Any, length: int) -> None:
        self._connection = connection
        self._cycle = cycle
        self.length = length
        self._loop = asyncio.get_running_loop()
        self._take: Take | None = None
        self._room: Room | None = None
        self._given: memoryview | None = None
        """What was given to receive into last."""
        self._left = 0
        self._end: asyncio.Future[None] = self._loop.create_future()
        self._is_paused = False
        self._stall_s = float("inf")
        self._tell_stalled: Callable[[], None] = lambda: None
        self._moved_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, stall_s: float, tell: Callable[[], None]) -> None:
        """Have `tell` called, and the body given up, when nothing comes for so long."""
        self._stall_s = stall_s
        self._tell_stalled = tell

    async def into(self, take: Take, room: Room | None = None) -> None:
        """Give all pieces to `take`; return when the body is whole. To be called once.

        What `take` raises is raised here, and the rest of the body goes nowhere. What had come
        before the client went away is given, too.

        Parameters
        ----------
        room
            Where it is to be received; `take` is given views of that.

        Raises
        ------
        ClientDisconnect
            The body ended before its end, or stalled.
        """
        # Not kept: the two would hold each other, and wait for the collector of cycles.
        cycle, self._cycle = self._cycle, None
        begun, cycle.body = bytes(cycle.body), b""
        if not cycle.more_body:
            take(begun)
            return
        if cycle.disconnected:
            if begun:
                take(begun)
            raise ClientDisconnect
        self._take, self._room = take, room
        self._left = self._connection.divert(self)
        try:
            if begun:
                take(begun)
            self._begin_to_watch()
            if not self._is_paused:
                self._connection.flow.resume_reading()
            await self._end
        finally:
            self._take = self._room = self._given = None
            self._end.cancel()
            if self._timer is not None:
                self._timer.cancel()

    def pause(self) -> None:
        """Receive nothing for now; `take` may say so."""
        self._is_paused = True
        self._connection.flow.pause_reading()

    def resume(self) -> None:
        """Go on after `pause`."""
        if self._is_paused:
            self._is_paused = False
            self._moved_at = self._loop.time()
            self._connection.flow.resume_reading()

    # --- for the connection -----------------------------------------------------------------

    def room(self) -> memoryview | None:
        """Give memory to receive the next piece into, none of the next request; None for bytes."""
        given = self._room.room() if self._room is not None else None
        self._given = given if given is None or len(given) <= self._left else given[: self._left]
        return self._given

    def received(self, count: int) -> None:
        """Take so many bytes from the beginning of the last `room`."""
        if self._given is not None and self._room is not None:
            self._room.received(count)
            self._took(self._given[:count])

    def receive(self, data: bytes) -> bytes:
        """Take what came; return what belongs to the next request."""
        own = data if len(data) <= self._left else data[: self._left]
        self._took(own)
        return data[len(own) :]

    def _took(self, own: bytes | memoryview) -> None:
        self._left -= len(own)
        self._moved_at = self._loop.time()
        if self._take is not None:
            try:
                self._take(own)
            except Exception as error:  # noqa: BLE001 — the handler raises it
                self._give_up(error)
        if not self._left:
            self._connection.rejoin()
            if not self._end.done():
                self._end.set_result(None)

    def lose(self) -> None:
        """Tell that the connection is gone."""
        self._give_up(ClientDisconnect())

    def _give_up(self, error: Exception) -> None:
        self._take = self._room = None
        if not self._end.done():
            self._end.set_exception(error)

    def _begin_to_watch(self) -> None:
        if self._stall_s != float("inf"):
            self._moved_at = self._loop.time()
            self._timer = self._loop.call_later(self._stall_s, self._look)

    def _look(self) -> None:
        idle_s = 0.0 if self._is_paused else self._loop.time() - self._moved_at
        if idle_s >= self._stall_s:
            self._tell_stalled()
            self._give_up(ClientDisconnect())
        else:
            self._timer = self._loop.call_later(self._stall_s - idle_s, self._look)


def inflow_of(request: Request) -> Inflow | None:
    """Return the inflow of a request, if its body can be had in this way."""
    return request.scope.get(SCOPE_KEY)


def length_of(scope: Scope) -> int:
    """Return the length of a body that can be an inflow; 0 for every other one."""
    length = 0
    for name, value in scope["headers"]:
        if name == b"content-length":
            if length or not value.isdigit() or len(value) > 18:
                return 0
            length = int(value)
        elif name in (b"transfer-encoding", b"expect", b"upgrade"):
            return 0
    return length
