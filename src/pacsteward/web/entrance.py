"""Signing in and out, and the two questions that a load balancer may ask without credentials.

``/login`` takes the form fields ``username`` and ``password``, and ``next``, the page to go on to.
It needs no form token, so that scripts can sign in with one request; that nobody signs a browser
in from another site is seen by where the browser says the form came from.

References
----------
OWASP ASVS 5.0 V7.2 — a new session at each sign-in; RFC 6265bis 5.6 — SameSite.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import anyio
from anyio import CapacityLimiter
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from pacsteward.base.errors import Exhausted, Forbidden, Unavailable
from pacsteward.security import Access, Session, SignInFailed, TooManyTries
from pacsteward.web import problem
from pacsteward.web.authentication import DEVICE_COOKIE, SESSION_COOKIE
from pacsteward.web.forms import form_of
from pacsteward.web.guard import is_from_elsewhere, safe_next, without_reason
from pacsteward.web.page import render

SIGN_IN_PATH = "/login"
SIGN_OUT_PATH = "/logout"
ALIVE_PATH = "/healthz"
READY_PATH = "/readyz"

DEVICE_KEPT_S = 180 * 86_400

Readiness = Callable[[], bool]
"""Says whether requests can be served; may block for a moment."""


@dataclass
class Entrance:
    """The handlers of this module, with what they need."""

    access: Access
    is_ready: Readiness

    def __post_init__(self) -> None:
        # Each check takes 64 MiB and a core. In the common pool of threads, people who sign in
        # would hold up everybody who is already in.
        self._checks = CapacityLimiter(self.access.password_checks_max)

    async def show_sign_in(self, request: Request) -> Response:
        """Show the form."""
        wanted = safe_next(request.query_params.get("next", "/"))
        if request.state.actor is not None:
            return RedirectResponse(wanted, 302)
        return _form(request, wanted)

    async def sign_in(self, request: Request) -> Response:
        """Look at name and password, after the wait that earlier failures have earned."""
        form = form_of(request)
        name = form.text("username")[:200]
        wanted = safe_next(form.text("next") or "/")
        if is_from_elsewhere(request):
            return problem.answer(request, _NOT_FROM_HERE)
        address = request.client.host if request.client else ""
        device = request.cookies.get(DEVICE_COOKIE, "")[:200]
        try:
            with self.access.guard.queue(address):
                wait_s = await run_in_threadpool(self.access.wait_s, name, address, device=device)
                if wait_s:
                    await asyncio.sleep(wait_s)
                session = await anyio.to_thread.run_sync(
                    lambda: self.access.sign_in(
                        name, form.text("password", strip=False), address, device=device
                    ),
                    limiter=self._checks,
                )
        except (SignInFailed, TooManyTries) as error:
            return _form(request, wanted, name=name, error=error)
        except Unavailable as error:
            return problem.answer(request, without_reason(error))
        # While nothing can be written the session before stays; it ends when it is not used.
        with suppress(Unavailable):
            await self._end_present(request, address)
        response = RedirectResponse(wanted, 303)
        _remember(request, response, session)
        return response

    async def sign_out(self, request: Request) -> Response:
        """End the session; the cookie is taken back even when there is none.

        While the database is away the session would go on, and whoever has the cookie with it. So
        it is said, and the cookie stays for another try.
        """
        if is_from_elsewhere(request):
            return problem.answer(request, _NOT_FROM_HERE)
        try:
            if request.state.cannot_tell is not None:
                raise request.state.cannot_tell
            await self._end_present(request, request.client.host if request.client else "")
        except Unavailable as error:
            return problem.answer(request, without_reason(error))
        response = RedirectResponse(SIGN_IN_PATH, 303)
        response.delete_cookie(SESSION_COOKIE, path="/", httponly=True, samesite="lax")
        return response

    async def alive(self, _request: Request) -> Response:
        """Say that this process runs."""
        return JSONResponse({"status": "alive"})

    async def ready(self, _request: Request) -> Response:
        """Say whether requests can be served; nothing else, for anybody may ask."""
        if await run_in_threadpool(self.is_ready):
            return JSONResponse({"status": "ready"})
        return JSONResponse({"status": "not ready"}, 503, {"retry-after": "5"})

    async def _end_present(self, request: Request, address: str) -> None:
        cookie = request.cookies.get(SESSION_COOKIE, "")
        if cookie and request.state.credentials == "session":
            await run_in_threadpool(self.access.sign_out, cookie, address)


_NOT_FROM_HERE = Forbidden(
    "That was not done.",
    why="Another site had your browser send it.",
    remedy="Open the sign-in page yourself.",
)


def _form(
    request: Request,
    wanted: str,
    *,
    name: str = "",
    error: SignInFailed | Exhausted | None = None,
) -> Response:
    status = 200
    if error is not None:
        is_too_many = isinstance(error, TooManyTries) or getattr(error, "is_too_many", False)
        status = 429 if is_too_many else 401
    response = render(
        request, "login.html", status_code=status, wanted=wanted, name=name, error=error
    )
    if status == 401:
        # RFC 9110 15.5.2 wants a challenge. Bearer makes no browser put up its own window.
        response.headers["www-authenticate"] = 'Bearer realm="pacsteward"'
    if status == 429:
        response.headers["retry-after"] = str(getattr(error, "retry_after_s", 10))
    return response


def _remember(request: Request, response: Response, session: Session) -> None:
    is_secure = request.url.scheme == "https"
    response.set_cookie(
        SESSION_COOKIE, session.cookie, path="/", httponly=True, samesite="lax", secure=is_secure
    )
    response.set_cookie(
        DEVICE_COOKIE,
        session.device,
        max_age=DEVICE_KEPT_S,
        path=SIGN_IN_PATH,
        httponly=True,
        samesite="lax",
        secure=is_secure,
    )
