"""What the console's list of studies shows: one box and a few filters as a question to the archive.

The box takes whatever is at hand: part of a name, a patient ID, an accession number, a UID, a word
of the description. It is tried as each of these, the most specific first, and the first that finds
something wins; the page says which one that was.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from types import MappingProxyType
from typing import Final

from pacsteward.archive import Archive, Match
from pacsteward.base.errors import Invalid
from pacsteward.dicom.attributes import Level
from pacsteward.dicom.matching import (
    Criterion,
    Query,
    Range,
    Single,
    Wildcard,
    parse_criterion,
)
from pacsteward.dicom.names import display
from pacsteward.dicom.tags import (
    ACCESSION_NUMBER,
    ISSUER_OF_PATIENT_ID,
    MODALITIES_IN_STUDY,
    NUMBER_OF_STUDY_RELATED_INSTANCES,
    NUMBER_OF_STUDY_RELATED_SERIES,
    PATIENT_BIRTH_DATE,
    PATIENT_ID,
    PATIENT_NAME,
    PATIENT_SEX,
    REFERRING_PHYSICIAN_NAME,
    STUDY_DATE,
    STUDY_DESCRIPTION,
    STUDY_INSTANCE_UID,
    STUDY_TIME,
)
from pacsteward.dicom.uids import is_valid_uid

SHOWN: Final = (
    PATIENT_NAME,
    PATIENT_ID,
    ISSUER_OF_PATIENT_ID,
    PATIENT_BIRTH_DATE,
    PATIENT_SEX,
    STUDY_INSTANCE_UID,
    STUDY_DATE,
    STUDY_TIME,
    ACCESSION_NUMBER,
    MODALITIES_IN_STUDY,
    STUDY_DESCRIPTION,
    REFERRING_PHYSICIAN_NAME,
    NUMBER_OF_STUDY_RELATED_SERIES,
    NUMBER_OF_STUDY_RELATED_INSTANCES,
)

SORTS: Final[Mapping[str, tuple[int, ...]]] = MappingProxyType(
    {
        "patient": (PATIENT_NAME,),
        "id": (PATIENT_ID,),
        "born": (PATIENT_BIRTH_DATE,),
        "date": (STUDY_DATE, STUDY_TIME),
        "description": (STUDY_DESCRIPTION,),
        "accession": (ACCESSION_NUMBER,),
    }
)
"""What the list can be sorted by."""

DAYS: Final[Mapping[str, tuple[str, int]]] = MappingProxyType(
    {
        "today": ("Today", 0),
        "2": ("Since yesterday", 1),
        "7": ("Last 7 days", 6),
        "30": ("Last 30 days", 29),
        "365": ("Last year", 364),
    }
)
"""Choices of the date filter: what it is called, and how many days back it begins."""

MODALITIES: Final = (
    "CR", "CT", "DX", "ES", "IO", "MG", "MR", "NM", "OP", "OT", "PT", "PX", "RF", "SC", "SM", "SR",
    "US", "XA", "XC",
)  # fmt: skip
"""Choices of the modality filter, PS3.3 C.7.3.1.1.1; any other can be written into the address."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the list was asked for; empty fields do not restrict."""

    words: str = ""
    days: str = ""
    """A key of `DAYS`, or dates as DICOM writes them: ``20260101-20260131``."""
    since: str = ""
    """First day, as a browser's date field or DICOM writes it; restricts beside `days`."""
    until: str = ""
    modality: str = ""
    patient_id: str = ""
    accession_number: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether nothing restricts the list."""
        return self == Wanted()


@dataclass(frozen=True, slots=True)
class StudyRow:
    """One line of the list."""

    study_instance_uid: str
    patient_name: str
    patient_id: str
    issuer_of_patient_id: str
    birth_date: str
    sex: str
    date: str
    time: str
    modalities: tuple[str, ...]
    description: str
    accession_number: str
    referring_physician_name: str
    number_of_series: str
    number_of_instances: str


@dataclass(frozen=True, slots=True)
class StudyList:
    """One page of studies."""

    rows: tuple[StudyRow, ...]
    total: int
    read_as: str
    """What the words in the box were taken for; empty when there are none."""


def list_studies(
    archive: Archive,
    wanted: Wanted,
    today: date,
    *,
    order_by: tuple[tuple[int, bool], ...] = (),
    limit: int = 50,
    offset: int = 0,
) -> StudyList:
    """Return one page of studies. Blocks.

    Raises
    ------
    Invalid
        A filter that cannot be meant.
    """
    filters = _filters(wanted, today)
    found = StudyList((), 0, "")
    for read_as, criteria, fuzzy in _readings(wanted.words):
        query = Query(
            Level.STUDY,
            criteria={**criteria, **filters},
            returns=SHOWN,
            fuzzy=fuzzy,
            limit=limit,
            offset=offset,
            order_by=order_by,
        )
        total = archive.count(query)
        if total:
            rows = tuple(row_of(match) for match in archive.find(query))
            return StudyList(rows, total, read_as)
        found = StudyList((), 0, read_as)
    return found


def _filters(wanted: Wanted, today: date) -> dict[int, Criterion]:
    filters: dict[int, Criterion] = {}
    if wanted.days or wanted.since or wanted.until:
        filters[STUDY_DATE] = _period(wanted, today)
    if wanted.modality:
        filters[MODALITIES_IN_STUDY] = parse_criterion(
            MODALITIES_IN_STUDY, "CS", wanted.modality.upper()
        )
    if wanted.patient_id:
        filters[PATIENT_ID] = _beginning(wanted.patient_id)
    if wanted.accession_number:
        filters[ACCESSION_NUMBER] = _beginning(wanted.accession_number)
    return filters


def _period(wanted: Wanted, today: date) -> Criterion:
    """Return the days that all three filters allow; that may be none at all."""
    if not (wanted.since or wanted.until):
        return _days(wanted.days, today)
    parts = [
        _date(text)
        for text in (
            f"{wanted.since}-" if wanted.since else "",
            f"-{wanted.until}" if wanted.until else "",
        )
        if text
    ]
    if wanted.days:
        parts.append(_days(wanted.days, today))
    ends = [_ends(part) for part in parts]
    return Range(
        max((low for low, _high in ends if low is not None), default=None),
        min((high for _low, high in ends if high is not None), default=None),
    )


def _days(text: str, today: date) -> Criterion:
    if text in DAYS:
        first = today - timedelta(days=DAYS[text][1])
        return parse_criterion(STUDY_DATE, "DA", f"{first:%Y%m%d}-{today:%Y%m%d}")
    return _date(text)


def _date(text: str) -> Criterion:
    """Read a day or a range that stands in the address.

    Raises
    ------
    Invalid
        It is none; said in the words of the page, not of the protocol.
    """
    try:
        return parse_criterion(STUDY_DATE, "DA", _compact(text))
    except Invalid as error:
        raise Invalid(
            f"{text.strip('-')} is no study date.",
            why="The list of studies is restricted by its address, and that was changed.",
            remedy="Choose the days in the fields From and To.",
        ) from error


def _compact(text: str) -> str:
    """Write dates without the hyphens that a browser's date field sends: 2026-01-31."""
    return re.sub(r"(\d{4})-(\d\d)-(\d\d)", r"\1\2\3", text)


