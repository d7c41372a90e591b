"""The processes of ``pacsteward serve``: keeper, doors, web (one or several) and jobs.

Each opens its own database and house after the fork, says when it is ready, and ends on SIGTERM
after finishing what was begun.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, cast

import uvicorn

from pacsteward.app import Place, build_house, close_house, open_place_database
from pacsteward.archive import ArchiveSettings
from pacsteward.base import metrics
from pacsteward.base.events import Dispatcher
from pacsteward.base.events.dispatch import Subscriber
from pacsteward.base.jobs.engine import JobEngine, Work
from pacsteward.dicom.dimse import (
    CALLING_NOT_RECOGNIZED,
    TEMPORARY_CONGESTION,
    Admitted,
    AssociationClosed,
    AssociationOpened,
    AssociationRejected,
    Caller,
    ConnectionDropped,
    DimseServer,
    DoorEvent,
    Limits,
    Quirk,
    Refused,
)
from pacsteward.dicom.settings import DicomSettings
from pacsteward.feature import House
from pacsteward.security import Actor, SecuritySettings, SignInFailed, TooManyTries
from pacsteward.security.admission import Refusal, decide
from pacsteward.security.failures_in_memory import failure_places
from pacsteward.security.sessions_in_memory import session_places
from pacsteward.security.settings import AdmissionSettings
from pacsteward.security.sign_in import SignInGuard, WaitingQueue, waiting_places
from pacsteward.security.user_identity import narrowed, user_of
from pacsteward.supervisor import Tell
from pacsteward.web.listening import Acceptor, Listener, Seat
from pacsteward.web.settings import WebSettings

logger = logging.getLogger(__name__)

ASSOCIATIONS = metrics.counter("associations", "Callers at the DIMSE door.", ["outcome"])
MESSAGES = metrics.counter("dimse_requests", "Requests of associations that are over.")
BYTES = metrics.counter("dimse_bytes", "Bytes of associations that are over.", ["direction"])

GRACE_S = 6.0
"""What is being served may go on so long after SIGTERM."""

KEEP_ALIVE_S = 75
"""How long an HTTP connection is kept on which nothing is asked. Longer than clients and proxies do
(httpx 5 s, nginx as a proxy 60 s): they close first then, and no request of theirs is on its way
just when we do."""

SWITCH_INTERVAL_S = 0.0005
"""How long a thread of the keeper may have the interpreter while another one waits for it. A sender
waits for three hand-overs between threads; at Python's 5 ms the indexer would hold up each."""

COLLECT_AFTER = 20_000
"""Objects that are made, and not freed, before the collector of cycles looks for some."""

JOBS_NICENESS = 5
"""How far jobs stand back (nice(2)): where there is too little of the processor they get a third of
what the doors get. Nobody waits for them as a sender or a reader does. Much less, and they would
not end in time on a machine that is busy."""

WRONG_IDENTITY = Refused(1, 1, 1, "User name and passcode do not fit together.")
"""PS3.7 D.3.3.7 leaves the reason to us; table 9-21 of PS3.8 has none nearer than "no reason"."""


def run_keeper(place: Place, tell_ready: Tell) -> None:
    """Keep the archive: take in what the other processes hand over."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    _run_loop(_keeper(place, tell_ready))


async def _keeper(place: Place, tell_ready: Tell) -> None:
    stopping = _stop_event()
    database = open_place_database(place)
    house = build_house(place, database, process_name="keeper", is_keeper=True)
    await house.archive.start()
    house.snapshots.start()
    try:
        _spare_the_collector()
        tell_ready()
        await stopping.wait()
    finally:
        await house.archive.stop()
        close_house(house)
        database.close()


def run_doors(place: Place, tell_ready: Tell, *, company: WebCompany | None = None) -> None:
    """Serve DIMSE.

    Parameters
    ----------
    company
        The web processes, where there are any: wrong passwords count there and here together.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    _run_loop(_doors(place, tell_ready, company))


async def _doors(place: Place, tell_ready: Tell, company: WebCompany | None) -> None:
    stopping = _stop_event()
    database = open_place_database(place)
    house = build_house(place, database, process_name="doors")
    if company is not None:
        company.count_together(house.access.guard, None)
    limits = _limits(place)
    await house.archive.open_for_arrivals(limits.receive_chunk_size_bytes)
    house.snapshots.start()
    try:
        settings = place.settings.of(DicomSettings)
        server = DimseServer(
            [service.bind(house) for room in place.rooms for service in room.dimse],
            partial(admit, house),
            limits,
            accepts_called=settings.answers_to,
            clock=house.clock,
            on_event=count_door_event,
            more_chunks=house.archive.begin_chunk,
        )
        await server.start(place.server.host, place.server.dimse_port)
        _spare_the_collector()
        tell_ready()
        await stopping.wait()
        await server.stop(GRACE_S)
    finally:
        await house.archive.close_for_arrivals()
        close_house(house)
        database.close()


