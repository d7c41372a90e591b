"""The form that a room fills in, and what a room may hold.

A room is a folder in ``features/``. Its ``feature.py`` holds one value, `FEATURE`, which lists all
that the room gives to the house; nothing registers itself on import and there is no central list.
``app.py`` finds the values, binds every handler to the `House`, and hands them to the doors.

Handlers are plain functions whose first argument is the `House`: what a room may touch is what
the house hands it.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import Annotated, Any, Literal

from starlette.requests import Request
from starlette.responses import Response

from pacsteward.archive import Archive
from pacsteward.base.checks import Check
from pacsteward.base.clock import Clock
from pacsteward.base.db import Database
from pacsteward.base.events import Fact, FactLog
from pacsteward.base.jobs import JobKind, JobQueue
from pacsteward.base.metrics import Snapshots
from pacsteward.base.secrets import Secrets
from pacsteward.base.settings import Section, Settings
from pacsteward.dicom.dimse import service as dimse
from pacsteward.security import Access, AuditBook, PeerBook
from pacsteward.web.operations import Provided
from pacsteward.web.short_way import WholeAnswer


@dataclass(frozen=True, slots=True)
class House:
    """Everything a room may hold, put together once by ``app.py``."""

    settings: Settings
    database: Database
    clock: Clock
    facts: FactLog
    jobs: JobQueue
    archive: Archive
    peers: PeerBook
    access: Access
    audit: AuditBook
    secrets: Secrets
    snapshots: Snapshots
    """Figures of all processes, for monitoring."""
    rooms: tuple[Feature, ...]
    """What the house consists of, for overviews."""


@dataclass(frozen=True, slots=True)
class DimseService:
    """A DIMSE service of a room; `dimse.Service` with the house as first argument of handlers."""

    name: str
    commands: frozenset[dimse.CommandField]
    accepts: Callable[[House, str], bool]
    permission: str
    transfer_syntaxes: tuple[str, ...] | None = None
    respond: Callable[[House, dimse.Request, bytes | None], AsyncIterator[dimse.Answers]] | None = (
        None
    )
    receive: Callable[[House, dimse.Request], dimse.DataSink] | None = None
    extended: Callable[[House, str, bytes], bytes | None] | None = None
    allows_scp_role: bool = False

    def bind(self, house: House) -> dimse.Service:
        """Give the service that the DIMSE door runs."""
        return dimse.Service(
            name=self.name,
            commands=self.commands,
            accepts=partial(self.accepts, house),
            permission=self.permission,
            transfer_syntaxes=self.transfer_syntaxes,
            respond=partial(self.respond, house) if self.respond else None,
            receive=partial(self.receive, house) if self.receive else None,
            allows_scp_role=self.allows_scp_role,
            **({"extended": partial(self.extended, house)} if self.extended else {}),
        )


Handler = Callable[[House, Request], Response | Awaitable[Response]]
"""A plain function runs in a thread and may block; a coroutine runs on the loop and may not."""


@dataclass(frozen=True, slots=True)
class Route:
    """An HTTP route of a standard: DICOMweb, WADO-URI, the viewer's files, metrics.

    A request without credentials is answered 401. `permission` None makes it public: those are
    on a written list that a test compares.

    Parameters
    ----------
    at_once
        Gives the same answer on the event loop, or raises `WouldWait`; see `web/short_way.py`.
    takes_query
        Whether it is asked for requests with a query, too.
    """

    method: str
    path: str
    handler: Handler
    permission: str | None
    at_once: Callable[[House, Request], WholeAnswer] | None = None
    takes_query: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the console. An anonymous visitor is sent to the sign-in page.

    Parameters
    ----------
    path
        Starlette path, e.g. ``/studies/{study_instance_uid}``.
    title
        As it stands in the browser's tab and, for a page with `menu`, in the menu.
    menu
        Place in the menu, counted from the top; None keeps it out.
    is_start
        Where a role whose work it is begins. Of several that one may open, the first in the menu.
    methods
        ``("GET",)`` shows; a page that also changes something adds ``"POST"``, and the door
        checks its form token.
    """

    path: str
    handler: Handler
    permission: str
    title: str
    menu: int | None = None
    methods: tuple[str, ...] = ("GET",)
    is_start: bool = False


@dataclass(frozen=True, slots=True)
class ApiRoute:
    """An operation of our JSON API, below ``/api/v1``; a FastAPI endpoint.

    The endpoint takes ``house: CurrentHouse`` and ``actor: CurrentActor`` where it needs them.
    """

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    endpoint: Callable[..., Any]
    permission: str
    summary: str


async def _house_of(request: Request) -> House:
    house: House = request.app.state.house
    return house


async def _actor_of(request: Request) -> Any:
    return request.state.actor


CurrentHouse = Annotated[House, Provided(_house_of)]
CurrentActor = Annotated[Any, Provided(_actor_of)]


@dataclass(frozen=True, slots=True)
class Subscription:
    """On these facts, do that; at least once, in order, one cursor for each name."""

    name: str
    facts: tuple[type[Fact], ...]
    handler: Callable[[House, Fact], None]


@dataclass(frozen=True, slots=True)
class Job:
    """A kind of work with the function that does it."""

    kind: JobKind
    run: Callable[..., Any]
    """``run(house, **arguments)``; arguments and result are JSON values. Runs at least once."""


@dataclass(frozen=True, slots=True)
class Command:
    """``pacsteward <room> <verb>``: a function of the house that returns what is to be printed.

    Parameters
    ----------
    run
        Its first parameter is the `House`; the others become arguments and options with their
        numpydoc prose. It returns text, a dataclass, or a list of dataclasses; ``--json`` prints
        the same as JSON.
    makes_index
        Whether it may be run where the index is missing, since it makes a new one.
    """

    verb: str
    run: Callable[..., Any]
    makes_index: bool = False


@dataclass(frozen=True, slots=True)
class Figure:
    """A number or short list that overviews show, read-only, with the list behind it."""

    name: str
    title: str
    read: Callable[[House], Any]
    link: str


@dataclass(frozen=True, slots=True)
class HouseCheck:
    """A question that the health page and monitoring ask."""

    check: Check
    ask: Callable[[House], Any]


@dataclass(frozen=True, slots=True)
class Feature:
    """All that one room gives to the house."""

    name: str
    title: str
    summary: str
    dimse: tuple[DimseService, ...] = ()
    routes: tuple[Route, ...] = ()
    api: tuple[ApiRoute, ...] = ()
    pages: tuple[Page, ...] = ()
    announces: tuple[type[Fact], ...] = ()
    listens: tuple[Subscription, ...] = ()
    jobs: tuple[Job, ...] = ()
    commands: tuple[Command, ...] = ()
    settings: tuple[type[Section], ...] = ()
    checks: tuple[HouseCheck, ...] = ()
    figures: tuple[Figure, ...] = field(default=())


def find_rooms(package: ModuleType) -> list[Feature]:
    """Collect the `FEATURE` of every folder below `package`, by name.

    Raises
    ------
    TypeError
        A room's ``feature.py`` holds no `Feature` called ``FEATURE``.
    """
    rooms = []
    for found in pkgutil.iter_modules(package.__path__):
        if not found.ispkg:
            continue
        module = importlib.import_module(f"{package.__name__}.{found.name}.feature")
        feature = getattr(module, "FEATURE", None)
        if not isinstance(feature, Feature):
            raise TypeError(f"{module.__name__} holds no FEATURE.")
        rooms.append(feature)
    return sorted(rooms, key=lambda room: room.name)
