"""The HTTP/1.1 connection, with patience that ends.

The server that carries the application waits for ever for a request's headers, and takes any
number of them. A few hundred clients that send one byte a minute would then hold all connections
(slowloris, R13), and one that never ends its headers would fill the memory. Here a connection that
has not brought a whole head in time, or whose head gets too large, is closed; bodies are watched by
`limits.py`. So is a connection whose client stopped reading its answer (`reader_watch.py`).

Lines may follow a body that comes in chunks (trailers). They are dropped: whoever believes them
believes a client what the proxy before us has not seen, such as whose request it forwards.

Before the application is asked at all, the short way is (`short_way.py`).

What comes is received into memory that the process has already: a small piece of it for heads, and
for the body of a request wherever its handler wants it (`inflow.py`).

References
----------
RFC 9112 2.2 — message parsing; RFC 6585 5 — 431; RFC 9110 6.5.1 — what no trailer may say.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import sys
import termios
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pacsteward.web import framing
from pacsteward.web.inflow import SCOPE_KEY, Inflow, length_of
from pacsteward.web.limits import HEADER_BLOCK_MAX_BYTES, is_streamed
from pacsteward.web.listening import Seat
from pacsteward.web.nearby import let_flow
from pacsteward.web.reader_watch import Patience, ReaderWatch
from pacsteward.web.short_way import Memory, ShortWay

_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-type: text/plain; charset=utf-8\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
)
_TOO_SLOW = (
    b"HTTP/1.1 408 Request Timeout\r\n"
    b"content-type: text/plain; charset=utf-8\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
)


class PatientProtocol(HttpToolsProtocol):
    """Give it to uvicorn as ``http=PatientProtocol``."""

    head_timeout_s: ClassVar[float] = 15.0
    """How long the head of a request may take, from its first byte; a new connection's, at once."""

    patience: ClassVar[Patience] = Patience()
    """With a client that does not read its answer."""

    short_way: ClassVar[ShortWay | None] = None
    """Asked before the application."""

    seat: ClassVar[Seat | None] = None
    """Counts the connection until it is lost."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the first head."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self.transport.set_protocol(_Receiver(self))
        let_flow(transport.get_extra_info("socket"), transport.get_extra_info("peername"))
        self._head_bytes = 0
        self._is_in_body = False
        self._is_answered = False
        self._deadline: asyncio.TimerHandle | None = None
        self._cycles: deque[Any] = deque()
        self._inflow: Inflow | None = None
        self._is_in_own_room = False
        self._answers = _Answers(self.transport, self.loop, self._close)
        self._reader_watch = ReaderWatch(self.transport, self.loop, self._is_idle, self.patience)
        self._body_bytes = self._beside_bytes = 0
        self._memory = Memory()
        self._refusal: bytes | None = None
        self.parser = framing.parser_for(self)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        self._unset_keepalive_if_required()
        for cycle in self._cycles:
            # Uvicorn tells only the last of several requests that were sent in a row; the answer
            # to another would be written to a connection that is gone.
            cycle.disconnected = True
        if self._inflow is not None:
            self._inflow.lose()
        self._answers.forget_connection()
        self._reader_watch.forget_connection()
        if self.seat is not None:
            self.seat.went()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, as long as the head stays within its limit."""
        if self._is_in_body:
            self._watch_rest_of_body()
            if self._inflow is not None:
                rest = self._inflow.receive(data)
                if rest:
                    self.data_received(rest)
                return
            self._beside_bytes += len(data)
        elif self._is_last_asked():
            # Whatever it is: nobody reads it (RFC 9112 9.6), and the answer is to get out.
            return
        else:
            # In a head, or before the first one, also while the request before is answered. A body
            # in the same piece counts too; it is never larger than one read.
            self._head_bytes += len(data)
            if self._head_bytes > HEADER_BLOCK_MAX_BYTES + _ONE_READ_BYTES:
                self._close_with(_TOO_LARGE if self._is_idle() else b"")
                return
        self._parse(data)
        if self._is_in_body:
            if self._beside_bytes > HEADER_BLOCK_MAX_BYTES:
                # Trailers, or one without an end, which the parser keeps.
                self._refuse()
        elif self._is_between_requests():
            # Only now: most heads come in one piece, and a clock for each would be made in vain.
            self._wait_for_head()

    def _parse(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        left: bytes | memoryview = data
        try:
            while left:
                left = self._left_by_parser(left)
        except httptools.HttpParserError:
            if self._is_in_body or not self._is_last_asked():
                self._refuse()

    def _left_by_parser(self, data: bytes | memoryview) -> bytes | memoryview:
        """Parse what came; return what follows a head that offers another protocol."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offered:
            # No other protocol is spoken here. The same parser goes on where there is no body.
            if self._is_in_body:
                self.parser = framing.parser_of_body(self, self.headers)
            return memoryview(data)[offered.args[0] :]
        return b""

    def _refuse(self) -> None:
        """End the connection: nobody knows where this request ends and the next one begins."""
        self.logger.warning("Invalid HTTP request received.")
        refusal = self._refusal or framing.UNCERTAIN
        # Others before it may wait for their answers, and one may be half way out.
        self._close_with(refusal if self._is_idle() or self._is_unanswered() else b"")

    def _is_unanswered(self) -> bool:
        """Say whether the body of a request comes that would be answered next."""
        return self._is_in_body and not self.pipeline and not self.cycle.response_started

    def _watch_rest_of_body(self) -> None:
        if self._deadline is None and self._is_idle():
            # What is left of a body that was refused; it must end in time, too.
            self._wait_for_head()
        self._unset_keepalive_if_required()

    def room(self) -> memoryview:
        """Give memory to receive the next piece into."""
        if self._inflow is not None:
            own = self._inflow.room()
            self._is_in_own_room = own is not None
            if own is not None:
                return own
        return _BODY_ROOM if self._is_in_body else _HEAD_ROOM

    def received(self, count: int) -> None:
        """Take so many bytes from the beginning of the last `room`."""
        if self._inflow is not None and self._is_in_own_room:
            self._watch_rest_of_body()
            self._inflow.received(count)
        else:
            room = _BODY_ROOM if self._is_in_body else _HEAD_ROOM
            self.data_received(bytes(room[:count]))

    def on_message_begin(self) -> None:
        """Take a request, unless the one before was said to be the last."""
        if self._is_last_asked():
            raise _Refused
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Stop the clock: the head is in."""
        self._stop_waiting()
        self._refusal = framing.refusal_of(self.headers, self.parser.get_http_version())
        if self._refusal is not None:
            raise _Refused
        self._is_in_body = True
        self._body_bytes = self._beside_bytes = 0
        if self.short_way is not None and self._is_answered_by(self.short_way):
            self._is_answered = True
            return
        super().on_headers_complete()
        if is_streamed(self.scope["method"], self.scope["path"]):
            scope = cast(dict[str, Any], self.scope)
            length = length_of(scope)
            if length:
                scope[SCOPE_KEY] = Inflow(self, self.cycle, length)
                # Nothing more before the handler has said where it wants the body. Nor is it seen
                # before that the client went away: what it has sent until then counts.
                self.flow.pause_reading()
        while self._cycles and self._cycles[0].response_complete:
            self._cycles.popleft()
        self.cycle.transport = cast(asyncio.Transport, self._answers)
        self._cycles.append(self.cycle)

    def on_body(self, body: bytes) -> None:
        """Count what the parser has seen of the body."""
        self._body_bytes += len(body)
        self._beside_bytes = 0
        super().on_body(body)

    def on_chunk_header(self) -> None:
        """Expect trailers: a line that comes from here on is none of the head."""
        self.headers = _Trailers()

    def divert(self, inflow: Inflow) -> int:
        """Give what comes to `inflow` from now on; return how many bytes the body still lacks."""
        self._inflow = inflow
        return inflow.length - self._body_bytes

    def rejoin(self) -> None:
        """Take what comes for the next request: the body is whole."""
        self._inflow = None
        # The old one would wait for the body that it has not seen.
        self.parser = framing.parser_for(self)
        self.on_message_complete()

    def on_message_complete(self) -> None:
        """Take what follows for the next head."""
        if self.parser.should_upgrade() and framing.has_body(self.headers):
            return  # the body comes all the same, see `_parse`
        self._is_in_body = False
        self._head_bytes = 0
        if self._is_answered:
            self._is_answered = False
            self.on_response_complete()
        else:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on with the next request."""
        # Its answer may go another way, and not before this one.
        self._answers.flush()
        super().on_response_complete()

    def _is_answered_by(self, short_way: ShortWay) -> bool:
        """Answer at once, if that can be done and the connection is free for it."""
        if (
            self.parser.get_method() != b"GET"
            or self.parser.get_http_version() != "1.1"
            or not self.parser.should_keep_alive()
            or not self._is_idle()
            or self.flow.write_paused
            or self.transport.is_closing()
        ):
            return False
        url = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        if "%" in path:
            return False
        scope = {**self.scope, "method": "GET", "path": path, "query_string": url.query or b""}
        pieces = short_way.answer(scope, self.server_state.default_headers, self._memory)
        if pieces is None:
            return False
        self.transport.writelines(pieces)
        return True

    def pause_writing(self) -> None:
        """Begin to watch whether the client goes on reading."""
        super().pause_writing()
        self._reader_watch.begin()

    def resume_writing(self) -> None:
        """Stop watching: it does."""
        if not self.transport.is_closing():
            self._reader_watch.end()
        super().resume_writing()

    def eof_received(self) -> None:
        """Have the transport close: the client will ask nothing more."""
        self._reader_watch.begin_to_close()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection on which nothing more is asked."""
        if _has_come(self.transport.get_extra_info("socket")):
            # In a turn of the loop that took long. This loop looks at its clocks before it receives
            # again, and to close now would throw away a request that came in time.
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        else:
            self._close()

    def shutdown(self) -> None:
        """Close when what is asked is answered: this process ends."""
        super().shutdown()
        self._reader_watch.begin_to_close()

    def _close(self) -> None:
        self.transport.close()
        self._reader_watch.begin_to_close()

    def _is_between_requests(self) -> bool:
        """Outside a body, say whether a head has begun, or something like it, and no clock runs."""
        return (
            self._deadline is None
            and self.timeout_keep_alive_task is None
            and self._is_idle()
            and not self.transport.is_closing()
        )

    def _is_last_asked(self) -> bool:
        """Say whether the connection ends with the answer to the request that came last."""
        cycle: Any = self.cycle
        return cycle is not None and not cycle.keep_alive

    def _is_idle(self) -> bool:
        cycle: Any = self.cycle
        return cycle is None or cycle.response_complete

    def _wait_for_head(self) -> None:
        self._head_bytes = 0
        self._deadline = self.loop.call_later(self.head_timeout_s, self._give_up)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        self._close_with(_TOO_SLOW if self._head_bytes else b"")

    def _close_with(self, answer: bytes) -> None:
        self._stop_waiting()
        if self.transport.is_closing():
            return
        if answer:
            self.transport.write(answer)
        self._close()


def _has_come(connection: socket.socket | None) -> bool:
    """Whether the system holds something that was not received yet."""
    if connection is not None:
        with suppress(OSError, ValueError):  # gone already
            count = fcntl.ioctl(connection.fileno(), termios.FIONREAD, bytes(4))
            return int.from_bytes(count, sys.byteorder) > 0
    return False


class _Refused(Exception):
    """Stops the parser; `_refuse` answers."""


class _Trailers(list[tuple[bytes, bytes]]):
    """In the place of the lines of a head: keeps none, and takes no more than a head may have."""

    size_bytes = 0

    def append(self, line: tuple[bytes, bytes]) -> None:
        name, value = line
        self.size_bytes += len(name) + len(value)
        if self.size_bytes > HEADER_BLOCK_MAX_BYTES:
            raise _Refused


_ONE_READ_BYTES = 16 * 1024
"""Most heads are shorter. What comes with one of its body goes through the parser, which copies."""

# For all connections: what is received is taken at once.
_HEAD_ROOM = memoryview(bytearray(_ONE_READ_BYTES))
_BODY_ROOM = memoryview(bytearray(256 * 1024))


class _Answers:
    """Sends the head of an answer together with what follows: one trip through the system.

    Parameters
    ----------
    transport
        On which it is sent.
    close
        Closes the connection.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        close: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._close = close
        self._head = b""
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.writelines((head, data))
        elif data[:5] == b"HTTP/":
            self._head = data
            # Whoever has to wait for what follows lets the client have the head meanwhile.
            self._loop.call_soon(self.flush)
        else:
            self._transport.write(data)

    def flush(self) -> None:
        """Send what is held back."""
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)

    def close(self) -> None:
        self.flush()
        self._close()

    def forget_connection(self) -> None:
        """Let go of the connection, which is lost: the two hold each other."""
        # A head would be written to a transport that takes none any more.
        self._head = b""
        self._close = lambda: None


class _Receiver(asyncio.BufferedProtocol):
    """Receives for a connection; the event loop copies what it gives to protocols of other kinds.

    Parameters
    ----------
    connection
        Is told everything else, too.
    """

    def __init__(self, connection: PatientProtocol) -> None:
        self._connection = connection

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._connection.room()

    def buffer_updated(self, nbytes: int) -> None:
        self._connection.received(nbytes)

    def eof_received(self) -> None:
        self._connection.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()
