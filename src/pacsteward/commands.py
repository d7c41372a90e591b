"""Commands that belong to no room: running the archive, its settings, its bytes, the house."""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from pacsteward.app import Place, find_all_rooms, opened_house
from pacsteward.archive import ConflictingContent, Selection, SetAside, VerifyReport
from pacsteward.base.errors import Invalid, NotFound, PacstewardError
from pacsteward.base.settings import Explained
from pacsteward.feature import Command, House
from pacsteward.output import complain
from pacsteward.security import at_command_line
from pacsteward.serve import Kind, serve_all


def serve(
    *,
    data: Annotated[Path | None, Parameter(help="Folder that holds everything.")] = None,
    host: str | None = None,
    dimse_port: int | None = None,
    http_port: int | None = None,
    mllp_port: Annotated[int | None, Parameter(show=False)] = None,
    config: Path | None = None,
    only: Literal["keeper", "doors", "web", "jobs"] | None = None,
) -> int:
    """Run the archive until it is told to stop.

    Parameters
    ----------
    host
        Address to listen on.
    dimse_port
        Port of DICOM DIMSE.
    http_port
        Port of the console, DICOMweb and the API.
    mllp_port
        Without effect: this version does not speak HL7.
    config
        Settings file; by default pacsteward.toml here, else the one in the data folder.
    only
        Run one kind of process, for a process manager or a cluster.
    """
    overrides = {
        "host": host,
        "dimse_port": dimse_port,
        "http_port": http_port,
        "mllp_port": mllp_port,
    }
    try:
        place = Place.found(data, config=config, overrides=overrides)
        return serve_all(place, only=Kind(only) if only else None)
    except PacstewardError as error:
        return complain(error)


def repl(*, data: Path | None = None, write: bool = False) -> int:
    """Open a Python prompt with the house in it.

    Parameters
    ----------
    data
        The archive's data folder.
    write
        Let the database be changed; without it every transaction is rolled back.
    """
    import code

    with opened_house(Place.found(data)) as house:
        names: dict[str, Any] = {
            "house": house,
            "archive": house.archive,
            "jobs": house.jobs,
            "db": house.database,
            "peers": house.peers,
        }
        if not write:
            house.database.forbid_writing("This prompt is read-only; start it with --write.")
        banner = "house, archive, jobs, db, peers" + ("" if write else " (read-only)")
        code.interact(banner=banner, local=names, exitmsg="")
    return 0


@dataclass(frozen=True, slots=True)
class Piece:
    """One line of the printed house."""

    room: str
    kind: str
    name: str
    permission: str
    place: str


def show_house() -> list[Piece]:
    """Print every service, route, page, operation, job, listener and command, with its place."""
    pieces = []
    for room in find_all_rooms():
        for service in room.dimse:
            words = ", ".join(sorted(command.name for command in service.commands))
            handler = service.respond or service.receive
            pieces.append(_piece(room.name, "dimse", words, service.permission, handler))
        for route in room.routes:
            words = f"{route.method} {route.path}"
            pieces.append(
                _piece(room.name, "route", words, route.permission or "public", route.handler)
            )
        for page in room.pages:
            words = f"{'/'.join(page.methods)} {page.path}"
            pieces.append(_piece(room.name, "page", words, page.permission, page.handler))
        for operation in room.api:
            words = f"{operation.method} /api/v1{operation.path}"
            pieces.append(_piece(room.name, "api", words, operation.permission, operation.endpoint))
        for job in room.jobs:
            pieces.append(_piece(room.name, "job", job.kind.name, "-", job.run))
        for listening in room.listens:
            pieces.append(_piece(room.name, "listens", listening.name, "-", listening.handler))
        for command in room.commands:
            words = f"pacsteward {room.name} {command.verb}"
            pieces.append(_piece(room.name, "command", words, "-", command.run))
    return pieces


def _piece(room: str, kind: str, name: str, permission: str, function: Any) -> Piece:
    function = inspect.unwrap(function)
    code = getattr(function, "__code__", None)
    place = "-"
    if code is not None:
        file = Path(code.co_filename)
        root = Path(__file__).parent.parent
        shown = file.relative_to(root) if file.is_relative_to(root) else file
        place = f"{shown}:{code.co_firstlineno}"
    return Piece(room, kind, name, permission, place)