def _ends(criterion: Criterion) -> tuple[str | None, str | None]:
    if isinstance(criterion, Range):
        return criterion.low, criterion.high
    if isinstance(criterion, Single):
        return criterion.value, criterion.value
    return None, None


Reading = tuple[str, dict[int, Criterion], bool]
"""What the words are taken for, as criteria, and whether names match by likeness."""


def _readings(words: str) -> Iterator[Reading]:
    words = " ".join(words.split())
    if not words:
        yield "", {}, False
        return
    if words.count(".") > 2 and is_valid_uid(words):
        yield "a Study Instance UID", {STUDY_INSTANCE_UID: Single(words)}, False
        return
    if any(letter.isdigit() for letter in words) and " " not in words:
        yield "an accession number", {ACCESSION_NUMBER: _beginning(words)}, False
        yield "a patient ID", {PATIENT_ID: _beginning(words)}, False
    if any(letter.isalpha() for letter in words):
        yield "a patient's name", {PATIENT_NAME: Single(words)}, True
        if " " not in words:
            yield "a patient ID", {PATIENT_ID: _beginning(words)}, False
        contains = Wildcard(f"*{_plain(words)}*")
        yield "a word of the description", {STUDY_DESCRIPTION: contains}, False


def _beginning(text: str) -> Wildcard:
    if "*" in text or "?" in text:
        return Wildcard(text)
    return Wildcard(f"{text}*")


def _plain(text: str) -> str:
    return text.replace("*", " ").replace("?", " ")


def row_of(match: Match) -> StudyRow:
    """Make a line of the list from an answer of the archive."""
    values = match.values

    def text(tag: int) -> str:
        return values.get(tag, "").strip()

    return StudyRow(
        study_instance_uid=text(STUDY_INSTANCE_UID),
        patient_name=display(text(PATIENT_NAME)),
        patient_id=text(PATIENT_ID),
        issuer_of_patient_id=text(ISSUER_OF_PATIENT_ID),
        birth_date=day(text(PATIENT_BIRTH_DATE)),
        sex=text(PATIENT_SEX),
        date=day(text(STUDY_DATE)),
        time=time_of_day(text(STUDY_TIME)),
        modalities=tuple(part for part in text(MODALITIES_IN_STUDY).split("\\") if part),
        description=text(STUDY_DESCRIPTION),
        accession_number=text(ACCESSION_NUMBER),
        referring_physician_name=display(text(REFERRING_PHYSICIAN_NAME)),
        number_of_series=text(NUMBER_OF_STUDY_RELATED_SERIES),
        number_of_instances=text(NUMBER_OF_STUDY_RELATED_INSTANCES),
    )


def day(text: str) -> str:
    """Write a DA as people read it; what is none stays as it is."""
    if re.fullmatch(r"\d{8}", text):
        return f"{text[:4]}-{text[4:6]}-{text[6:]}"
    return text


def time_of_day(text: str) -> str:
    """Write hours and minutes of a TM; what is none stays as it is."""
    if re.fullmatch(r"\d{4,6}(\.\d+)?", text):
        return f"{text[:2]}:{text[2:4]}"
    return text
