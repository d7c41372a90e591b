"""Finds out who sends a request.

A session cookie, a bearer token, or the same token as the password of HTTP Basic, whatever the
user name: some machines can only do that. What is found stands in ``request.state``:

- ``actor``: the `Actor`, or None;
- ``credentials``: how it was known, "session", "bearer", "basic" or "none";
- ``is_wrong``: something was shown, and it is not good (any more);
- ``cannot_tell``: why it cannot be said whether it is good, as while the database is away;
- ``visit``, ``form_token``: of a session.

Whether that is enough is the guard's business (`guard.py`).

References
----------
RFC 6750 2.1 — bearer; RFC 7617 2 — Basic.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final

from starlette.types import ASGIApp, Receive, Scope, Send

from pacsteward.base.errors import Unavailable, WouldWait
from pacsteward.security import Access, Visit, form_token_of, hash_of
from pacsteward.web.threads import in_thread

log = logging.getLogger("pacsteward.web")

SESSION_COOKIE = "pacsteward_session"
DEVICE_COOKIE = "pacsteward_device"

SECRET_MAX = 512


NOBODY_YET: Final = {
    "actor": None,
    "visit": None,
    "credentials": "none",
    "is_wrong": False,
    "cannot_tell": None,
    "form_token": "",
}
"""What stands in ``request.state`` of somebody who showed nothing."""


@dataclass(frozen=True, slots=True)
class Known:
    """Who sends a request, and by what it is known."""

    how: str
    secret: str
    visit: Visit


def let_in(state: MutableMapping[str, Any], known: Known) -> None:
    """Write into ``request.state`` who it is."""
    state.update(
        actor=known.visit.actor,
        visit=known.visit,
        credentials=known.how,
        is_wrong=False,
        form_token=form_token_of(known.secret) if known.how == "session" else "",
    )


@dataclass(frozen=True, slots=True)
class Shown:
    """What somebody identifies himself with."""

    how: str
    secret: str
    secret_hash: str
    address: str


def shown(scope: Scope) -> Shown | None:
    """Return what a request shows, None where that is nothing that could be good."""
    how, secret = _shown(scope["headers"])
    if not secret or len(secret) > SECRET_MAX:
        return None
    return Shown(how, secret, hash_of(secret), _address(scope))


def remembered(access: Access, by: Shown) -> Known | None:
    """Return who that is, if it can be said at once; it changes nothing."""
    try:
        number = access.changes.number_at_once()
    except WouldWait:
        return None
    visit = access.recall_hash(by.secret_hash, by.address, number)
    return Known(by.how, by.secret, visit) if visit else None


class Authentication:
    """ASGI middleware.

    Parameters
    ----------
    access
        Knows sessions and tokens.
    public
        Beginnings of paths where nobody is asked who they are: static files.
    """

    def __init__(self, app: ASGIApp, *, access: Access, public: tuple[str, ...] = ()) -> None:
        self._app = app
        self._access = access
        self._public = public
        self._number = _numbers_of(access)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Find out who it is, and pass the request on."""
        if scope["type"] == "http":
            state = scope.setdefault("state", {})
            state.update(NOBODY_YET)
            if not scope["path"].startswith(self._public):
                await self._recognise(scope)
        await self._app(scope, receive, send)

    async def _recognise(self, scope: Scope) -> None:
        state = scope["state"]
        how, secret = _shown(scope["headers"])
        if how == "none":
            return
        try:
            visit = await self._visit(how, secret, _address(scope))
        except Unavailable as error:
            # What everybody may have, such as /healthz, is given all the same.
            log.warning("It could not be said who sent a request. %s", error)
            state["cannot_tell"] = error
            return
        if visit is None:
            state.update(credentials=how, is_wrong=True)
        else:
            let_in(state, Known(how, secret, visit))

    async def _visit(self, how: str, secret: str, address: str) -> Visit | None:
        if not secret or len(secret) > SECRET_MAX:
            return None
        known = self._access.recall(secret, address, await self._number())
        if known is not None:
            return known
        look = self._access.visit_by_session if how == "session" else self._access.visit_by_token
        return await in_thread(look, secret, address)


def _address(scope: Scope) -> str:
    return scope["client"][0] if scope.get("client") else ""


def _shown(headers: list[tuple[bytes, bytes]]) -> tuple[str, str]:
    """Return how somebody identifies himself, and the secret.

    An Authorization header goes before a cookie: whoever sends one means it.
    """
    cookies = []
    for name, value in headers:
        if name == b"authorization":
            return _authorization(value)
        if name == b"cookie":
            cookies.append(value)
    for cookie in cookies:
        if SESSION_COOKIE.encode() in cookie:
            secret = _cookie(cookie)
            if secret:
                return "session", secret
    return "none", ""


def _authorization(value: bytes) -> tuple[str, str]:
    scheme, _space, rest = value.decode("latin-1").partition(" ")
    match scheme.lower():
        case "bearer":
            return "bearer", rest.strip()
        case "basic":
            try:
                pair = base64.b64decode(rest.strip(), validate=True).decode("utf-8")
            except (binascii.Error, UnicodeDecodeError):
                return "basic", ""
            return "basic", pair.partition(":")[2]
    return "bearer", ""


def _cookie(value: bytes) -> str:
    cookies: SimpleCookie = SimpleCookie()
    try:
        cookies.load(value.decode("latin-1"))
    except CookieError:
        return ""
    return cookies[SESSION_COOKIE].value if SESSION_COOKIE in cookies else ""


def _numbers_of(access: Access) -> Callable[[], Awaitable[int]]:
    """Return a way to ask for `Changes.number` that does not block the event loop."""
    shared = _Shared(access.changes.number)

    async def number() -> int:
        try:
            return access.changes.number_at_once()
        except WouldWait:
            return await shared()

    return number


class _Shared:
    """Asks once for all requests that came in before the question was sent.

    Each of them sees a number that is not older than itself, which is what makes a revoked token
    useless at once; under load hundreds share one question.
    """

    def __init__(self, ask: Callable[[], int]) -> None:
        self._ask = ask
        self._running: asyncio.Task[int] | None = None
        self._next: asyncio.Task[int] | None = None

    async def __call__(self) -> int:
        if self._next is None:
            self._next = asyncio.create_task(self._run(self._running))
        return await asyncio.shield(self._next)

    async def _run(self, before: asyncio.Task[int] | None) -> int:
        if before is not None:
            await asyncio.wait([before])
        # From here on a new request needs a new question.
        self._running, self._next = self._next, None
        return await in_thread(self._ask)
