"""Where in the index an attribute stands, for every attribute that can be asked for.

A table row for patient, study, series or instance holds what `dicom.attributes.INDEXED` lists for
its level, under the attribute's keyword. Below patient level, attributes of the patient are taken
from the study's own copy, so that studies, series and instances are found in one table less and
under the name that their own objects bear.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from pacsteward.archive.tables import INSTANCE, PATIENT, SERIES, STUDY
from pacsteward.dicom.attributes import INDEXED, Level, keyword_of, snake_case, vr_of
from pacsteward.dicom.tags import (
    MODALITIES_IN_STUDY,
    SOP_CLASSES_IN_STUDY,
)

DEPTH: Final[Mapping[Level, int]] = {
    Level.PATIENT: 0,
    Level.STUDY: 1,
    Level.SERIES: 2,
    Level.IMAGE: 3,
}

_TABLES: Final = {
    Level.PATIENT: PATIENT,
    Level.STUDY: STUDY,
    Level.SERIES: SERIES,
    Level.IMAGE: INSTANCE,
}

# Value multiplicity above 1 in PS3.6; the values stand in one column, between backslashes.
_MULTIPLE: Final = frozenset(
    {
        0x00080008,  # Image Type
        0x00081050,  # Performing Physician's Name
        0x00081060,  # Name of Physician(s) Reading Study
        0x00081070,  # Operators' Name
        0x00081080,  # Admitting Diagnoses Description
        0x00101000,  # Other Patient IDs
    }
)


@dataclass(frozen=True, slots=True)
class Place:
    """One attribute of the index.

    Parameters
    ----------
    column
        With its table: ``study.study_date``.
    words
        The column with the normal form of its text, "" where there is none; see `tables`.
    has_several
        Whether the column may hold several values, between backslashes.
    """

    level: Level
    column: str
    vr: str
    words: str = ""
    has_several: bool = False


def _places() -> dict[int, Place]:
    places = {}
    for level, tags in INDEXED.items():
        table = _TABLES[level]
        for tag in tags:
            name = snake_case(keyword_of(tag))
            words = f"{name}_words"
            places[tag] = Place(
                level,
                f"{table.name}.{name}",
                vr_of(tag),
                f"{table.name}.{words}" if words in table.c else "",
                tag in _MULTIPLE,
            )
    return places


PLACES: Final[Mapping[int, Place]] = MappingProxyType(_places())
"""Attributes with a column of their own, by tag."""

_OF_PATIENT: Final[Mapping[int, Place]] = MappingProxyType(
    {
        tag: Place(
            Level.STUDY,
            place.column.replace("patient.", "study."),
            place.vr,
            place.words.replace("patient.", "study."),
            place.has_several,
        )
        for tag, place in PLACES.items()
        if place.level is Level.PATIENT
    }
)


def place_of(tag: int, level: Level) -> Place | None:
    """Return where a query at `level` finds an attribute, None for one outside the index."""
    if level is not Level.PATIENT and tag in _OF_PATIENT:
        return _OF_PATIENT[tag]
    return PLACES.get(tag)


SETS: Final[Mapping[int, str]] = MappingProxyType(
    {
        MODALITIES_IN_STUDY: "study.modalities_in_study",
        SOP_CLASSES_IN_STUDY: "study.sop_classes_in_study",
    }
)
"""What a study holds of its series and instances, between backslashes (PS3.4 C.3.4)."""


@dataclass(frozen=True, slots=True)
class Count:
    """A number that is computed (PS3.4 C.3.4).

    Parameters
    ----------
    level
        Of the rows that bear it; queries at this level and below can ask for it.
    sql
        The number, with ``{patient_key}`` for the key of the patient at hand.
    """

    level: Level
    sql: str


_OF_STUDIES: Final = (
    "(SELECT {what} FROM study AS other WHERE other.patient_key = {{patient_key}} "
    "AND other.number_of_study_related_instances > 0)"
)

COUNTS: Final[Mapping[int, Count]] = MappingProxyType(
    {
        0x00201200: Count(Level.PATIENT, _OF_STUDIES.format(what="count(*)")),
        0x00201202: Count(
            Level.PATIENT,
            _OF_STUDIES.format(what="coalesce(sum(other.number_of_study_related_series), 0)"),
        ),
        0x00201204: Count(
            Level.PATIENT,
            _OF_STUDIES.format(what="coalesce(sum(other.number_of_study_related_instances), 0)"),
        ),
        0x00201206: Count(Level.STUDY, "study.number_of_study_related_series"),
        0x00201208: Count(Level.STUDY, "study.number_of_study_related_instances"),
        0x00201209: Count(Level.SERIES, "series.number_of_series_related_instances"),
    }
)
"""Numbers of studies, series and instances; rejected ones do not count."""

REQUEST_ATTRIBUTES: Final[Mapping[int, Place]] = MappingProxyType(
    {
        0x00401001: Place(Level.SERIES, "series.requested_procedure_id", "SH", has_several=True),
        0x00400009: Place(
            Level.SERIES, "series.scheduled_procedure_step_id", "SH", has_several=True
        ),
    }
)
"""What can be matched inside Request Attributes Sequence (0040,0275)."""

ABOUT_THE_ANSWER: Final = frozenset(
    {
        0x00080005,  # Specific Character Set
        0x00080052,  # Query/Retrieve Level
        0x00080053,  # Query/Retrieve View
        0x00080054,  # Retrieve AE Title
        0x00080055,  # Station AE Title (retired)
        0x00081190,  # Retrieve URL
        0x00880130,  # Storage Media File-Set ID
        0x00880140,  # Storage Media File-Set UID
        0x00080201,  # Timezone Offset From UTC
    }
)
"""Keys that say something of the question or the answer; they never restrict the answers.

Timezone Offset From UTC says how the keys of the question are to be read (PS3.4 C.2.1.2.2).
"""

UNIQUE_KEYS: Final[Mapping[Level, tuple[int, ...]]] = MappingProxyType(
    {
        Level.PATIENT: (0x00100020,),
        Level.STUDY: (0x00100020, 0x0020000D),
        Level.SERIES: (0x00100020, 0x0020000D, 0x0020000E),
        Level.IMAGE: (0x00100020, 0x0020000D, 0x0020000E, 0x00080018),
    }
)
"""What names an answer: the unique key of its level and of those above (PS3.4 C.6)."""
