"""The caretaker: puts the house together, starts and stops it. The only place parts are joined.

A `Place` is an archive before it is opened: settings, rooms, folder. `opened_house` gives its
`House` to a command; the processes of ``pacsteward serve`` are in ``processes.py``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field

from pacsteward import features
from pacsteward.archive import Archive, ArchiveSettings, holds_images, refuse_missing_index
from pacsteward.base.apart import apart
from pacsteward.base.clock import SystemClock
from pacsteward.base.db import CONNECTIONS_MAX, Database, open_database
from pacsteward.base.db.migrate import migrate
from pacsteward.base.errors import Broken, Forbidden, Invalid, NotFound
from pacsteward.base.events import FactLog
from pacsteward.base.jobs import JobQueue
from pacsteward.base.metrics import Snapshots
from pacsteward.base.secrets import Secrets
from pacsteward.base.settings import Section, Settings, load
from pacsteward.dicom.settings import DicomSettings
from pacsteward.feature import Feature, House, find_rooms
from pacsteward.security import (
    Access,
    AdmissionSettings,
    AuditBook,
    PeerBook,
    SecuritySettings,
)
from pacsteward.security.tables import PERSON
from pacsteward.web.settings import WebSettings

DEFAULT_DATA = Path("pacsteward-data")


class ServerSettings(Section):
    """Where the archive keeps its things and where it listens."""

    data: Path = Field(DEFAULT_DATA, description="Folder that holds everything. A path.")
    host: str = Field(
        "127.0.0.1",
        description="Address to listen on; by default callers on this machine only. All of IPv4 "
        "is 0.0.0.0, all of IPv6 is ::, and both are the empty address. An IP address or name.",
    )
    dimse_port: int = Field(11112, ge=0, le=65535, description="Port of DICOM DIMSE. A port.")
    http_port: int = Field(8080, ge=0, le=65535, description="Port of HTTP. A port.")
    mllp_port: int = Field(
        2575,
        ge=0,
        le=65535,
        description="Without effect: this version does not speak HL7, so nothing listens there. "
        "A port.",
    )
    database_url: str = Field(
        "",
        description="PostgreSQL to use, as postgresql://user:password@host/name; empty takes the "
        "embedded database in the data folder. A URL.",
    )
    log_level: str = Field(
        "info", description="How much is logged: debug, info, warning or error. A word."
    )


FLOOR_SETTINGS: tuple[type[Section], ...] = (
    ServerSettings,
    DicomSettings,
    AdmissionSettings,
    ArchiveSettings,
    SecuritySettings,
    WebSettings,
)


def find_all_rooms() -> list[Feature]:
    """Collect every room below ``features/``."""
    return find_rooms(features)


@dataclass(frozen=True, slots=True)
class Place:
    """One archive: its settings, its rooms and its folder, before anything is opened."""

    settings: Settings
    rooms: tuple[Feature, ...]

    @property
    def server(self) -> ServerSettings:
        """Return the settings that belong to no room."""
        return self.settings.of(ServerSettings)

    @property
    def data(self) -> Path:
        """Return the folder that holds everything."""
        return self.server.data

    @property
    def holds_archive(self) -> bool:
        """Whether an archive was made here: its index, its format or its log is there."""
        return any((self.data / name).exists() for name in ("index.db", "format.json", "landing"))

    @property
    def has_lost_index(self) -> bool:
        """Whether there is an archive whose embedded index is gone."""
        is_embedded = not self.server.database_url
        return is_embedded and self.holds_archive and not (self.data / "index.db").exists()

    @classmethod
    def found(
        cls,
        data: Path | None = None,
        *,
        config: Path | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> Place:
        """Read the settings of the archive in `data`.

        Parameters
        ----------
        data
            The data folder; None takes it from the environment, the settings file or the default.
        config
            Settings file; None takes ``pacsteward.toml`` of the current folder, else of `data`.

        Raises
        ------
        Invalid
            The settings have faults, or `config` is not there.
        Forbidden
            This account may not look into the data folder.
        """
        if config is not None and not config.is_file():
            # Starting with the defaults instead would open another, empty archive.
            raise Invalid(
                f"The settings file {config} is not there.",
                remedy="Correct the path after --config, or leave it out.",
            )
        rooms = tuple(find_all_rooms())
        sections = [*FLOOR_SETTINGS, *(section for room in rooms for section in room.settings)]
        folder = data or Path(os.environ.get("PACSTEWARD_DATA", DEFAULT_DATA))
        file = config or _settings_file(folder)
        given = {"data": data, **(overrides or {})}
        return cls(load(sections, file=file, overrides=given), rooms)


def _settings_file(folder: Path) -> Path | None:
    """Return the settings file of the current folder, else of the data folder; None without."""
    here, of_data = Path("pacsteward.toml"), folder / "pacsteward.toml"
    # sudo leaves the caller's folder the current one, and the other account may not enter it.
    with suppress(PermissionError):
        if here.is_file():
            return here
    try:
        return of_data if of_data.is_file() else None
    except PermissionError as error:
        raise Forbidden(
            f"The data folder {folder} cannot be looked into.",
            why=f"The system says: {error.strerror}.",
            remedy="Run the command under the account that runs the archive: "
            "`sudo -u ACCOUNT pacsteward …`.",
        ) from error


def refuse_lost_index(place: Place) -> None:
    """Return unless images are stored here, and their index is gone or an empty one.

    Serving would make a new one: with no people, no audit book, a password that anybody may read
    in the journal, and under the name of the one that has to be put back.

    Raises
    ------
    Broken
        It is so.
    Conflict
        The index was being made anew, and that was interrupted.
    """
    if not place.server.database_url and not (place.data / "index.db").exists():
        if holds_images(place.data):
            raise _index_is_missing(place)
        return
    database = open_place_database(place)
    try:
        _refuse_empty_index(place, database)
    finally:
        database.close()


def _refuse_empty_index(place: Place, database: Database) -> None:
    # One that knows people is that of the first start: it may have crashed right after the first
    # images had landed.
    if not database.holds_any(PERSON):
        refuse_missing_index(place.data, database)


def first_steps(place: Place) -> str | None:
    """Make the data folder ready; return the administrator's password if it was just made.

    Raises
    ------
    Invalid
        The folder cannot be used.
    """
    make_folder(place.data)
    if place.server.database_url or (place.data / "index.db").exists():
        return _ready_database(place, is_new=False)
    # Making tables takes 20 MB, which every process that comes after would inherit.
    return apart(partial(_ready_database, place, is_new=True))


def _ready_database(place: Place, *, is_new: bool) -> str | None:
    database = open_place_database(place)
    try:
        clock = SystemClock()
        audit = AuditBook(database, clock)
        access = Access(database, clock, audit, place.settings.of(SecuritySettings))
        with ThreadPoolExecutor(1) as beside:
            # A hash takes as long as all tables do, and keeps no interpreter busy.
            given = beside.submit(access.give_password) if is_new else None
            migrate(database, place.data)
            return access.ensure_administrator(given.result if given else access.give_password)
    finally:
        database.close()


def make_folder(data: Path) -> None:
    """Make the data folder; what is in it already and is not ours stays untouched.

    Everything that this process makes from now on is for its own account alone: index, images and
    logs hold patients' data.

    Raises
    ------
    Invalid
        The folder cannot be made, or not be written to.
    """
    os.umask(0o077)
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        probe = data / f".probe-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise Invalid(
            f"The data folder {data} cannot be used.",
            why=f"The system says: {error.strerror or error}.",
            remedy="Choose a folder that this account may write to: --data FOLDER.",
        ) from error


def open_place_database(place: Place, *, shared_by: int = 1) -> Database:
    """Open the index of `place`: its PostgreSQL where one is set, else the embedded one.

    Parameters
    ----------
    shared_by
        So many processes share the connections that one alone may have.
    """
    return open_database(
        place.server.database_url or place.data / "index.db",
        connections_max=CONNECTIONS_MAX // shared_by,
    )


@contextmanager
def opened_house(place: Place, *, may_make_index: bool = False) -> Iterator[House]:
    """Give the house over `place` for a command or a process that only reads the archive itself.

    What changes the archive is handed to the keeper, when one runs.

    Parameters
    ----------
    may_make_index
        Whether an embedded index that is gone is replaced by an empty one.

    Raises
    ------
    NotFound
        No archive is there. To make one would turn a mistyped path into an archive in which
        nothing is amiss.
    Broken
        The index is gone, and none may be made. With an empty one in its place every image would
        seem to be gone, too.
    """
    if not place.holds_archive:
        raise NotFound(
            f"There is no archive in {place.data}.",
            why="Neither index nor log is in that folder.",
            remedy="Name the right one with --data or PACSTEWARD_DATA; "
            "`pacsteward serve` makes a new archive.",
        )
    if place.has_lost_index and not may_make_index:
        raise _index_is_missing(place)
    make_folder(place.data)
    database = open_place_database(place)
    try:
        if not may_make_index:
            _refuse_empty_index(place, database)
        migrate(database, place.data)
        house = build_house(place, database)
        try:
            yield house
        finally:
            close_house(house)
    finally:
        database.close()


def _index_is_missing(place: Place) -> Broken:
    return Broken(
        f"The index of the archive in {place.data} is missing.",
        why="There is no index.db in that folder; the images lie elsewhere in it.",
        remedy="Put index.db of the backup in its place. Without a backup run `pacsteward "
        "archive rebuild`, which makes it anew from the images: people, peers and audit book "
        "begin anew then.",
    )


def close_house(house: House) -> None:
    """Write down what waits to be, and let go."""
    house.snapshots.stop()
    house.audit.close()
    house.archive.close()


def build_house(
    place: Place, database: Database, *, process_name: str = "command", is_keeper: bool = False
) -> House:
    """Put the parts together.

    Parameters
    ----------
    process_name
        Under which this process's figures are shown.
    is_keeper
        Whether this is the one process that takes instances in.
    """
    clock = SystemClock()
    facts = FactLog(clock)
    audit = AuditBook(database, clock)
    birth = Archive.as_keeper if is_keeper else Archive.as_reader
    return House(
        settings=place.settings,
        database=database,
        clock=clock,
        facts=facts,
        jobs=JobQueue(
            database, clock, kinds=[job.kind for room in place.rooms for job in room.jobs]
        ),
        archive=birth(
            place.data, database, place.settings.of(ArchiveSettings), clock, facts, audit
        ),
        peers=PeerBook(database, clock, audit),
        access=Access(database, clock, audit, place.settings.of(SecuritySettings)),
        audit=audit,
        secrets=Secrets(place.data / "secrets"),
        snapshots=Snapshots(place.data / "run", process_name),
        rooms=place.rooms,
    )
