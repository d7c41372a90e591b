"""Errors as HTTP answers: a problem document for machines, a page for people.

This door's column of the error table (ARCHITECTURE section 9). An error whose class names a more
exact `http_status` gets that one.

References
----------
RFC 9457 — problem details; RFC 9110 9.3.7 — OPTIONS, 15 — status codes; RFC 6750 3 and RFC 7617 2 —
challenges.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from pacsteward.base.errors import Kind, PacstewardError
from pacsteward.web import page

MEDIA_TYPE = "application/problem+json"

STATUS: Mapping[Kind, int] = {
    Kind.INVALID: 400,
    Kind.UNSUPPORTED: 501,
    Kind.NOT_FOUND: 404,
    Kind.CONFLICT: 409,
    Kind.FORBIDDEN: 403,
    Kind.EXHAUSTED: 507,
    Kind.UNAVAILABLE: 503,
    Kind.BROKEN: 500,
}

CHALLENGES = (
    ("www-authenticate", 'Bearer realm="pacsteward"'),
    ("www-authenticate", 'Basic realm="pacsteward", charset="UTF-8"'),
)

RETRY_AFTER_S = 5


def status_of(error: PacstewardError) -> int:
    """Return the HTTP status of `error`."""
    exact = getattr(error, "http_status", None)
    if exact is not None:
        return int(exact)
    if getattr(error, "retry_after_s", None) is not None:
        return 429
    return STATUS[error.kind]


def answer(request: Request, error: PacstewardError) -> Response:
    """Turn an error into an answer of the kind that the client can read."""
    status = status_of(error)
    headers = {}
    if status in (429, 503):
        headers["retry-after"] = str(getattr(error, "retry_after_s", RETRY_AFTER_S))
    if wants_page(request):
        response = page.render(
            request,
            "error.html",
            status_code=status,
            title=HTTPStatus(status).phrase,
            error=error,
        )
        response.headers.update(headers)
        return response
    if status == 403:
        # RFC 6750 3.1: who shows a token that does not reach far enough is told so.
        headers["www-authenticate"] = 'Bearer realm="pacsteward", error="insufficient_scope"'
    return document(
        request,
        status,
        error.what,
        why=error.why,
        remedy=error.remedy,
        kind=str(error.kind),
        headers=headers,
    )


def document(
    request: Request,
    status: int,
    what: str,
    *,
    why: str = "",
    remedy: str = "",
    kind: str = "",
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Response:
    """Return a problem document.

    ``title`` says what happened, ``detail`` why and what to do; both stand once more by
    themselves, for a program that shows them apart.
    """
    body = {
        "type": "about:blank",
        "title": what,
        "status": status,
        "detail": " ".join(part for part in (why, remedy) if part),
        "kind": kind,
        "why": why,
        "remedy": remedy,
        "request_id": getattr(request.state, "request_id", ""),
        **more,
    }
    content = {name: value for name, value in body.items() if value != ""}
    return JSONResponse(content, status, headers, media_type=MEDIA_TYPE)


def unauthorized(request: Request, *, is_wrong: bool) -> Response:
    """Ask for credentials.

    Parameters
    ----------
    is_wrong
        Some were shown, and they are not good (any more).
    """
    response = document(
        request,
        401,
        "Credentials are needed here.",
        why="Those that were sent are wrong, revoked or have expired." if is_wrong else "",
        remedy="Sign in, or send a token: `pacsteward access token NAME --role ROLE` makes one.",
    )
    mode = request.headers.get("sec-fetch-mode", "navigate")
    for name, value in CHALLENGES:
        # A script of our own pages handles 401 itself. Offered Basic, the browser would put up
        # its own password window before the script hears of it.
        if value.startswith("Basic") and mode != "navigate":
            continue
        if is_wrong and value.startswith("Bearer"):
            value += ', error="invalid_token"'
        response.headers.append(name, value)
    return response


def answer_http(request: Request, error: HTTPException) -> Response:
    """Turn the framework's own errors (no such path, wrong method) into the same form."""
    what, remedy = _WORDS.get(error.status_code, (HTTPStatus(error.status_code).phrase + ".", ""))
    headers = dict(error.headers or {})
    if request.method == "OPTIONS" and "Allow" in headers:
        # Whoever asks what an address takes has not taken a wrong method (RFC 9110 9.3.7). It opens
        # nothing to pages elsewhere: that takes headers of its own, which `web.cors_origins` adds.
        return Response(status_code=204, headers={"Allow": f"{headers['Allow']}, OPTIONS"})
    if wants_page(request):
        plain_error = PacstewardError(what, remedy=remedy)
        response = page.render(
            request,
            "error.html",
            status_code=error.status_code,
            title=HTTPStatus(error.status_code).phrase,
            error=plain_error,
        )
        response.headers.update(headers)
        return response
    return document(request, error.status_code, what, remedy=remedy, headers=headers)


_WORDS = {
    404: ("There is nothing at this address.", "Check the address."),
    405: ("This address does not take that method.", "See the Allow header for those it takes."),
}


def wants_page(request: Request) -> bool:
    """Say whether a person with a browser will read the answer."""
    kind = request.scope.get("pacsteward.kind")
    if kind is not None:
        return bool(kind == "page")
    return "text/html" in request.headers.get("accept", "")