def explain_settings(
    *,
    data: Annotated[Path | None, Parameter(help="The archive's data folder.")] = None,
) -> list[Explained]:
    """List every setting with its value, where that came from, and what it means.

    It opens no archive, so it can be asked before there is one, and while it does not start.
    """
    return Place.found(data).settings.explain()


def verify_archive(house: House) -> VerifyReport:
    """Read every stored byte and compare it with its checksum; ends with 9 if any is damaged."""
    house.archive.need_index()
    report = house.archive.verify(progress=_progress("verified"))
    print(file=sys.stderr)
    return report


def rebuild_archive(house: House) -> str:
    """Make the index anew from the stored bytes and the ledger. The archive must not be running."""
    count = house.archive.rebuild(progress=_progress("indexed"))
    print(file=sys.stderr)
    return f"The index was made anew from {count} instances."


def list_doubtful(house: House) -> Any:
    """List studies that came without a patient ID, or with one that DICOM does not allow."""
    house.archive.need_index()
    return house.archive.doubtful_patients()


def reject(house: House, *study_instance_uids: str, code: str = "113001^DCM") -> str:
    """Hide studies from readers; they can be shown again.

    Parameters
    ----------
    study_instance_uids
        Study Instance UID of each; several after each other.
    code
        Why, of PS3.16 CID 7011: 113001^DCM quality, 113037^DCM patient safety, 113038^DCM wrong
        worklist entry, 113039^DCM retention period over.
    """
    studies = _these(house, study_instance_uids)
    count = house.archive.reject(studies, code=code, actor=at_command_line())
    return f"{count} instances are hidden."


def restore(house: House, *study_instance_uids: str) -> str:
    """Show hidden studies again.

    Parameters
    ----------
    study_instance_uids
        Study Instance UID of each; several after each other.
    """
    count = house.archive.restore(_these(house, study_instance_uids), actor=at_command_line())
    return f"{count} instances are shown again."


def delete(house: House, *study_instance_uids: str, dry_run: bool = False) -> str:
    """Remove studies for good.

    Parameters
    ----------
    study_instance_uids
        Study Instance UID of each; several after each other.
    dry_run
        Only count what would be removed.
    """
    selection = _these(house, study_instance_uids)
    if dry_run:
        count = len(house.archive.instances(selection, with_rejected=True))
        return f"{count} instances would be removed."
    return f"{house.archive.delete(selection, actor=at_command_line())} instances were removed."


def _these(house: House, study_instance_uids: tuple[str, ...]) -> Selection:
    """Return the studies that were named, if all of them are here: one may be mistyped."""
    if not study_instance_uids:
        raise Invalid("No study was named.", remedy="Give one Study Instance UID or several.")
    house.archive.need_index()
    selection = Selection(study_instance_uids=study_instance_uids)
    found = house.archive.instances(selection, with_rejected=True)
    here = {instance.study_instance_uid for instance in found}
    if missing := [uid for uid in study_instance_uids if uid not in here]:
        raise NotFound(
            "Nothing was changed.",
            why=f"Not in the archive: {', '.join(missing)}.",
            remedy="Copy the Study Instance UID from the study's page, or leave it out.",
        )
    return selection


def show_space(house: House) -> Any:
    """Show how much room the disk has."""
    return house.archive.space()


def list_conflicts(house: House) -> list[ConflictingContent]:
    """List contents that came under a UID that other content has; both are kept."""
    house.archive.need_index()
    return house.archive.conflicts()


def list_set_aside(house: House) -> list[SetAside]:
    """List acknowledged objects that could not be indexed, and why."""
    house.archive.need_index()
    return house.archive.set_aside()


def _progress(word: str) -> Any:
    def tell(done: int, total: int) -> None:
        if sys.stderr.isatty() or done == total or done % 1000 == 0:
            print(f"\r{word} {done} of {total}", end="", file=sys.stderr, flush=True)

    return tell


ARCHIVE = (
    Command("verify", verify_archive),
    Command("rebuild", rebuild_archive, makes_index=True),
    Command("space", show_space),
    Command("conflicts", list_conflicts),
    Command("set-aside", list_set_aside),
    Command("doubtful", list_doubtful),
    Command("reject", reject),
    Command("restore", restore),
    Command("delete", delete),
)
