"""What needs a human, on the pages of a house with a real archive."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.filebase import DicomIO
from pydicom.filewriter import write_dataset
from sqlalchemy import insert
from tests.support.console import PASSWORD, Visitor, cheap_passwords, small_house, visitor

from pacsteward.archive import Archive, ArchiveSettings, Origin, Outcome, Selection
from pacsteward.archive.tables import SET_ASIDE
from pacsteward.base.clock import ManualClock
from pacsteward.base.db import Database
from pacsteward.base.events import FactLog
from pacsteward.dicom.part10 import FileMeta
from pacsteward.feature import House
from pacsteward.features.monitoring import attention, checks, figures
from pacsteward.features.monitoring.differences import compare
from pacsteward.features.monitoring.feature import FEATURE
from pacsteward.security import AuditFilter
from pacsteward.security.actor import Actor

ADMIN = Actor("system", "setup", frozenset({"*"}))
EXPLICIT = "1.2.840.10008.1.2.1"


@pytest.fixture
def house(sqlite_database: Database, tmp_path: Path, clock: ManualClock) -> Iterator[House]:
    """Give a house that takes instances in."""
    built = small_house(sqlite_database, clock)
    settings = ArchiveSettings(segment_bytes=8 << 20, prepared_segments=0, reserve_bytes=0)
    archive = Archive.as_keeper(
        tmp_path / "data", sqlite_database, settings, clock, FactLog(clock), built.audit
    )
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(archive.start(), loop).result(30)
    yield replace(built, archive=archive, rooms=(FEATURE,))
    asyncio.run_coroutine_threadsafe(archive.stop(), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def browser(house: House, monkeypatch: pytest.MonkeyPatch) -> Visitor:
    """Give a browser in which an administrator is signed in."""
    cheap_passwords(monkeypatch)
    house.access.add_person("anne", PASSWORD, ["administrator"])
    return visitor(house, FEATURE).sign_in("anne")


@pytest.fixture
def ct() -> Dataset:
    return dcmread(get_testdata_file("CT_small.dcm"))


def send(house: House, dataset: Dataset, source: str = "CT1") -> tuple[Outcome, bytes]:
    buffer = BytesIO()
    writer = DicomIO(buffer)
    writer.is_little_endian, writer.is_implicit_VR = True, False
    write_dataset(writer, dataset)
    meta = FileMeta(dataset.SOPClassUID, dataset.SOPInstanceUID, EXPLICIT)
    outcome = house.archive.store(Origin("dimse", source), meta, buffer.getvalue()).outcome
    return outcome, buffer.getvalue()


def conflict_of(house: House, ct: Dataset) -> tuple[bytes, bytes]:
    """Have CT1 send an object, and CT2 another under its UID; return both contents."""
    outcome, first = send(house, ct)
    assert outcome is Outcome.STORED
    ct.PatientName = "Somebody^Else"
    del ct.StudyDescription
    ct.add_new(0x00080050, "SH", "A4711")
    ct.OtherPatientIDsSequence[0].PatientID = "CHANGED"
    ct.PixelData = ct.PixelData[:-2] + b"\x12\x34"
    outcome, second = send(house, ct, "CT2")
    assert outcome is Outcome.CONFLICT
    return first, second


def test_of_very_many_the_latest_are_listed_and_all_are_counted(
    house: House, browser: Visitor, ct: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "LISTED_MAX", 2)
    send(house, ct)
    for number in range(3):
        ct.AccessionNumber = f"A{number}"
        assert send(house, ct, f"CT{number}")[0] is Outcome.CONFLICT
    page = browser.get("/attention").text
    assert "Conflicts (3)" in page
    assert "of 3 the latest 2 are listed" in page
    assert [name for name in ("CT0", "CT1", "CT2") if f">{name}<" in page] == ["CT1", "CT2"]
    assert checks.are_conflicts_settled(house).what.startswith("3 objects came")
    assert figures.needs_a_human(house) == 3


def test_nothing_needs_a_human_where_nothing_is_wrong(
    house: House, browser: Visitor, ct: Dataset
) -> None:
    send(house, ct)
    page = browser.get("/attention")
    assert page.status_code == 200
    assert "Nothing needs you" in page.text


def test_every_attribute_that_differs_is_shown_with_both_its_values(
    house: House, ct: Dataset
) -> None:
    ct.StudyDescription = "Head"
    conflict_of(house, ct)
    (conflict,) = house.archive.conflicts()
    found = compare(
        house.archive,
        house.archive.instance("", "", ct.SOPInstanceUID),
        house.archive.conflicting_instance(conflict.conflict_key),
    )
    assert found.is_readable
    assert not found.is_cut
    by_place = {one.place: (one.keyword, one.stored, one.other) for one in found.differences}
    size = f"{len(ct.PixelData):,} bytes".replace(",", "\u202f")
    assert by_place == {
        "(0008,0050)": ("AccessionNumber", "", "A4711"),
        "(0008,1030)": ("StudyDescription", "Head", None),
        "(0010,0010)": ("PatientName", "CompressedSamples, CT1", "Somebody, Else"),
        "(0010,1002)[1] (0010,0020)": (
            "OtherPatientIDsSequence › PatientID",
            "ABCD1234",
            "CHANGED",
        ),
        "(7FE0,0010)": ("PixelData", size, f"{size}, not the same ones"),
    }


def test_conflict_is_listed_compared_downloaded_and_written_into_the_audit_book(
    house: House, browser: Visitor, ct: Dataset
) -> None:
    ct.StudyDescription = "Head"
    _first, second = conflict_of(house, ct)
    (conflict,) = house.archive.conflicts()
    link = attention.page_of_conflict(conflict.conflict_key)
    listed = browser.get("/attention?kind=conflict&q=ct2").text
    assert f'href="{link}"' in listed
    assert f'href="/studies/{ct.StudyInstanceUID}"' in listed
    assert f'href="{link}"' not in browser.get("/attention?q=ct9").text
    assert f'href="{link}"' not in browser.get("/attention?kind=doubtful").text

    page = browser.get(link).text
    assert "CompressedSamples, CT1" in page
    assert "Somebody, Else" in page
    assert "CT1" in page
    assert "CT2" in page
    entries = house.audit.entries(AuditFilter(object_id=ct.StudyInstanceUID, actor="anne"))
    assert [entry.what for entry in entries] == ["anne opened a study."]

    got = browser.get(f"{link}/object.dcm")
    assert got.headers["content-type"] == "application/dicom"
    assert got.content[128:132] == b"DICM"
    assert got.content.endswith(second)
    assert dcmread(BytesIO(got.content)).PatientName == "Somebody^Else"
    assert browser.get("/attention/conflicts/4711").status_code == 404


def test_study_that_only_the_other_content_names_is_no_link(
    house: House, browser: Visitor, ct: Dataset
) -> None:
    send(house, ct)
    ct.StudyInstanceUID = "1.2.3.99"
    assert send(house, ct)[0] is Outcome.CONFLICT
    (conflict,) = house.archive.conflicts()
    for path in ("/attention", attention.page_of_conflict(conflict.conflict_key)):
        page = browser.get(path).text
        assert "1.2.3.99" in page
        assert "/studies/1.2.3.99" not in page


def test_conflict_with_what_was_rejected_can_still_be_opened(
    house: House, browser: Visitor, ct: Dataset
) -> None:
    conflict_of(house, ct)
    (conflict,) = house.archive.conflicts()
    only = Selection(sop_instance_uids=(ct.SOPInstanceUID,))
    assert house.archive.reject(only, code="113001^DCM", actor=ADMIN) == 1
    page = browser.get(attention.page_of_conflict(conflict.conflict_key))
    assert page.status_code == 200
    assert "Nothing is shown to readers under this UID" in page.text


def test_record_set_aside_is_listed_with_its_reason_and_downloaded(
    house: House, browser: Visitor, ct: Dataset
) -> None:
    _outcome, data = send(house, ct)
    place = house.archive.instance("", "", ct.SOPInstanceUID).location
    with house.database.write() as connection:
        key = connection.execute(
            insert(SET_ASIDE).values(
                sop_instance_uid='1.2.3"4',
                transfer_syntax_uid=EXPLICIT,
                why="It has no study.",
                received_at=house.clock.now(),
                container_kind=place.container_kind,
                container=place.container,
                generation=place.generation,
                offset=place.offset,
                length=place.length,
            )
        ).inserted_primary_key
    assert key is not None
    page = browser.get("/attention?kind=set-aside").text
    assert "It has no study." in page
    assert "1.2.3&#34;4" in page
    got = browser.get(f"/attention/set-aside/{key[0]}/object.dcm")
    assert got.status_code == 200
    assert got.content.endswith(data)
    assert got.headers["content-disposition"] == 'attachment; filename="1.2.3_4.dcm"'
    assert browser.get("/attention/set-aside/4711/object.dcm").status_code == 404


def test_findings_lead_to_what_they_count(house: House, browser: Visitor, ct: Dataset) -> None:
    ct.PatientID = ""
    conflict_of(house, ct)
    assert checks.are_conflicts_settled(house).what.startswith("1 object came")
    assert checks.are_patients_known(house).what.startswith("1 study does not say")
    doubtful = browser.get("/attention?kind=doubtful").text
    assert f'data-open-row href="/studies/{ct.StudyInstanceUID}"' in doubtful
    assert "The patient ID is missing." in doubtful
    assert {checks.are_conflicts_settled(house).link, checks.are_patients_known(house).link} == {
        "/attention?kind=conflict",
        "/attention?kind=doubtful",
    }
    assert [row.kind for row in attention.list_matters(house.archive)].count("conflict") == 1


def test_whoever_may_not_read_studies_sees_nothing_of_it(house: House, browser: Visitor) -> None:
    house.access.add_person("otto", PASSWORD, ["auditor"])
    browser.cookies.clear()
    browser.sign_in("otto")
    assert browser.get("/attention").status_code == 403
    assert browser.get("/attention/conflicts/1/object.dcm").status_code == 403
