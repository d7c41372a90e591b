"""From a header to the rows of the index.

Pure: a landed instance and its header go in, values for the columns of `tables.py` come out.
Dates, times and whole numbers are written in the one form that queries compare with; the words of
names and descriptions in the form that is matched without regard to case and accents.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pacsteward.archive.landing import Landed
from pacsteward.archive.tables import INSTANCE, PATIENT, SERIES, STUDY
from pacsteward.dicom.attributes import INDEXED, Level, keyword_of, snake_case, vr_of
from pacsteward.dicom.header import Header
from pacsteward.dicom.matching import canonical
from pacsteward.dicom.names import normalise
from pacsteward.dicom.tags import ISSUER_OF_PATIENT_ID, PATIENT_ID

Row = dict[str, Any]

NO_ORDER: Final = 2147483647
"""Of an instance without a number: behind all others."""

PATIENT_ID_MAX: Final = 64
"""PS3.5 6.2: LO has at most 64 characters."""

_TABLES: Final = {
    Level.PATIENT: PATIENT,
    Level.STUDY: STUDY,
    Level.SERIES: SERIES,
    Level.IMAGE: INSTANCE,
}
_CANONICAL: Final = frozenset({"DA", "TM", "DT", "IS"})


def _columns(level: Level) -> tuple[tuple[int, str, str, str], ...]:
    """Tag, column, VR where the value has a canonical form, column of its words."""
    table = _TABLES[level]
    columns = []
    for tag in INDEXED[level]:
        name = snake_case(keyword_of(tag))
        vr = vr_of(tag)
        words = f"{name}_words"
        columns.append(
            (tag, name, vr if vr in _CANONICAL else "", words if words in table.c else "")
        )
    return tuple(columns)


_COLUMNS: Final[Mapping[Level, tuple[tuple[int, str, str, str], ...]]] = {
    level: _columns(level) for level in Level
}


# The same in parts, for the loops that run for every instance.
_TAGS: Final = {
    level: [(tag, column) for tag, column, _, _ in columns] for level, columns in _COLUMNS.items()
}
_VRS: Final = {
    level: [(column, vr) for _, column, vr, _ in columns if vr]
    for level, columns in _COLUMNS.items()
}
_WORDS: Final = {
    level: [(column, words) for _, column, _, words in columns if words]
    for level, columns in _COLUMNS.items()
}
_TAG_OF: Final = {
    level: {name: tag for tag, column, _, words in columns for name in (column, words) if name}
    for level, columns in _COLUMNS.items()
}


def tag_of(level: Level, name: str) -> int:
    """Return the tag that a column of `column_names` comes from."""
    return _TAG_OF[level][name]


def column_names(level: Level) -> tuple[str, ...]:
    """Return the columns that hold what the headers say at a level."""
    return tuple(
        name for _, column, _, words in _COLUMNS[level] for name in (column, words) if name
    )


def identity_doubt(header: Header) -> str:
    """Say why a patient ID cannot be trusted: "missing", "illegal"; "" when it can.

    An object without a usable identity is kept: it may be an emergency, and who was examined can
    be corrected later; images that were refused cannot.
    """
    patient_id = header.values.get(PATIENT_ID, "")
    if not patient_id.strip():
        return "missing"
    if len(patient_id) > PATIENT_ID_MAX or "\\" in patient_id or not patient_id.isprintable():
        return "illegal"
    return ""


def patient_row(landed: Landed, header: Header) -> Row:
    """Return the patient; its three key columns say who that is."""
    row = _texts(Level.PATIENT, header.values)
    doubt = identity_doubt(header)
    is_nobody = doubt == "missing"
    row["patient_id"] = "" if is_nobody else row["patient_id"]
    row["issuer_of_patient_id"] = "" if is_nobody else _issuer(landed, header)
    row["only_study_instance_uid"] = landed.description.study_instance_uid if is_nobody else ""
    row["identity_doubt"] = doubt
    return row


def study_row(landed: Landed, header: Header) -> Row:
    """Return the study with its copy of the patient, without keys, counters and moments."""
    row = _texts(Level.PATIENT, header.values) | _texts(Level.STUDY, header.values)
    row["study_instance_uid"] = landed.description.study_instance_uid
    row["issuer_of_patient_id"] = _issuer(landed, header)
    row["identity_doubt"] = identity_doubt(header)
    row["specific_character_set"] = header.specific_character_set
    return row


def series_row(landed: Landed, header: Header) -> Row:
    """Return the series, without keys, counters and moments."""
    row = _texts(Level.SERIES, header.values)
    row["series_instance_uid"] = landed.description.series_instance_uid
    row["specific_character_set"] = header.specific_character_set
    row["requested_procedure_id"] = _joined(
        item.requested_procedure_id for item in header.request_attributes
    )
    row["scheduled_procedure_step_id"] = _joined(
        item.scheduled_procedure_step_id for item in header.request_attributes
    )
    return row


def instance_row(landed: Landed, header: Header) -> Row:
    """Return the instance, without its series."""
    description = landed.description
    row = _texts(Level.IMAGE, header.values)
    row["sop_instance_uid"] = description.sop_instance_uid
    row["sop_class_uid"] = description.sop_class_uid
    row["transfer_syntax_uid"] = description.transfer_syntax_uid
    row["instance_order"] = _order(row["instance_number"])
    row["specific_character_set"] = header.specific_character_set
    row["has_pixel_data"] = header.pixel_data is not None
    row["size_bytes"] = landed.size_bytes
    row["checksum"] = landed.checksum
    row["source_name"] = description.origin.actor
    row["received_at"] = description.received_at
    return row


def _issuer(landed: Landed, header: Header) -> str:
    """Return the object's own issuer; for an ID without one, that of the peer's registration."""
    own = header.values.get(ISSUER_OF_PATIENT_ID, "")
    if own or not header.values.get(PATIENT_ID, "").strip():
        return storable(own)
    return landed.description.origin.default_issuer_of_patient_id


def _texts(level: Level, values: Mapping[int, str]) -> Row:
    get = values.get
    row: Row = {column: get(tag, "") for tag, column in _TAGS[level]}
    whole = "".join(row.values())
    if not whole.isascii() or "\0" in whole:
        row = {column: storable(text) for column, text in row.items()}
    for column, vr in _VRS[level]:
        text = row[column]
        # Digits are as they should be, but for zeros before a whole number and other scripts.
        if text and not (text.isdigit() and text.isascii() and (vr != "IS" or text[0] != "0")):
            row[column] = canonical(vr, text)
    for column, words in _WORDS[level]:
        text = row[column]
        row[words] = normalise(text) if text else ""
    return row


def storable(text: str) -> str:
    """Return the text without what no database column can hold: NUL and half characters."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")


def _joined(values: Any) -> str:
    return "\\".join(storable(value) for value in values).strip("\\")


def _order(instance_number: str) -> int:
    try:
        number = int(instance_number)
    except ValueError:
        return NO_ORDER
    return number if -NO_ORDER <= number <= NO_ORDER else NO_ORDER
