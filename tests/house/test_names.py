"""Names are the standard's names: a column of the index is a DICOM keyword in snake case."""

from __future__ import annotations

import re

from pydicom.datadict import DicomDictionary

from pacsteward.archive.tables import INSTANCE, PATIENT, SERIES, STUDY

OUR_OWN = {
    # Keys, and what ties a row to another.
    "patient_key",
    "study_key",
    "series_key",
    "instance_key",
    # What the house knows of an object and the standard has no attribute for.
    "identity_doubt",
    "only_study_instance_uid",
    "size_bytes",
    "checksum",
    "has_pixel_data",
    "instance_order",
    "rejected_for",
    "source_name",
    "version",
    # Moments, as everywhere in the house: something_at.
    "created_at",
    "updated_at",
    "received_at",
    "completes_at",
    "completed_at",
}
"""Columns that are no attributes; the glossary explains the words."""


def snake_case(keyword: str) -> str:
    """Write a keyword as the house does: ``SOPInstanceUID`` as ``sop_instance_uid``."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", keyword)
    # "UIDs", "IDs": the plural belongs to the abbreviation.
    return re.sub(r"_(ui|i)_?ds\b", r"_\1ds", words.lower())


KEYWORDS = {snake_case(entry[4]) for entry in DicomDictionary.values() if entry[4]}


def test_columns_of_the_index_are_dicom_keywords() -> None:
    unknown = {
        f"{table.name}.{column.name}"
        for table in (PATIENT, STUDY, SERIES, INSTANCE)
        for column in table.columns
        if column.name not in OUR_OWN and column.name.removesuffix("_words") not in KEYWORDS
    }
    assert unknown == set()


def test_words_that_are_matched_stand_beside_their_attribute() -> None:
    for table in (PATIENT, STUDY, SERIES, INSTANCE):
        names = {column.name for column in table.columns}
        for name in names:
            if name.endswith("_words"):
                assert name.removesuffix("_words") in names


def test_exceptions_are_still_needed() -> None:
    used = {column.name for table in (PATIENT, STUDY, SERIES, INSTANCE) for column in table.columns}
    assert OUR_OWN - used == set()
