"""The HTTP door: one ASGI application for console, DICOMweb, API and viewer.

In come values: routes that are bound to the house already, operations of the API, the menu. Out
comes the application. What a request passes on its way in, from outside:

1. `SafeHeaders` completes the answer's headers;
2. `Journal` names and times it, and catches what nobody else did;
3. `Limits` counts headers and bytes;
4. `Origin` settles client, scheme and host, also behind a proxy;
5. CORS, where the settings name origins;
6. `Authentication` finds out who it is;
7. the route's guard asks for the permission.

Every route needs credentials; `PUBLIC_PATHS` is the written list of exceptions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pacsteward.base.errors import PacstewardError
from pacsteward.security import Access, AuditBook
from pacsteward.web import operations, problem
from pacsteward.web.authentication import Authentication
from pacsteward.web.directory import Directory
from pacsteward.web.entrance import (
    ALIVE_PATH,
    READY_PATH,
    SIGN_IN_PATH,
    SIGN_OUT_PATH,
    Entrance,
    Readiness,
)
from pacsteward.web.guard import Guard, Handler, Kind
from pacsteward.web.headers import SafeHeaders
from pacsteward.web.journal import Journal, Watch
from pacsteward.web.limits import Limits
from pacsteward.web.operations import ApiOperation, Interface
from pacsteward.web.origin import Origin, OriginFinder
from pacsteward.web.page import STATIC, MenuItem, Pages
from pacsteward.web.settings import WebSettings
from pacsteward.web.short_way import AtOnce, ShortRoute, ShortWay

STATIC_PATH = "/static/"

PUBLIC_PATHS = (SIGN_IN_PATH, SIGN_OUT_PATH, ALIVE_PATH, READY_PATH, STATIC_PATH)
"""All that can be reached without credentials; what begins with the last one, too."""

_CORS_HEADERS = ("Authorization", "Accept", "Content-Type", "Range", "If-None-Match", "If-Range")
_CORS_EXPOSED = (
    *("Content-Range", "ETag", "Warning", "Content-Location", "Location", "Retry-After"),
    *("Content-Disposition", "X-Request-ID", "WWW-Authenticate"),
)
_CORS_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True, slots=True)
class BoundRoute:
    """A page or a route, bound to the house.

    Parameters
    ----------
    kind
        "page" for people: without credentials it sends to sign-in, and its forms are checked;
        "route" for programs: without credentials it answers 401.
    permission
        None makes it public; only those in `PUBLIC_PATHS` may be.
    title, menu
        Of a page that stands in the menu.
    is_start
        Whether those whose work it is begin there.
    at_once, takes_query
        Answers the same, where that can be done without waiting; see `short_way.py`.
    """

    methods: tuple[str, ...]
    path: str
    handler: Handler
    permission: str | None
    kind: Literal["page", "route"] = "route"
    title: str = ""
    menu: int | None = None
    is_start: bool = False
    at_once: AtOnce | None = None
    takes_query: bool = False


@dataclass(frozen=True, slots=True)
class Parts:
    """All that the application is made of."""

    access: Access
    audit: AuditBook
    settings: WebSettings
    routes: Sequence[BoundRoute] = ()
    operations: Sequence[ApiOperation] = ()
    template_folders: Mapping[str, Path] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)
    """What endpoints of the API find in ``request.app.state``, e.g. the house."""
    is_ready: Readiness = lambda: True
    watch: Watch | None = None
    version: str = ""


def build_short_way(parts: Parts) -> ShortWay:
    """Make what answers some requests before the application is asked."""
    settings = parts.settings
    return ShortWay(
        [
            ShortRoute(route.path, route.at_once, route.permission, route.takes_query)
            for route in parts.routes
            if route.at_once is not None and route.permission is not None
        ],
        access=parts.access,
        origin=OriginFinder(
            public_url=settings.public_url,
            trusted_proxies=settings.trusted_proxies,
            proxy_headers=settings.proxy_headers,
        ),
        headers_max=settings.headers_max,
        header_block_max_bytes=settings.header_block_bytes_max,
        watch=parts.watch,
    )


def build_server(parts: Parts) -> Starlette:
    """Make the application; ``state.prepare`` makes what it needs later, and is for a thread.

    Raises
    ------
    ValueError
        A route is public and not on the written list.
    """
    guard = Guard(parts.audit)
    interface = Interface(parts.operations, guard, version=parts.version, state=parts.state)
    own = _own_routes(parts, interface.describe)
    bound = [*own, *parts.routes]
    if not any(route.path == "/" for route in parts.routes):
        bound.append(BoundRoute(("GET",), "/", _first_page(parts.routes), "self", "page"))
    for route in parts.routes:
        if route.permission is None and not route.path.startswith(PUBLIC_PATHS):
            raise ValueError(f"{route.path} is public and not on the list of public paths.")
    pages = Pages(parts.template_folders, _menu(parts.routes), version=parts.version)
    machine_paths = {_first_segment(route.path) for route in bound if route.kind == "route"}
    answer_http = _HttpErrors(guard, machine_paths | {_first_segment(operations.PREFIX)})
    routes: list[BaseRoute] = [
        Mount(STATIC_PATH.rstrip("/"), _Static(directory=STATIC)),
        Directory(_route(guard, route) for route in bound),
        Mount(operations.PREFIX, interface),
    ]
    application = Starlette(
        routes=routes,
        middleware=list(_middleware(parts, pages)),
        exception_handlers={HTTPException: answer_http, PacstewardError: _answer_error},
    )
    application.router.redirect_slashes = False
    application.state.prepare = interface.prepare
    for name, value in parts.state.items():
        setattr(application.state, name, value)
    return application


def _own_routes(parts: Parts, describe: Handler) -> list[BoundRoute]:
    entrance = Entrance(parts.access, parts.is_ready)
    return [
        BoundRoute(("GET",), SIGN_IN_PATH, entrance.show_sign_in, None, "page"),
        BoundRoute(("POST",), SIGN_IN_PATH, entrance.sign_in, None, "page"),
        BoundRoute(("GET", "POST"), SIGN_OUT_PATH, entrance.sign_out, None, "page"),
        BoundRoute(("GET",), ALIVE_PATH, entrance.alive, None),
        BoundRoute(("GET",), READY_PATH, entrance.ready, None),
        BoundRoute(("GET",), operations.DESCRIPTION_PATH, describe, "self"),
    ]


def _route(guard: Guard, route: BoundRoute) -> Route:
    kind: Kind = route.kind
    endpoint = guard.protect(route.handler, route.permission, kind)
    return Route(route.path, endpoint, methods=list(route.methods))


def _middleware(parts: Parts, pages: Pages) -> Iterable[Middleware]:
    settings = parts.settings
    yield Middleware(_WithPages, pages=pages)
    yield Middleware(SafeHeaders)
    yield Middleware(Journal, watch=parts.watch)
    yield Middleware(
        Limits,
        body_max_bytes=settings.body_max_bytes,
        stall_s=settings.request_stall_s,
        headers_max=settings.headers_max,
        header_block_max_bytes=settings.header_block_bytes_max,
        json_depth_max=settings.json_depth_max,
    )
    yield Middleware(
        Origin,
        public_url=settings.public_url,
        trusted_proxies=settings.trusted_proxies,
        proxy_headers=settings.proxy_headers,
    )
    if settings.cors_origins:
        # Never with cookies: a page elsewhere must bring a token of its own (C63).
        yield Middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=list(_CORS_METHODS),
            allow_headers=list(_CORS_HEADERS),
            expose_headers=list(_CORS_EXPOSED),
            max_age=3600,
        )
    yield Middleware(Authentication, access=parts.access, public=(STATIC_PATH,))


class _WithPages:
    """Hands templates and menu to whatever renders, also to layers outside of the routes."""

    def __init__(self, app: ASGIApp, pages: Pages) -> None:
        self._app = app
        self._pages = pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["pacsteward.pages"] = self._pages
        await self._app(scope, receive, send)


class _Static(StaticFiles):
    """Our own style, scripts and pictures; addresses with a mark of the content never change."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["pacsteward.kind"] = "asset"
        is_marked = b"v=" in scope.get("query_string", b"")
        keep = b"public, max-age=31536000, immutable" if is_marked else b"no-cache"

        async def cached(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 400:
                message["headers"] = [*message["headers"], (b"cache-control", keep)]
            await send(message)

        await super().__call__(scope, receive, cached)


class _HttpErrors:
    """Answers what no route takes: 404 and 405; nobody learns from it what strangers may not see.

    A browser's question before a request to another site (CORS) has no credentials, but it does not
    come here: where the settings allow such requests, it was answered on its way in.
    """

    def __init__(self, guard: Guard, machine_paths: set[str]) -> None:
        self._guard = guard
        self._machine_paths = machine_paths

    async def __call__(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        state, path = request.state, request.scope["path"]
        if state.actor is None and not path.startswith(PUBLIC_PATHS):
            if _first_segment(path) in self._machine_paths:
                return problem.unauthorized(request, is_wrong=state.is_wrong)
            if error.status_code == 405:
                # As for a method that the page takes.
                request.scope["pacsteward.kind"] = "page"
                return await self._guard.ask_who(request, "page")
        return problem.answer_http(request, error)


def _answer_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, PacstewardError)
    return problem.answer(request, error)


def _menu(routes: Iterable[BoundRoute]) -> list[MenuItem]:
    return [
        MenuItem(route.title, route.path, route.permission, route.menu)
        for route in routes
        if route.menu is not None and route.permission is not None
    ]


def _first_page(routes: Sequence[BoundRoute]) -> Handler:
    """Make a start page of an archive whose rooms have none: it sends to where one's work is.

    Who may open none of the pages that one starts with begins at the menu's first entry.
    """
    begins = {route.path for route in routes if route.is_start}
    menu = sorted(_menu(routes), key=lambda item: (item.path not in begins, item.place, item.title))

    def handle(request: Request) -> Response:
        for item in menu:
            if request.state.actor.may(item.permission):
                return RedirectResponse(item.path, 302)
        return problem.answer_http(request, HTTPException(404))

    return handle


def _first_segment(path: str) -> str:
    return path.lstrip("/").partition("/")[0]
