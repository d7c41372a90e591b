"""What the console's page of a study shows: its series, their instances, a header in full."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from pacsteward.archive import Archive, Match, Selection
from pacsteward.base.errors import Invalid, NotFound
from pacsteward.dicom.attributes import Level, format_tag, keyword_of
from pacsteward.dicom.matching import Query, Single
from pacsteward.dicom.names import display
from pacsteward.dicom.tags import (
    AVAILABLE_TRANSFER_SYNTAX_UID,
    BODY_PART_EXAMINED,
    COLUMNS,
    INSTANCE_NUMBER,
    MANUFACTURER,
    MANUFACTURER_MODEL_NAME,
    MODALITY,
    NUMBER_OF_FRAMES,
    NUMBER_OF_SERIES_RELATED_INSTANCES,
    ROWS,
    SERIES_DATE,
    SERIES_DESCRIPTION,
    SERIES_INSTANCE_UID,
    SERIES_NUMBER,
    SERIES_TIME,
    SOP_CLASS_UID,
    SOP_INSTANCE_UID,
    STATION_NAME,
    STUDY_INSTANCE_UID,
)
from pacsteward.dicom.uids import STORAGE_SOP_CLASSES, is_valid_uid
from pacsteward.features.query.browse import SHOWN, StudyRow, day, row_of, time_of_day

_SERIES: Final = (
    SERIES_INSTANCE_UID,
    MODALITY,
    SERIES_NUMBER,
    SERIES_DESCRIPTION,
    SERIES_DATE,
    SERIES_TIME,
    BODY_PART_EXAMINED,
    NUMBER_OF_SERIES_RELATED_INSTANCES,
    STATION_NAME,
    MANUFACTURER,
    MANUFACTURER_MODEL_NAME,
)
_INSTANCE: Final = (
    SOP_INSTANCE_UID,
    SOP_CLASS_UID,
    INSTANCE_NUMBER,
    NUMBER_OF_FRAMES,
    ROWS,
    COLUMNS,
    AVAILABLE_TRANSFER_SYNTAX_UID,
)

WITHOUT_PICTURES: Final = frozenset(
    [
        "AU",
        "DOC",
        "ECG",
        "EPS",
        "HD",
        "KO",
        "M3D",
        "PLAN",
        "PR",
        "REG",
        "RTPLAN",
        "RTRECORD",
        "RTSTRUCT",
        "RWV",
        "SMR",
        "SR",
        "SRF",
        "STAIN",
    ]
)
"""Modalities (PS3.3 C.7.3.1.1.1) whose objects hold no image."""


@dataclass(frozen=True, slots=True)
class SeriesRow:
    """One series of the page."""

    series_instance_uid: str
    modality: str
    number: str
    description: str
    date: str
    time: str
    body_part: str
    number_of_instances: str
    station: str
    device: str

    @property
    def has_no_pictures(self) -> bool:
        """Whether there is nothing to draw, by the kind of its objects."""
        return self.modality in WITHOUT_PICTURES

    @property
    def is_nothing_alone(self) -> bool:
        """Whether the viewer needs the images of other series to draw it."""
        return self.has_no_pictures or self.modality == "SEG"


@dataclass(frozen=True, slots=True)
class InstanceRow:
    """One instance of a series."""

    sop_instance_uid: str
    sop_class_uid: str
    sop_class: str
    number: str
    frames: str
    size: str
    transfer_syntax_uid: str


@dataclass(frozen=True, slots=True)
class HeaderLine:
    """One attribute of an instance.

    Parameters
    ----------
    depth
        0 for the data set itself, one more for each sequence around it.
    is_item
        Whether the line begins an item of a sequence.
    """

    depth: int
    tag: str
    keyword: str
    vr: str
    value: str
    is_item: bool = False


def read_study(archive: Archive, study_instance_uid: str) -> StudyRow:
    """Return what is said of a study.

    Raises
    ------
    NotFound
        There is no such study.
    """
    query = Query(
        Level.STUDY, criteria={STUDY_INSTANCE_UID: Single(study_instance_uid)}, returns=SHOWN
    )
    match = next(archive.find(query), None)
    if match is None:
        raise NotFound(
            f"There is no study {study_instance_uid}.",
            why="It was never received, or it was rejected or deleted.",
            remedy="Look for the patient in the list of studies.",
        )
    return row_of(match)


def list_series(archive: Archive, study_instance_uid: str) -> tuple[SeriesRow, ...]:
    """List the series of a study, in viewing order."""
    query = Query(
        Level.SERIES, criteria={STUDY_INSTANCE_UID: Single(study_instance_uid)}, returns=_SERIES
    )
    return tuple(_series(match) for match in archive.find(query))


def find_series(archive: Archive, study_instance_uid: str, series_instance_uid: str) -> SeriesRow:
    """Return what is said of a series.

    Raises
    ------
    NotFound
        The study has no such series.
    """
    for series in list_series(archive, study_instance_uid):
        if series.series_instance_uid == series_instance_uid:
            return series
    raise NotFound(
        f"There is no series {series_instance_uid} in study {study_instance_uid}.",
        why="It was never received, or it was rejected or deleted.",
        remedy="Look for the patient in the list of studies.",
    )


def _series(match: Match) -> SeriesRow:
    def text(tag: int) -> str:
        return match.values.get(tag, "").strip()

    return SeriesRow(
        series_instance_uid=text(SERIES_INSTANCE_UID),
        modality=text(MODALITY),
        number=text(SERIES_NUMBER),
        description=text(SERIES_DESCRIPTION),
        date=day(text(SERIES_DATE)),
        time=time_of_day(text(SERIES_TIME)),
        body_part=text(BODY_PART_EXAMINED),
        number_of_instances=text(NUMBER_OF_SERIES_RELATED_INSTANCES),
        station=text(STATION_NAME),
        device=" ".join(
            part for part in (text(MANUFACTURER), text(MANUFACTURER_MODEL_NAME)) if part
        ),
    )


def list_instances(
    archive: Archive, study_instance_uid: str, series_instance_uid: str, *, limit: int, offset: int
) -> tuple[InstanceRow, ...]:
    """List instances of a series, in viewing order."""
    query = Query(
        Level.IMAGE,
        criteria={
            STUDY_INSTANCE_UID: Single(study_instance_uid),
            SERIES_INSTANCE_UID: Single(series_instance_uid),
        },
        returns=_INSTANCE,
        limit=limit,
        offset=offset,
    )
    return tuple(_instance(match) for match in archive.find(query))


def _instance(match: Match) -> InstanceRow:
    def text(tag: int) -> str:
        return match.values.get(tag, "").strip()

    rows, columns = text(ROWS), text(COLUMNS)
    return InstanceRow(
        sop_instance_uid=text(SOP_INSTANCE_UID),
        sop_class_uid=text(SOP_CLASS_UID),
        sop_class=name_of_sop_class(text(SOP_CLASS_UID)),
        number=text(INSTANCE_NUMBER),
        frames=text(NUMBER_OF_FRAMES),
        size=f"{columns} × {rows}" if rows and columns else "",
        transfer_syntax_uid=text(AVAILABLE_TRANSFER_SYNTAX_UID),
    )


def name_of_sop_class(uid: str) -> str:
    """Return what the standard calls a SOP class; the UID itself for a private one."""
    return STORAGE_SOP_CLASSES.get(uid, uid)


@dataclass(frozen=True, slots=True)
class Places:
    """Where the instances are that an object points at.

    Parameters
    ----------
    pages
        The page of each that has one.
    absent
        What is not stored here. Of the rest nothing is said: it is stored and belongs to no study,
        since it could not be read.
    """

    pages: Mapping[str, str]
    absent: frozenset[str]


def places_of(archive: Archive, sop_instance_uids: Iterable[str]) -> Places:
    """Look for instances, for as many as a report has lines at most."""
    wanted = tuple(dict.fromkeys(uid for uid in sop_instance_uids if uid))
    pages, absent = {}, set()
    sought = tuple(filter(is_valid_uid, wanted))
    for start in range(0, len(sought), _LOOKED_FOR_TOGETHER):
        some = Selection(sop_instance_uids=sought[start : start + _LOOKED_FOR_TOGETHER])
        for found in archive.instances(some):
            series = f"/studies/{found.study_instance_uid}/series/{found.series_instance_uid}"
            pages[found.sop_instance_uid] = f"{series}/instances/{found.sop_instance_uid}"
    for uid in wanted:
        if uid not in pages:
            try:
                # It may be stored all the same, and belong to no study.
                archive.instance("", "", uid)
            except (NotFound, Invalid):
                # It was never sent to us, or is no UID: the report still says its name.
                absent.add(uid)
    return Places(pages, frozenset(absent))


_LOOKED_FOR_TOGETHER: Final = 200


# --- a header in full ---------------------------------------------------------------------------

_SHOWN_CHARACTERS: Final = 2_000
_SHOWN_LINES: Final = 3_000
_DEPTH_MAX: Final = 16


def read_data_set(
    archive: Archive, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str
) -> Mapping[str, Any]:
    """Return an instance as DICOM JSON, as it is given out through DICOMweb.

    Raises
    ------
    NotFound
        There is no such instance.
    """
    _etag, pieces = archive.metadata(
        study_instance_uid, series_instance_uid, sop_instance_uid, base_url=""
    )
    (data_set,) = json.loads(b"".join(pieces))
    return dict(data_set)


def header_lines(data_set: Mapping[str, Any]) -> tuple[HeaderLine, ...]:
    """Return every attribute of an instance."""
    lines = tuple(islice(_lines(data_set, 0), _SHOWN_LINES + 1))
    if len(lines) > _SHOWN_LINES:
        # A page of a hundred thousand lines helps nobody, and takes ten seconds to make.
        more = "There is more. The JSON has all of it."
        return (*lines[:_SHOWN_LINES], HeaderLine(0, "", "", "", more, is_item=True))
    return lines


def _lines(data_set: Mapping[str, Any], depth: int) -> Iterator[HeaderLine]:
    for key, attribute in sorted(data_set.items()):
        tag, vr = int(key, 16), str(attribute.get("vr", ""))
        keyword = keyword_of(tag) or ("private" if tag & 0x10000 else "")
        if vr != "SQ":
            yield HeaderLine(depth, format_tag(tag), keyword, vr, _value(attribute, vr))
            continue
        items = attribute.get("Value", [])
        count = f"{len(items)} item{'' if len(items) == 1 else 's'}"
        yield HeaderLine(depth, format_tag(tag), keyword, vr, count)
        if depth >= _DEPTH_MAX:
            continue
        for number, item in enumerate(items, 1):
            yield HeaderLine(depth + 1, "", f"Item {number}", "", "", is_item=True)
            yield from _lines(item or {}, depth + 1)


def _value(attribute: Mapping[str, Any], vr: str) -> str:
    if "BulkDataURI" in attribute:
        return "(kept apart; retrieved by its address)"
    if "InlineBinary" in attribute:
        return f"(binary, {len(attribute['InlineBinary']) * 3 // 4} bytes)"
    texts = [_one(value, vr) for value in attribute.get("Value", [])]
    text = "\\".join(texts)
    if len(text) > _SHOWN_CHARACTERS:
        return f"{text[:_SHOWN_CHARACTERS]} … ({len(texts)} values)"
    return text


def _one(value: Any, vr: str) -> str:
    if value is None:
        return ""
    if vr == "PN" and isinstance(value, dict):
        groups = (value.get(name, "") for name in ("Alphabetic", "Ideographic", "Phonetic"))
        return display("=".join(groups).rstrip("="))
    return str(value)
