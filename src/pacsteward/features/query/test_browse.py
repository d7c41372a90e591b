"""What the words in the search box are taken for, and how values are shown."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import pytest

from pacsteward.archive import Match
from pacsteward.base.errors import Invalid
from pacsteward.dicom.matching import Query, Range, Single, Wildcard
from pacsteward.features.query import browse
from pacsteward.features.query.browse import Wanted, list_studies, row_of

TODAY = date(2026, 3, 2)


class Asked:
    """Stands for the archive: notes the questions, and finds for one tag only."""

    def __init__(self, finds: int | None = None) -> None:
        self.finds = finds
        self.queries: list[Query] = []

    def count(self, query: Query) -> int:
        self.queries.append(query)
        return 1 if self.finds in query.criteria else 0

    def find(self, _query: Query) -> Iterator[Match]:
        yield Match({browse.STUDY_INSTANCE_UID: "1.2.3", browse.PATIENT_NAME: "Doe^Jane"})


def readings(words: str) -> list[str]:
    archive = Asked()
    found = []
    for tag in (
        browse.STUDY_INSTANCE_UID,
        browse.ACCESSION_NUMBER,
        browse.PATIENT_ID,
        browse.PATIENT_NAME,
        browse.STUDY_DESCRIPTION,
    ):
        archive.finds = tag
        listed = list_studies(archive, Wanted(words=words), TODAY)  # type: ignore[arg-type]
        if listed.rows:
            found.append(listed.read_as)
    return found


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("1.2.840.10008.1", ["a Study Instance UID"]),
        ("4711", ["an accession number", "a patient ID"]),
        (
            "A47",
            [
                "an accession number",
                "a patient ID",
                "a patient's name",
                "a word of the description",
            ],
        ),
        ("mayer", ["a patient ID", "a patient's name", "a word of the description"]),
        ("jane doe", ["a patient's name", "a word of the description"]),
    ],
)
def test_words_are_tried_as_whatever_they_can_be(words: str, meant: list[str]) -> None:
    assert readings(words) == meant


def test_names_are_looked_for_by_likeness_and_codes_by_their_beginning() -> None:
    archive = Asked()
    list_studies(archive, Wanted(words="b12"), TODAY)  # type: ignore[arg-type]
    first, *_rest, last = archive.queries
    assert first.criteria == {browse.ACCESSION_NUMBER: Wildcard("b12*")}
    named = next(query for query in archive.queries if browse.PATIENT_NAME in query.criteria)
    assert named.fuzzy
    assert last.criteria == {browse.STUDY_DESCRIPTION: Wildcard("*b12*")}


def test_filters_restrict_every_reading() -> None:
    archive = Asked()
    wanted = Wanted(
        days="7", modality="ct", patient_id="P1", accession_number="A*", words="doe jane"
    )
    list_studies(archive, wanted, TODAY)  # type: ignore[arg-type]
    for query in archive.queries:
        assert query.criteria[browse.STUDY_DATE] == Range("20260224", "20260302")
        assert query.criteria[browse.MODALITIES_IN_STUDY] == Single("CT")
        assert query.criteria[browse.PATIENT_ID] == Wildcard("P1*")
        assert query.criteria[browse.ACCESSION_NUMBER] == Wildcard("A*")


@pytest.mark.parametrize("days", ["20260101-20260131", "2026-01-01-2026-01-31"])
def test_dates_may_be_written_as_dicom_or_a_browser_writes_them(days: str) -> None:
    archive = Asked()
    list_studies(archive, Wanted(days=days), TODAY)  # type: ignore[arg-type]
    assert archive.queries[0].criteria == {browse.STUDY_DATE: Range("20260101", "20260131")}


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [
        (Wanted(since="2026-01-01", until="20260131"), Range("20260101", "20260131")),
        (Wanted(since="2026-01-01"), Range("20260101", None)),
        (Wanted(until="2026-01-31"), Range(None, "20260131")),
        (Wanted(days="7", since="2026-02-27"), Range("20260227", "20260302")),
        (Wanted(days="7", since="2026-01-01", until="2026-02-26"), Range("20260224", "20260226")),
        (Wanted(days="20260105", until="2026-02-26"), Range("20260105", "20260105")),
    ],
)
def test_a_range_of_dates_restricts_beside_the_choice_of_days(wanted: Wanted, meant: Range) -> None:
    archive = Asked()
    list_studies(archive, wanted, TODAY)  # type: ignore[arg-type]
    assert archive.queries[0].criteria == {browse.STUDY_DATE: meant}
    assert not wanted.is_empty


def test_a_date_that_is_none_is_refused() -> None:
    with pytest.raises(Invalid):
        list_studies(Asked(), Wanted(days="last week"), TODAY)  # type: ignore[arg-type]
    for text in ("yesterday", "20260101-20260131", "2026-02-31"):
        with pytest.raises(Invalid):
            list_studies(Asked(), Wanted(since=text), TODAY)  # type: ignore[arg-type]


def test_a_row_shows_values_as_people_read_them_and_odd_ones_as_they_are() -> None:
    row = row_of(
        Match(
            {
                browse.PATIENT_NAME: "Doe^Jane^^Dr.",
                browse.STUDY_DATE: "20260302",
                browse.STUDY_TIME: "084200.123",
                browse.PATIENT_BIRTH_DATE: "unknown",
                browse.MODALITIES_IN_STUDY: "\\CT\\SR\\",
            }
        )
    )
    assert row.patient_name == "Doe, Dr. Jane"
    assert (row.date, row.time, row.birth_date) == ("2026-03-02", "08:42", "unknown")
    assert row.modalities == ("CT", "SR")
