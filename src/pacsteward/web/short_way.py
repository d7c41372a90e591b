"""The short way: answers that are given at once, on the event loop, before a task is even made.

A viewer that scrolls asks for hundreds of frames in a second. Each of them lies in memory, yet on
the long way (`server.py`) it passes seven layers, a task and a thread, which together cost more
than everything that is done for it. So a route may also say how to answer *at once*
(`BoundRoute.at_once`), and the connection asks here first, as soon as a request's head is in.

What the layers ask is asked here too, by their own functions and in their order: limits of the
head, client and host, who it is, the permission. Their results and what the handler finds make the
same answer. Whatever is not plain goes the long way: another method, a body, a query where the
route looks for none or that is long, a condition, a range, an origin elsewhere, nobody or somebody
who has to be looked up, a lack of permission, an error, and all that would have to wait (the rule
is `WouldWait`'s). So nothing is refused here, and nothing explained.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Protocol

from starlette.requests import Request
from starlette.routing import compile_path

from pacsteward.base import log
from pacsteward.base.errors import PacstewardError, WouldWait
from pacsteward.security import Access
from pacsteward.web import headers, journal, limits
from pacsteward.web.authentication import Shown, let_in, remembered, shown
from pacsteward.web.directory import FOUND
from pacsteward.web.journal import Watch
from pacsteward.web.origin import OriginFinder

Buffer = bytes | memoryview
Headers = Sequence[tuple[bytes, bytes]]

_OUT_OF_THE_ORDINARY: Final = frozenset(
    {
        *(b"content-length", b"transfer-encoding", b"expect", b"upgrade", b"origin", b"range"),
        *(b"if-range", b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since"),
    }
)
"""Headers with which a request goes the long way."""

QUERY_MAX_BYTES: Final = 2048
"""To read a query of the longest head that is let in takes 80 ms, and that twice if it then has to
go the long way. One of this length takes 3; viewers' have some hundred bytes."""

_log = log.named("pacsteward.web")


class WholeAnswer(Protocol):
    """An answer whose bytes are all in memory."""

    status_code: int
    raw_headers: list[tuple[bytes, bytes]]

    @property
    def pieces(self) -> Sequence[Buffer]:
        """The body."""
        ...


@dataclass(slots=True)
class Greeting:
    """What a request's headers say, settled: it is the same for all that bring the same ones.

    A viewer asks for hundreds of frames over one connection with the headers of the first.
    """

    headers: list[tuple[bytes, bytes]]
    """As they came."""
    settled: dict[str, Any]
    """What of the scope they and the connection decide."""
    shown: Shown


@dataclass(slots=True)
class Memory:
    """What is remembered of one connection while it lasts."""

    greeting: Greeting | None = None


AtOnce = Callable[[Request], WholeAnswer]
"""Answers a request, or raises `WouldWait`."""


@dataclass(frozen=True, slots=True)
class ShortRoute:
    """A GET route that can be answered at once.

    Parameters
    ----------
    takes_query
        Whether what stands behind the question mark is read there, too.
    """

    path: str
    at_once: AtOnce
    permission: str
    takes_query: bool = False


class ShortWay:
    """Give it to `PatientProtocol`.

    Parameters
    ----------
    routes
        The first whose path fits is taken.
    origin
        Settles client, scheme and host as on the long way.
    watch
        Told of each request that was answered here.
    """

    def __init__(
        self,
        routes: Iterable[ShortRoute],
        *,
        access: Access,
        origin: OriginFinder,
        headers_max: int,
        header_block_max_bytes: int,
        watch: Watch | None,
    ) -> None:
        self._routes = [(compile_path(route.path)[0], route) for route in routes]
        self._access = access
        self._origin = origin
        self._headers_max = headers_max
        self._header_block_max_bytes = header_block_max_bytes
        self._watch = watch

    def answer(
        self, scope: dict[str, Any], own_headers: Headers, memory: Memory
    ) -> list[Buffer] | None:
        """Return the whole answer as it goes over the wire, None to go the long way.

        Parameters
        ----------
        scope
            Of a GET request, for this question alone.
        own_headers
            What the server adds to every answer: the date.
        memory
            Of the connection that the request came by.
        """
        try:
            return self._answer(scope, own_headers, memory)
        except (WouldWait, PacstewardError):
            return None
        except Exception as error:  # noqa: BLE001 - the long way answers, and may do better
            _log.error("short_way_failed", exc_info=error)
            return None

    def _answer(
        self, scope: dict[str, Any], own_headers: Headers, memory: Memory
    ) -> list[Buffer] | None:
        began = time.perf_counter()
        route, path_params = self._route(scope["path"])
        query = scope["query_string"]
        if route is None or (query and not route.takes_query) or len(query) > QUERY_MAX_BYTES:
            return None
        greeting = memory.greeting
        if greeting is None or greeting.headers != scope["headers"]:
            greeting = memory.greeting = self._greeting(scope)
            if greeting is None:
                return None
        found = remembered(self._access, greeting.shown)
        if found is None or not found.visit.actor.may(route.permission):
            return None
        request_id = journal.new_request_id()
        state: dict[str, Any] = {"request_id": request_id}
        let_in(state, found)
        scope |= greeting.settled
        scope |= {
            "path_params": path_params,
            "state": state,
            FOUND: route,
            "pacsteward.kind": "route",
        }
        answer = route.at_once(Request(scope))
        every = [*own_headers, *answer.raw_headers, (b"x-request-id", request_id.encode())]
        head = _head(answer.status_code, headers.completed(every, "route"))
        seconds = time.perf_counter() - began
        journal.note(self._watch, scope, request_id, answer.status_code, seconds)
        return [head, *answer.pieces]

    def _greeting(self, scope: dict[str, Any]) -> Greeting | None:
        """Read the headers; None where the request has to go the long way for them."""
        came = scope["headers"]
        if not self._is_plain(came):
            return None
        scope = {**scope, "headers": list(came)}
        if not self._origin.settle(scope):
            return None
        settled = {name: scope[name] for name in ("headers", "client", "scheme")}
        by = shown(scope)
        return Greeting(came, settled, by) if by is not None else None

    def _is_plain(self, lines: Headers) -> bool:
        return _OUT_OF_THE_ORDINARY.isdisjoint([name for name, _value in lines]) and (
            not limits.is_head_too_large(lines, self._headers_max, self._header_block_max_bytes)
        )

    def _route(self, path: str) -> tuple[ShortRoute | None, dict[str, Any]]:
        for pattern, route in self._routes:
            if found := pattern.match(path):
                return route, found.groupdict()
        return None, {}


_STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}


def _head(status: int, lines: Headers) -> bytes:
    text = [b"%b: %b\r\n" % line for line in lines]
    return b"".join((_STATUS_LINES[status], *text, b"\r\n"))
