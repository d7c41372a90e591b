"""What the JSON API is made of, and the API itself, which is made after the start.

FastAPI takes an eighth of a start to import. So the web process makes the API in a thread when it
answers already; otherwise whoever asked first, a stranger too, would hold it up for a quarter of a
second. Who asks even earlier waits until it is made.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from pacsteward.web.guard import Guard
from pacsteward.web.threads import in_thread

if TYPE_CHECKING:
    from fastapi import FastAPI

PREFIX = "/api/v1"
DESCRIPTION_PATH = "/api/openapi.json"


@dataclass(frozen=True, slots=True)
class ApiOperation:
    """An operation; see `feature.ApiRoute`.

    Parameters
    ----------
    tag
        Name of the room, by which the description groups its operations.
    """

    method: str
    path: str
    endpoint: Callable[..., Any]
    permission: str
    summary: str
    tag: str = ""
    status_code: int | None = None


@dataclass(frozen=True, slots=True)
class Provided:
    """Marks a parameter of an endpoint, in `Annotated`, that is not taken from the request's body.

    Parameters
    ----------
    by
        Coroutine function of the request that gives it.
    """

    by: Callable[[Request], Any]


class Interface:
    """The ASGI application that is mounted at `PREFIX`."""

    def __init__(
        self,
        operations: Iterable[ApiOperation],
        guard: Guard,
        *,
        version: str,
        state: Mapping[str, Any],
    ) -> None:
        self._operations = tuple(operations)
        self._guard = guard
        self._version = version
        self._state = state
        self._lock = threading.Lock()
        self._api: FastAPI | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        api = self._api
        if api is None:
            api = await in_thread(self._made)
        await api(scope, receive, send)

    def prepare(self) -> None:
        """Make the API now; blocks."""
        self._made()

    def describe(self, _request: Request) -> Response:
        """Give the OpenAPI description."""
        from pacsteward.web.api import describe

        return JSONResponse(describe(self._made()))

    def _made(self) -> FastAPI:
        from pacsteward.web.api import build_api

        with self._lock:
            if self._api is None:
                self._api = build_api(
                    self._operations, self._guard, version=self._version, state=self._state
                )
            return self._api