def count_door_event(event: DoorEvent) -> None:
    """Count arrivals, departures and refusals at the DIMSE door."""
    match event:
        case AssociationOpened():
            ASSOCIATIONS.labels("accepted").inc()
        case AssociationRejected():
            ASSOCIATIONS.labels("rejected").inc()
        case ConnectionDropped():
            ASSOCIATIONS.labels("dropped").inc()
        case AssociationClosed():
            MESSAGES.inc(event.requests)
            BYTES.labels("received").inc(event.received_size_bytes)
            BYTES.labels("sent").inc(event.sent_size_bytes)


def admit(house: House, caller: Caller) -> Admitted | Refused:
    """Ask the book of peers whether `caller` may come in, and who its user is."""
    decision = decide(
        house.peers,
        calling_ae_title=caller.calling_ae_title,
        address=caller.address,
        admit_unknown=house.settings.of(AdmissionSettings).admit_unknown,
        called_ae_title=caller.called_ae_title,
        implementation=caller.implementation_version_name,
    )
    if isinstance(decision, Refusal):
        return replace(CALLING_NOT_RECOGNIZED, why=decision.why)
    try:
        user = _user_of(house, caller)
    except SignInFailed:
        return WRONG_IDENTITY
    except TooManyTries as error:
        return replace(TEMPORARY_CONGESTION, why=error.what)
    permissions = decision.permissions
    peer = decision.peer
    is_lenient = peer is not None and peer.is_lenient_in_roles
    return Admitted(
        permissions=permissions if user is None else narrowed(permissions, user),
        is_registered=decision.is_registered,
        # "For 1 and 2 the server response is empty", PS3.7 table D.3-15.
        user_identity_response=None if user is None else b"",
        quirks=frozenset({Quirk.GET_WITHOUT_ROLES} if is_lenient else ()),
    )


def _user_of(house: House, caller: Caller) -> Actor | None:
    identity = caller.user_identity
    if identity is None:
        return None
    return user_of(
        house.access,
        identity.kind,
        identity.primary,
        identity.secondary,
        ae_title=caller.calling_ae_title,
        address=caller.address,
    )


def _limits(place: Place) -> Limits:
    settings = place.settings.of(DicomSettings)
    return Limits(
        # The archive refuses what is larger than its limit, with a status and the reason, once it
        # is over. Only a sender that goes on and on is cut.
        instance_size_bytes_max=2 * place.settings.of(ArchiveSettings).largest_object_bytes,
        received_pdu_size_bytes_max=settings.pdu_bytes_max,
        associate_pdu_size_bytes_max=settings.associate_pdu_bytes_max,
        command_set_size_bytes_max=settings.command_set_bytes_max,
        identifier_size_bytes_max=settings.identifier_bytes_max,
        associations_max=settings.associations_max,
        reserved_for_registered=settings.reserved_for_registered,
        artim_s=settings.artim_s,
        data_set_idle_s=settings.data_set_idle_s,
        association_idle_s=settings.association_idle_s,
    )


