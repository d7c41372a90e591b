"""The web process's application: every room's pages, routes and operations, bound to the house."""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path

from prometheus_client import Histogram
from starlette.applications import Starlette

from pacsteward import __version__, features
from pacsteward.app import Place
from pacsteward.base import metrics
from pacsteward.base.errors import PacstewardError
from pacsteward.feature import Feature, House
from pacsteward.web.listening import Seat
from pacsteward.web.operations import ApiOperation
from pacsteward.web.protocol import PatientProtocol
from pacsteward.web.server import BoundRoute, Parts, build_server, build_short_way
from pacsteward.web.settings import WebSettings

REQUESTS = metrics.histogram(
    "http_request_seconds", "Time until the answer's end.", ["method", "kind", "status"]
)


def build_application(place: Place, house: House) -> Starlette:
    """Make the ASGI application that serves `house`."""
    return build_server(_parts(place, house))


def build_protocol(place: Place, house: House, at: Seat | None = None) -> type[PatientProtocol]:
    """Make the connection that answers some requests before that application is asked.

    Parameters
    ----------
    at
        Where it is counted; nowhere, when this process alone takes callers.
    """

    class Protocol(PatientProtocol):
        short_way = build_short_way(_parts(place, house))
        seat = at

    return Protocol


def _parts(place: Place, house: House) -> Parts:
    return Parts(
        access=house.access,
        audit=house.audit,
        settings=place.settings.of(WebSettings),
        routes=[route for room in place.rooms for route in _bound(room, house)],
        operations=[
            ApiOperation(
                one.method, one.path, one.endpoint, one.permission, one.summary, tag=room.name
            )
            for room in place.rooms
            for one in room.api
        ],
        template_folders=_template_folders(place),
        state={"house": house},
        is_ready=partial(_is_ready, house),
        watch=count_request,
        version=__version__,
    )


def count_request(method: str, kind: str, status: int, seconds: float) -> None:
    """Count one HTTP request."""
    _requests(method, kind, status // 100).observe(seconds)


# To find a figure by its labels takes longer than to count it. Methods may be anything.
@lru_cache(maxsize=256)
def _requests(method: str, kind: str, hundreds: int) -> Histogram:
    return REQUESTS.labels(method, kind, f"{hundreds}xx")


def _bound(room: Feature, house: House) -> list[BoundRoute]:
    pages = [
        BoundRoute(
            page.methods,
            page.path,
            partial(page.handler, house),
            page.permission,
            "page",
            title=page.title,
            menu=page.menu,
            is_start=page.is_start,
        )
        for page in room.pages
    ]
    routes = [
        BoundRoute(
            (route.method,),
            route.path,
            partial(route.handler, house),
            route.permission,
            at_once=partial(route.at_once, house) if route.at_once else None,
            takes_query=route.takes_query,
        )
        for route in room.routes
    ]
    return pages + routes


def _template_folders(place: Place) -> dict[str, Path]:
    root = Path(features.__path__[0])
    folders = {room.name: root / room.name / "templates" for room in place.rooms}
    return {name: folder for name, folder in folders.items() if folder.is_dir()}


def _is_ready(house: House) -> bool:
    """Say whether the database answers and a keeper has the archive open."""
    try:
        with house.database.read() as connection:
            connection.exec_driver_sql("SELECT 1")
        return house.archive.is_open()
    except PacstewardError:
        return False
