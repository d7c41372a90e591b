"""Asks before each handler: is somebody there, may they do this, and do they mean it.

1. Nobody there: a page sends to sign-in, anything else answers 401.
   While the database is away nobody can be known: 503, also to those who are signed in.
2. Somebody there without the permission: 403, and a line in the audit book.
3. A request that changes something and was sent by a browser must come from our own pages. A
   browser adds cookies and Basic credentials by itself, also to what another site makes it send
   (CSRF); a bearer token it never adds.

References
----------
RFC 9110 15.5.2, 15.5.4; OWASP ASVS 5.0 V3.5 — cross-origin requests; Fetch metadata (W3C).
"""

from __future__ import annotations

import hmac
import inspect
from collections.abc import Awaitable, Callable
from typing import Final, Literal, cast
from urllib.parse import SplitResult, urlencode, urlsplit

from starlette.datastructures import URL
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Match

from pacsteward.base.errors import Forbidden, PacstewardError, Unavailable
from pacsteward.security import Actor, AuditBook, AuditEventType
from pacsteward.web import problem
from pacsteward.web.forms import FIELDS_MAX, TOKEN_FIELD, Form
from pacsteward.web.page import leave_notice
from pacsteward.web.threads import in_thread

Handler = Callable[[Request], Response | Awaitable[Response]]
"""A plain function runs in a thread and may block; a coroutine runs on the loop and may not."""

Kind = Literal["page", "route", "api", "asset"]

FORM_TOKEN_HEADER = "x-form-token"  # noqa: S105
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class Guard:
    """Stands before handlers.

    Parameters
    ----------
    audit
        Where refusals are written.
    """

    def __init__(self, audit: AuditBook) -> None:
        self._audit = audit

    def protect(
        self, handler: Handler, permission: str | None, kind: Kind
    ) -> Callable[[Request], Awaitable[Response]]:
        """Return `handler` behind this guard.

        Parameters
        ----------
        permission
            None lets everybody in.
        """
        is_async = inspect.iscoroutinefunction(_innermost(handler))

        async def guarded(request: Request) -> Response:
            request.scope["pacsteward.kind"] = kind
            try:
                if permission is not None:
                    refusal = await self.check(request, permission, kind)
                    if refusal is not None:
                        return refusal
                if kind == "page" and request.method == "POST":
                    await self._read_form(request, needs_token=permission is not None)
                if is_async:
                    return await cast(Awaitable[Response], handler(request))
                return cast(Response, await in_thread(handler, request))
            except PacstewardError as error:
                return problem.answer(request, error)

        return guarded

    async def check(self, request: Request, permission: str, kind: Kind) -> Response | None:
        """Return the refusal, or None for whoever may go on."""
        actor: Actor | None = request.state.actor
        if actor is None:
            return await self.ask_who(request, kind)
        if not actor.may(permission):
            await self._note(request, actor, f"{actor.name} lacks the permission {permission}")
            return problem.answer(request, _lacks(actor, permission))
        if request.method not in SAFE_METHODS and not is_meant(request, kind):
            await self._note(request, actor, "Another site sent it in the browser of this person")
            return problem.answer(request, _not_ours())
        return None

    async def ask_who(self, request: Request, kind: Kind) -> Response:
        """Return what somebody is answered of whom nobody knows who it is."""
        state = request.state
        if state.cannot_tell is not None:
            return problem.answer(request, without_reason(state.cannot_tell))
        if state.credentials in ("bearer", "basic"):
            await self._note(request, _nobody(request), "Wrong or revoked credentials")
        elif state.credentials == "none" and kind != "page":
            await self._note(request, _nobody(request), "No credentials")
        if kind == "page" and state.credentials in ("none", "session"):
            return to_sign_in(request)
        return problem.unauthorized(request, is_wrong=state.is_wrong)

    async def _read_form(self, request: Request, *, needs_token: bool) -> None:
        form = await request.form(max_files=0, max_fields=FIELDS_MAX)
        request.state.form = Form(form)
        if needs_token and request.state.credentials == "session":
            sent = form.get(TOKEN_FIELD) or request.headers.get(FORM_TOKEN_HEADER, "")
            if not (isinstance(sent, str) and _same(sent, request.state.form_token)):
                actor: Actor = request.state.actor
                await self._note(request, actor, "A form came without its token")
                raise _not_ours()

    async def _note(self, request: Request, actor: Actor, why: str) -> None:
        what = f"{request.method} {request.scope['path'][:200]} was refused. {why}."
        event_type = (
            AuditEventType.NODE_AUTHENTICATION
            if actor.name == NOBODY
            else AuditEventType.USE_OF_RESTRICTED_FUNCTION
        )
        await in_thread(self._audit.record_refusal, actor, what, event_type=event_type)


NOBODY = "nobody"


