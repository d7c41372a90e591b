"""Limits of a request: headers, body, patience.

References
----------
RFC 9110 15.5.9 (408), 15.5.14 (413); RFC 6585 5 (431).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pacsteward.web import problem
from pacsteward.web.inflow import SCOPE_KEY, Inflow

HEADERS_MAX = 100
JSON_DEPTH_MAX = 64
HEADER_BLOCK_MAX_BYTES = 64 * 1024

STREAMED = (("POST", "/dicom-web/studies"),)
"""Requests whose body is read as it comes and may be as long as it likes: STOW-RS."""


class Limits:
    """ASGI middleware.

    Parameters
    ----------
    body_max_bytes
        For all but `STREAMED`.
    stall_s
        How long the next piece of a body may take, in seconds.
    headers_max, header_block_max_bytes
        Header lines, and their names and values together.
    json_depth_max
        Arrays and objects within each other; the parser itself would give up near a thousand, and
        whoever walks through the result much earlier.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        body_max_bytes: int,
        stall_s: float,
        headers_max: int = HEADERS_MAX,
        header_block_max_bytes: int = HEADER_BLOCK_MAX_BYTES,
        json_depth_max: int = JSON_DEPTH_MAX,
    ) -> None:
        self._app = app
        self._body_max_bytes = body_max_bytes
        self._stall_s = stall_s
        self._headers_max = headers_max
        self._header_block_max_bytes = header_block_max_bytes
        self._json_depth_max = json_depth_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = scope["headers"]
        if is_head_too_large(headers, self._headers_max, self._header_block_max_bytes):
            await _refuse(scope, receive, send, 431, "The request's headers are too large.")
            return
        is_free = is_streamed(scope["method"], scope["path"])
        limit = None if is_free else self._body_max_bytes
        if limit is not None and _promised_bytes(headers) > limit:
            await _refuse(scope, receive, send, 413, _too_large(limit))
            return
        depth = self._json_depth_max if limit is not None and _may_be_json(headers) else None
        await _Watched(scope, receive, send, limit, self._stall_s, depth).run(self._app)


def is_streamed(method: str, path: str) -> bool:
    """Say whether the body of a request is read as it comes, whatever its size."""
    return any(method == one and path.startswith(beginning) for one, beginning in STREAMED)


class _Watched:
    """One request whose body is counted while it comes in."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        limit: int | None,
        stall_s: float,
        json_depth_max: int | None,
    ) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._limit = limit
        self._stall_s = stall_s
        self._json_depth_max = json_depth_max
        self._json: list[bytes] = []
        self._received = 0
        self._is_body_in = False
        self._has_answered = False
        self._fault: tuple[int, str] | None = None
        inflow: Inflow | None = scope.get(SCOPE_KEY)
        if inflow is not None:
            inflow.watch(stall_s, self._stalled)

    async def run(self, app: ASGIApp) -> None:
        try:
            await app(self._scope, self.receive, self.send)
        except ClientDisconnect:
            if self._fault is None:
                raise
        if self._fault is not None and not self._has_answered:
            await _refuse(self._scope, self._receive, self._send, *self._fault)

    async def receive(self) -> Message:
        if self._is_body_in:
            # What comes now is only the news that the client went away; that may take its time.
            return await self._receive()
        try:
            async with asyncio.timeout(self._stall_s):
                message = await self._receive()
        except TimeoutError:
            self._stalled()
            return {"type": "http.disconnect"}
        if message["type"] == "http.request":
            self._received += len(message.get("body", b""))
            self._is_body_in = not message.get("more_body", False)
            if self._limit is not None and self._received > self._limit:
                self._fault = (413, _too_large(self._limit))
                return {"type": "http.disconnect"}
            if self._json_depth_max is not None and await self._is_too_deep(message):
                self._fault = (
                    400,
                    f"The JSON body is nested more than {self._json_depth_max} levels deep.",
                )
                return {"type": "http.disconnect"}
        return message

    def _stalled(self) -> None:
        self._fault = (408, "The request stopped coming in.")

    async def _is_too_deep(self, message: Message) -> bool:
        """Collect the body, and look at it when it is whole."""
        assert self._json_depth_max is not None
        self._json.append(message.get("body", b""))
        if not self._is_body_in:
            return False
        body = b"".join(self._json)
        self._json.clear()
        if body.count(b"[") + body.count(b"{") <= self._json_depth_max:
            return False
        return await asyncio.to_thread(is_deeper, body, self._json_depth_max)

    async def send(self, message: Message) -> None:
        # After a fault the application answers to something that never came in whole.
        if self._fault is None or self._has_answered:
            self._has_answered = True
            await self._send(message)


def is_head_too_large(
    headers: Sequence[tuple[bytes, bytes]], headers_max: int, block_max_bytes: int
) -> bool:
    """Whether a request has more headers than it may, or longer ones."""
    return len(headers) > headers_max or (
        sum([len(name) + len(value) for name, value in headers]) > block_max_bytes
    )


_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_ALL_BUT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_ONE_KIND = bytes.maketrans(b"{}", b"[]")


def is_deeper(body: bytes, depth_max: int) -> bool:
    """Whether a JSON text is nested deeper than it may be, without parsing it.

    What is not well formed may be called deep: it is refused anyway.
    """
    brackets = _STRING.sub(b"", body).translate(_ONE_KIND, _ALL_BUT_BRACKETS)
    for _ in range(depth_max):
        # Each round takes the innermost level away.
        fewer = brackets.replace(b"[]", b"")
        if not fewer:
            return False
        if len(fewer) == len(brackets):
            break
        brackets = fewer
    return bool(brackets)


def _may_be_json(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether a body could be read as JSON: it says so, or it says nothing."""
    kinds = [value for name, value in headers if name == b"content-type"]
    return not kinds or any(b"json" in kind.lower() for kind in kinds)


def _too_large(limit: int) -> str:
    return f"The request's body is larger than {limit} bytes."


def _promised_bytes(headers: Sequence[tuple[bytes, bytes]]) -> int:
    for name, value in headers:
        if name == b"content-length":
            return int(value) if value.isdigit() and len(value) < 19 else 0
    return 0


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, what: str) -> None:
    request = Request(scope, receive)
    # What is left of the body would be read as the next request.
    response = problem.document(request, status, what, headers={"connection": "close"})
    await response(scope, receive, send)