@dataclass(frozen=True, slots=True)
class WebCompany:
    """What the processes that answer HTTP have in common; made before they are forked."""

    listener: Listener
    waiting: memoryview
    """Places of those who wait to sign in."""
    sessions: memoryview
    """Places of sessions that could not be written."""
    failures: memoryview
    """Places of wrong passwords that could not be written; the last ones are those of the doors,
    where they come as passcodes of DICOM callers."""
    size: int

    @classmethod
    def of(cls, place: Place) -> WebCompany:
        """Make it for as many processes as the settings want."""
        size = place.settings.of(WebSettings).process_count
        listener = Listener(place.server.host, place.server.http_port, size)
        failures = failure_places(size + 1)
        return cls(listener, waiting_places(size), session_places(size), failures, size)

    def count_together(self, guard: SignInGuard, number: int | None) -> None:
        """Count wrong passwords together, in a web process of this number or the doors (None)."""
        guard.count_together(self.failures, self.size if number is None else number)

    def note_end(self, name: str) -> None:
        """Take back the place of the process of this name, if it is a web process."""
        for number in range(self.size):
            if name == web_name(number):
                self.listener.vacate(number)

    def share(self, place: Place) -> Place:
        """Return `place` with the part that each has of what the settings allow for all."""
        security = place.settings.of(SecuritySettings)
        checks = max(1, security.password_checks_max // self.size)
        part = security.model_copy(update={"password_checks_max": checks})
        return replace(place, settings=place.settings.changed(part))


def web_name(number: int) -> str:
    """Return the name of a web process, counted from 0."""
    return f"web-{number + 1}" if number else "web"


def run_web(place: Place, tell_ready: Tell, *, company: WebCompany, number: int) -> None:
    """Serve the console, DICOMweb and the API.

    Parameters
    ----------
    company
        The web processes that were forked from the same one.
    number
        Which of them this is, from 0 on.
    """
    from pacsteward.application import build_application, build_protocol

    seat = company.listener.seat(number)
    place = company.share(place)
    database = open_place_database(place, shared_by=company.size)
    house = build_house(place, database, process_name=web_name(number))
    house.access.guard.wait_together(WaitingQueue(company.waiting, number))
    company.count_together(house.access.guard, number)
    house.access.share_memory(company.sessions, number)
    house.snapshots.start()
    application = build_application(place, house)
    try:
        server = WebServer(
            uvicorn.Config(
                application,
                loop="uvloop",
                http=build_protocol(place, house, seat),
                # Nothing here speaks it; "auto" would try to where a library for it is installed.
                ws="none",
                access_log=False,
                log_config=None,
                log_level="warning",
                lifespan="off",
                # Only our own setting decides whom to believe, see web/.
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=int(GRACE_S),
                h11_max_incomplete_event_size=64 * 1024,
            ),
            seat,
            tell_ready,
            application.state.prepare,
        )
        server.run()
    finally:
        close_house(house)
        database.close()


class WebServer(uvicorn.Server):
    """Uvicorn that takes its callers in turn with others, and says when it listens.

    Parameters
    ----------
    prepare
        Called in a thread then: does what some request needs, and nobody should have to wait for.
    """

    def __init__(
        self, config: uvicorn.Config, seat: Seat, tell_ready: Tell, prepare: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._seat = seat
        self._tell_ready = tell_ready
        self._prepare = prepare

    async def startup(self, sockets: Any = None) -> None:
        """Listen, then say so."""
        # Without sockets it does all but listen.
        await super().startup([])
        self.servers.append(cast(Any, Acceptor(self._seat, self._protocol)))
        self._tell_ready()
        threading.Thread(target=self._warm_up, name="warm-up", daemon=True).start()

    def _warm_up(self) -> None:
        """Import what is too slow to import before the first request, and what some request needs.

        Whoever asked first for metadata, a picture or the JSON API would wait for it, up to a
        second; and so would all others, since it is the interpreter that is busy.
        """
        for name in _NEEDED_SOON:
            importlib.import_module(name)
        self._prepare()

    async def shutdown(self, sockets: Any = None) -> None:
        """End, and let whoever runs this tidy up: uvicorn would end the process by the signal."""
        await super().shutdown(sockets)
        self._captured_signals.clear()

    def _protocol(self) -> asyncio.Protocol:
        make: Any = self.config.http_protocol_class
        made: asyncio.Protocol = make(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made


_NEEDED_SOON: Final = (
    *("numpy", "pacsteward.dicom.pydicom_parts"),
    *("PIL.JpegImagePlugin", "PIL.PngImagePlugin"),
)


def run_jobs(place: Place, tell_ready: Tell) -> None:
    """Run jobs, and tell facts to whoever subscribed to them, behind those who send and read."""
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    database = open_place_database(place)
    house = build_house(place, database, process_name="jobs")
    house.snapshots.start()
    try:
        engine = JobEngine(
            database,
            [Work(job.kind, partial(job.run, house)) for room in place.rooms for job in room.jobs],
            house.clock,
        )
        dispatcher = Dispatcher(
            database,
            [
                Subscriber(one.name, one.facts, partial(one.handler, house))
                for room in place.rooms
                for one in room.listens
            ],
            clock=house.clock,
        )
        engine.start()
        dispatcher.start()
        tell_ready()
        # Only now: the start of all waits for this one.
        _stand_back(JOBS_NICENESS)
        stopping.wait()
        dispatcher.stop(GRACE_S / 2)
        engine.stop(GRACE_S / 2)
    finally:
        close_house(house)
        database.close()


def _stand_back(niceness: int) -> None:
    """Add to the niceness of each thread; those that they make take it from them."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    done: set[str] = set()
    # Again for those that one of them has made before it was its turn.
    while left := set(os.listdir("/proc/self/task")) - done:
        for thread in map(int, left):
            with suppress(ProcessLookupError):
                if os.getpriority(os.PRIO_PROCESS, thread) == before:
                    os.setpriority(os.PRIO_PROCESS, thread, before + niceness)
        done |= left


def _run_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run `main` on uvloop where it is installed."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


def _spare_the_collector() -> None:
    """Have the collector of cycles look at new objects only, and seldom.

    What was made by now stays until the end. What an instance leaves behind has no cycles: looking
    for some after every seven hundred objects took a twentieth of the time of a load.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)


def _stop_event() -> asyncio.Event:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    return stopping
