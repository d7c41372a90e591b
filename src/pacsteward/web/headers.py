"""What every answer tells the browser not to do.

An answer that sets one of these headers itself keeps its own: the viewer needs a wider policy for
its decoders, a picture may be cached.

References
----------
OWASP ASVS 5.0 V3.4 — browser security headers; CSP Level 3.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from starlette.types import ASGIApp, Message, Receive, Scope, Send

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; manifest-src 'self'; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
"""For our own pages: no inline script, no inline style, nothing from elsewhere."""

DATA_POLICY = "default-src 'none'; sandbox; frame-ancestors 'none'; base-uri 'none'"
"""For all else: what was stored may be made to look like a page, and must not come alive (S13)."""

_ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)
_PAGE = (*_ALWAYS, (b"content-security-policy", PAGE_POLICY.encode()))
_DATA = (*_ALWAYS, (b"content-security-policy", DATA_POLICY.encode()))


@lru_cache(maxsize=256)
def lacking(names: tuple[bytes, ...], kind: str) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers that an answer lacks which has those of these names.

    Parameters
    ----------
    kind
        Of the route that answers, see `guard.Kind`.
    """
    wanted = _PAGE if kind in ("page", "asset") else _DATA
    return tuple(pair for pair in wanted if pair[0] not in names)


def completed(given: Iterable[tuple[bytes, bytes]], kind: str) -> list[tuple[bytes, bytes]]:
    """Return the headers of an answer with those that it lacks.

    Parameters
    ----------
    kind
        Of the route that answers, see `guard.Kind`.
    """
    headers = list(given)
    return [*headers, *lacking(tuple([name for name, _value in headers]), kind)]


class SafeHeaders:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and complete the answer's headers."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def complete(message: Message) -> None:
            if message["type"] == "http.response.start":
                # The kind is set by the guard of each route, so it is known only now.
                kind = scope.get("pacsteward.kind", "")
                message["headers"] = completed(message.get("headers", []), kind)
            await send(message)

        await self._app(scope, receive, complete)
