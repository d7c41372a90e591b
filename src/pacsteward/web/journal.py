"""Gives each request a name, times it, and lets no fault out.

A fault that nobody named becomes a 500 without details; the log has them under the request's name,
which the answer carries. An address is logged as its route has it, with UIDs filled in: what else
people write into an address, or behind its question mark, may be a patient.

A request waits for a locked database once, however many things it has to write down.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import secrets
import time
from collections.abc import Callable

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pacsteward.base import log
from pacsteward.base.db import patient_once
from pacsteward.base.errors import Broken
from pacsteward.web import problem
from pacsteward.web.directory import FOUND

SLOW_S = 2.0

_NOWHERE = "(no route)"
"""Who knows what the address says."""

_PARAMETER = re.compile(r"\{(\w+)(:\w+)?\}")
_UID = re.compile(r"[0-9]{1,40}(\.[0-9]{1,40})+")

# A word for this process and a number are unique, and cheaper than randomness for each request.
_process = secrets.token_hex(3)
_count = itertools.count(1)


def _count_anew() -> None:
    """Have processes that were forked from one give different names to their requests."""
    global _process, _count
    _process, _count = secrets.token_hex(3), itertools.count(1)


os.register_at_fork(after_in_child=_count_anew)

Watch = Callable[[str, str, int, float], None]
"""Told of each request: method, kind of route, status, seconds."""

_log = log.named("pacsteward.web")
_plain_log = logging.getLogger("pacsteward.web")
"""Asked whether a line is wanted, before it is made."""


class Journal:
    """ASGI middleware.

    Parameters
    ----------
    watch
        Counts requests for monitoring.
    """

    def __init__(self, app: ASGIApp, watch: Watch | None = None) -> None:
        self._app = app
        self._watch = watch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        request_id = new_request_id()
        scope.setdefault("state", {})["request_id"] = request_id
        mark = request_id.encode()
        status = 0

        async def marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message.setdefault("headers", []).append((b"x-request-id", mark))
            await send(message)

        try:
            with patient_once():
                await self._app(scope, receive, marked)
        except ClientDisconnect:
            status = status or 499
        except Exception as error:  # noqa: BLE001 - the last place where it can be caught
            _log.error(
                "request_failed",
                request_id=request_id,
                method=scope["method"],
                path=_address(scope),
                exc_info=error,
            )
            if status == 0:
                await _apologise(scope, receive, marked)
            # An answer that had begun stays incomplete: the server cuts the connection, and the
            # client sees that it did not get the whole.
        finally:
            note(self._watch, scope, request_id, status, time.perf_counter() - began)


def new_request_id() -> str:
    """Return a name for a request."""
    return f"{_process}{next(_count) & 0xFFFFFF:06x}"


def note(watch: Watch | None, scope: Scope, request_id: str, status: int, seconds: float) -> None:
    """Write down how a request ended."""
    kind = scope.get("pacsteward.kind", "other")
    if watch is not None:
        watch(scope["method"], kind, status, seconds)
    if status >= 500 or seconds >= SLOW_S:
        level = logging.WARNING
    else:
        level = logging.INFO if kind in ("page", "api") else logging.DEBUG
    if not _plain_log.isEnabledFor(level):
        return
    _log.log(
        level,
        "request",
        request_id=request_id,
        method=scope["method"],
        path=_address(scope),
        status=status,
        ms=round(seconds * 1000, 1),
    )


def _address(scope: Scope) -> str:
    """Return the address of a request without anything that could name a patient."""
    # Starlette itself notes only that the directory of routes took the request.
    route = scope.get(FOUND) or scope.get("route")
    template = getattr(route, "path", None)
    if template is None:
        return _NOWHERE
    given = scope.get("path_params", {})

    def fill(found: re.Match[str]) -> str:
        value = str(given.get(found[1], ""))
        return value if len(value) <= 64 and _UID.fullmatch(value) else found[0]

    root = str(scope.get("root_path", ""))
    # What is mounted there may have no route for it; then the mount itself is all that is known.
    return root if template == root else root + _PARAMETER.sub(fill, template)


async def _apologise(scope: Scope, receive: Receive, send: Send) -> None:
    request = Request(scope, receive)
    error = Broken(
        "Something went wrong on our side.",
        why="The fault was written into the log.",
        remedy=f"Tell your administrator the number {request.state.request_id}.",
    )
    await problem.answer(request, error)(scope, receive, send)