def _nobody(request: Request) -> Actor:
    return Actor("person", NOBODY, frozenset(), request.client.host if request.client else "")


def is_meant(request: Request, kind: Kind) -> bool:
    """Say whether a request that changes something was sent on purpose."""
    match request.state.credentials:
        case "session":
            if is_from_elsewhere(request):
                return False
            # A page's form carries its token, which is checked with the form. Scripts of our
            # pages that use the API carry it in a header, or the browser vouches for them.
            return kind == "page" or _is_vouched(request)
        case "basic":
            return not is_from_elsewhere(request)
    return True


def is_from_elsewhere(request: Request) -> bool:
    """Say whether a browser tells that another site had the request sent."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is not None and not _is_own(request, origin)


def _is_vouched(request: Request) -> bool:
    sent = request.headers.get(FORM_TOKEN_HEADER, "")
    return (
        _same(sent, request.state.form_token)
        or request.headers.get("sec-fetch-site") == "same-origin"
        or _is_own(request, request.headers.get("origin", ""))
    )


def _is_own(request: Request, origin: str) -> bool:
    parts = _split(origin)
    ours = request.url
    return parts is not None and (parts.scheme, parts.netloc) == (ours.scheme, ours.netloc)


def _split(address: str) -> SplitResult | None:
    """Take an address apart; None for one that is none, such as ``http://[``."""
    try:
        return urlsplit(address)
    except ValueError:
        return None


def _same(sent: str, kept: str) -> bool:
    return bool(kept) and hmac.compare_digest(sent.encode(), kept.encode())


def to_sign_in(request: Request) -> Response:
    """Send the browser to the sign-in page, and back to where it is afterwards.

    What a script or a form asked for is not repeated: the page that it stands on is gone back to,
    with its filters, and somebody who sent something hears that it was not done.
    """
    is_script = request.headers.get("hx-request") == "true"
    is_page = request.method in SAFE_METHODS and not is_script
    wanted = _address(request.url) if is_page else _page_before(request)
    link = "/login" if wanted == "/" else "/login?" + urlencode({"next": wanted})
    if is_script:
        # The script would put the sign-in page into the middle of this one.
        response: Response = Response(status_code=401, headers={"hx-redirect": link})
    else:
        response = RedirectResponse(link, 302 if is_page else 303)
    if request.method not in SAFE_METHODS:
        leave_notice(response, _NOT_DONE, "warning")
    return response


_NOT_DONE = (
    "You were signed out meanwhile, so what you sent was not done. Sign in and send it again."
)


def _page_before(request: Request) -> str:
    """Return the page of ours that a form or a script stands on."""
    before = request.headers.get("referer", "")
    if not _is_own(request, before):
        return "/"
    parts = urlsplit(before)
    page = _readable_page(request, parts.path)
    return safe_next(_address(parts) if page == parts.path else page)


_PARTS_MAX: Final = 12
"""Of an address; no page of ours has more, and whoever sends more is not to have each looked up."""


def _readable_page(request: Request, path: str) -> str:
    """Return `path`, or the nearest above it that can be gone to.

    A form that was sent back with a fault stands at the address that it was sent to, which may take
    nothing but forms.
    """
    if path.count("/") > _PARTS_MAX:
        return "/"
    while path and not _is_readable(request, path):
        path = path.rpartition("/")[0]
    return path or "/"


def _is_readable(request: Request, path: str) -> bool:
    asked = {**request.scope, "method": "GET", "path": path}
    return any(route.matches(asked)[0] is Match.FULL for route in request.app.routes)


def _address(url: URL | SplitResult) -> str:
    return f"{url.path}?{url.query}" if url.query else url.path


def safe_next(text: str) -> str:
    """Return a path to go on to after sign-in; "/" when `text` leads anywhere but to us."""
    parts = _split(text)
    leads_here = (
        parts is not None
        and text.startswith("/")
        and not text.startswith(("//", "/\\"))
        and not parts.scheme
        and not parts.netloc
        and text.isprintable()
        and "\\" not in text
    )
    return text if leads_here else "/"


def without_reason(error: Unavailable) -> Unavailable:
    """Say the same without the reason, which has addresses in it: nobody knows who reads it."""
    return Unavailable(error.what, remedy=error.remedy)


def _lacks(actor: Actor, permission: str) -> Forbidden:
    return Forbidden(
        f"{actor.name} may not do that.",
        why=f"It needs the permission {permission}.",
        remedy="Ask an administrator for a role that has it.",
    )


def _not_ours() -> Forbidden:
    return Forbidden(
        "That was not done.",
        why="The form was not sent from a page of this session.",
        remedy="Go back, load the page again and repeat it.",
    )


def _innermost(handler: object) -> object:
    """Look through `functools.partial`, with which rooms' handlers are bound to the house."""
    while hasattr(handler, "func"):
        handler = handler.func
    return handler
