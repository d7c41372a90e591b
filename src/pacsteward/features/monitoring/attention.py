"""What needs a human: of each kind what it is, what to do about it, and what there is of it now.

Nothing here is lost, and nothing here settles itself: a machine cannot know which of two contents
is the true one, or whose an examination without a patient ID is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Final

from pacsteward.archive import Archive
from pacsteward.dicom.attributes import Level
from pacsteward.dicom.matching import Query, UidList
from pacsteward.dicom.tags import STUDY_INSTANCE_UID

PATH: Final = "/attention"
LISTED_MAX: Final = 1000
"""Of each kind; a device that has gone mad makes more than anybody reads."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of thing that needs a human."""

    title: str
    many: str
    tone: str
    meaning: str
    what_to_do: str


KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "conflict": Kind(
            "Conflict",
            "Conflicts",
            "warning",
            "An object came under a SOP Instance UID that other content has already. A device "
            "reuses UIDs, or sent a changed object without giving it a new UID. Both contents are "
            "kept; readers get the first one, and the sender was warned.",
            "See what differs, attribute by attribute, and download both. Have the vendor of the "
            "sending device give new UIDs, and the object sent again under one.",
        ),
        "set-aside": Kind(
            "Set aside",
            "Set aside",
            "bad",
            "An object was acknowledged to its sender, and is kept, but could not be written into "
            "the index: no search finds it.",
            "Download it and report it with the reason given. The bytes are safe, and the object "
            "can be retrieved by its UID.",
        ),
        "doubtful": Kind(
            "Doubtful patient",
            "Doubtful patients",
            "warning",
            "A study came without a patient ID, or with one that DICOM does not allow. It is kept "
            "as it came, and shown by itself: never under another patient.",
            "Open the study and find out whose it is from its accession number or the device. "
            "Have the sending device corrected, and the study sent again.",
        ),
    }
)


@dataclass(frozen=True, slots=True)
class Matter:
    """One thing that needs a human.

    Parameters
    ----------
    link
        Page that shows it; empty where there is none.
    study_instance_uid
        Study to be opened beside it; empty where it is not known.
    size_bytes
        None where the thing is a whole study.
    download
        Address of its file; empty where there is none.
    """

    kind: str
    uid: str
    why: str
    link: str
    study_instance_uid: str
    source: str
    at: datetime
    size_bytes: int | None
    download: str = ""


def count_matters(archive: Archive) -> dict[str, int]:
    """Count what needs a human, by kind, however much it is. Blocks."""
    waiting = archive.waiting()
    return {
        "conflict": waiting.conflicts,
        "set-aside": waiting.set_aside,
        "doubtful": waiting.doubtful_patients,
    }


def page_of(kind: str) -> str:
    """Return the address of the list of one kind."""
    return f"{PATH}?kind={kind}"


def page_of_conflict(conflict_key: int) -> str:
    """Return the address of what is said of one conflict."""
    return f"{PATH}/conflicts/{conflict_key}"


def list_matters(archive: Archive) -> list[Matter]:
    """List what needs a human, the latest first, of each kind at most `LISTED_MAX`. Blocks."""
    found = [*_conflicts(archive), *_set_aside(archive), *_doubtful(archive)]
    return sorted(found, key=lambda matter: matter.at, reverse=True)


def studies_known(archive: Archive, study_instance_uids: Iterable[str]) -> set[str]:
    """Return which of these studies can be opened: other content may name one that never came."""
    wanted = tuple(sorted({uid for uid in study_instance_uids if uid}))
    if not wanted:
        return set()
    query = Query(Level.STUDY, {STUDY_INSTANCE_UID: UidList(wanted)}, returns=(STUDY_INSTANCE_UID,))
    return {match.values[STUDY_INSTANCE_UID] for match in archive.find(query)}


def _conflicts(archive: Archive) -> Iterator[Matter]:
    for one in archive.conflicts(limit=LISTED_MAX):
        yield Matter(
            kind="conflict",
            uid=one.sop_instance_uid,
            why="Other content has this UID.",
            link=page_of_conflict(one.conflict_key),
            study_instance_uid=one.study_instance_uid,
            source=one.source_name,
            at=one.received_at,
            size_bytes=one.size_bytes,
            download=f"{page_of_conflict(one.conflict_key)}/object.dcm",
        )


def _set_aside(archive: Archive) -> Iterator[Matter]:
    for one in archive.set_aside(limit=LISTED_MAX):
        yield Matter(
            kind="set-aside",
            uid=one.sop_instance_uid,
            why=one.why,
            link="",
            study_instance_uid="",
            source="",
            at=one.received_at,
            size_bytes=one.size_bytes,
            download=f"{PATH}/set-aside/{one.set_aside_key}/object.dcm",
        )


def _doubtful(archive: Archive) -> Iterator[Matter]:
    for one in archive.doubtful_patients(limit=LISTED_MAX):
        accession = f" Accession number {one.accession_number}." if one.accession_number else ""
        yield Matter(
            kind="doubtful",
            uid=one.study_instance_uid,
            why=f"The patient ID is {one.identity_doubt}.{accession}",
            link=f"/studies/{one.study_instance_uid}",
            study_instance_uid=one.study_instance_uid,
            source="",
            at=one.created_at,
            size_bytes=None,
        )
