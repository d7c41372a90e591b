"""Queries that are answered on an event loop: what they answer is what the archive would."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect

from pacsteward.archive import Archive, ArchiveSettings, find
from pacsteward.archive.find import AT_ONCE_MAX, Finder
from pacsteward.archive.likeness import NameBook
from pacsteward.archive.model import Match
from pacsteward.archive.watermark import Watermark
from pacsteward.base.clock import ManualClock
from pacsteward.base.db import Database
from pacsteward.base.errors import WouldWait
from pacsteward.base.events import FactLog
from pacsteward.dicom.attributes import Level, tag_of, vr_of
from pacsteward.dicom.matching import Query, parse_criterion
from pacsteward.security.audit import AuditBook

RETURNS = tuple(
    map(tag_of, ("PatientName", "PatientID", "StudyDate", "ModalitiesInStudy", "StudyInstanceUID"))
)


@pytest.fixture
def finder(database: Database) -> Finder:
    return Finder(database, NameBook(ManualClock().monotonic), timeout_s=5)


@pytest.fixture
def archive(database: Database, tmp_path: Path) -> Archive:
    clock = ManualClock()
    audit = AuditBook(database, clock)
    return Archive.as_reader(tmp_path, database, ArchiveSettings(), clock, FactLog(clock), audit)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no other work on the machine decide which way a question goes."""
    monkeypatch.setattr("pacsteward.base.db.look.PATIENCE_S", 10.0)
    monkeypatch.setattr(find, "AT_ONCE_S", 10.0)


@pytest.fixture(autouse=True)
def catalogue(index: Any) -> None:
    for number in range(AT_ONCE_MAX + 5):
        study = index.study(
            f"1.2.{number}",
            patient_id="MANY" if number else "ONE",
            patient_name=f"Doe^{number}",
            study_date="20260101",
            accession_number=f"A{number}",
        )
        series = index.series(f"1.2.{number}.1", study, modality="CT")
        index.instance(f"1.2.{number}.1.1", series)


def query(level: Level = Level.STUDY, *, returns: tuple[int, ...] = RETURNS, **keys: str) -> Query:
    tags = {tag_of(name): text for name, text in keys.items()}
    criteria = {tag: parse_criterion(tag, vr_of(tag), text) for tag, text in tags.items()}
    return Query(level, criteria, returns=returns)


@pytest.mark.parametrize(
    "asked",
    [
        query(PatientID="ONE"),
        query(AccessionNumber="A3"),
        query(AccessionNumber="A3", StudyDate="20260101-"),
        query(AccessionNumber="A3", StudyDate="20260102-"),
        query(Modality="CT", SeriesInstanceUID="1.2.7.1"),
        query(StudyInstanceUID="1.2.3\\1.2.4\\1.2.99"),
        query(PatientID="nobody"),
        query(PatientName="Doe^3"),
        query(PatientName="DOE^2*"),
        query(PatientName="doe^?"),
        query(PatientName="doe^1?"),
        query(PatientName="doe^2*4"),
        query(PatientName="nobody*"),
        query(Level.PATIENT, PatientName="doe^3*", returns=(tag_of("PatientID"),)),
        replace(query(PatientName="doe^1*"), offset=3, limit=4),
        replace(query(PatientName="doe^1*"), offset=3, limit=40),
        replace(query(PatientID="ONE"), offset=1),
        query(Level.SERIES, SeriesInstanceUID="1.2.7.1"),
        query(Level.IMAGE, StudyInstanceUID="1.2.7", SOPInstanceUID="1.2.7.1.1"),
    ],
)
def test_what_stands_in_few_rows_is_found_as_by_the_archive(
    asked: Query, finder: Finder, archive: Archive
) -> None:
    # To a server the first question of a process connects, and that is not done on a loop.
    expected = list(archive.find(asked))
    assert archive.find_at_once(asked) == expected
    assert expected == [Match(found.values) for found in finder.find(asked)]


@pytest.mark.parametrize(
    "asked",
    [
        query(PatientID="MANY"),
        query(StudyDate="20260101"),
        query(PatientName="Doe^*"),
        query(PatientName="do*"),
        query(PatientName="*oe^3"),
        query(PatientName="Doe^3", StudyDate="20260101"),
        query(PatientName="*"),
        query(AccessionNumber="A*"),
        query(),
        query(AccessionNumber="A3", returns=(tag_of("KVP"),)),
    ],
)
def test_what_may_take_longer_is_left_to_the_archive(asked: Query, archive: Archive) -> None:
    list(archive.find(query(PatientID="ONE")))
    assert archive.find_at_once(query(PatientID="ONE"))
    with pytest.raises(WouldWait):
        archive.find_at_once(asked)


def test_a_full_text_table_is_left_to_the_archive(archive: Archive, database: Database) -> None:
    """It is the embedded database's, and may go through long lists."""
    asked = query(AccessionNumber="A3", PatientName="*oe^3*")
    expected = list(archive.find(asked))
    assert len(expected) == 1
    if database.is_sqlite:
        with pytest.raises(WouldWait):
            archive.find_at_once(asked)
    else:
        assert archive.find_at_once(asked) == expected


def test_a_name_in_more_than_one_script_is_found_from_the_moment_it_is_there(
    archive: Archive, index: Any
) -> None:
    asked = query(PatientName="yama*")
    assert not list(archive.find(asked))
    assert archive.find_at_once(asked) == []
    study = index.study("1.3.1", patient_id="Y", patient_name="山田^太郎=Yamada^Tarou")
    index.instance("1.3.1.1.1", index.series("1.3.1.1", study, modality="CT"))
    assert [match.values[tag_of("StudyInstanceUID")] for match in archive.find(asked)] == ["1.3.1"]
    assert archive.count(asked) == 1
    # From now on every name may be written in several ways, and that takes longer.
    with pytest.raises(WouldWait):
        archive.find_at_once(asked)


@pytest.mark.parametrize("table", ["patient", "study"])
def test_names_in_more_than_one_script_have_an_index_of_their_own(
    database: Database, table: str
) -> None:
    """Whether there are any is asked before each search for a name."""
    with database.read() as connection:
        names = {one["name"] for one in inspect(connection).get_indexes(table)}
    assert f"ix_{table}_patient_name_words_groups" in names


def test_a_database_that_is_far_away_is_not_asked_on_a_loop(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(archive.find(query(PatientID="ONE")))
    monkeypatch.setattr(Database, "is_near", False)
    with pytest.raises(WouldWait):
        archive.find_at_once(query(PatientID="ONE"))


def test_nothing_is_found_at_once_before_all_is_indexed_that_was_acknowledged(
    archive: Archive, tmp_path: Path
) -> None:
    list(archive.find(query(PatientID="ONE")))
    watermark = Watermark(tmp_path / "run")
    watermark.landed = 1
    with pytest.raises(WouldWait):
        archive.find_at_once(query(PatientID="ONE"))
    watermark.indexed = 1
    assert len(archive.find_at_once(query(PatientID="ONE"))) == 1


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_question_that_takes_too_long_is_left_to_the_archive(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pacsteward.base.db.look._STEPS_ON_A_LOOP", 1)
    list(archive.find(query(PatientID="ONE")))
    assert archive.find_at_once(query(PatientID="ONE"))
    monkeypatch.setattr(find, "AT_ONCE_S", -1.0)
    with pytest.raises(WouldWait):
        archive.find_at_once(query(PatientID="ONE"))
