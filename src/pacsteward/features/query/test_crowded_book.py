"""Searches while the audit book takes nothing: no event loop waits for it, no memory fills up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.filebase import DicomIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ImplicitVRLittleEndian
from starlette.requests import Request
from tests.support.full_disk import FullDisk
from tests.support.scu import FIND

from pacsteward.base.errors import Unavailable, WouldWait
from pacsteward.dicom.attributes import Level
from pacsteward.feature import House
from pacsteward.features.query import dicomweb, dimse
from pacsteward.security import HOUSE, audit_later

CROWD = 5


@pytest.fixture(autouse=True)
def crowd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `CROWD` entries at most wait."""
    monkeypatch.setattr(audit_later, "WAITING_MAX", CROWD)


@pytest.fixture
def disk(house: House, monkeypatch: pytest.MonkeyPatch) -> Iterator[FullDisk]:
    disk = FullDisk(house.database, monkeypatch)
    yield disk
    disk.is_full = False


@pytest.fixture
def writers(house: House, monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Note which threads wrote entries down, or tried to."""
    found: set[int] = set()
    write = house.audit._later._record

    def noted(entries: Any) -> None:
        found.add(threading.get_ident())
        write(entries)

    monkeypatch.setattr(house.audit._later, "_record", noted)
    return found


def statuses(house: House) -> list[int]:
    """Ask by C-FIND; return the statuses of the answers."""
    request: Any = SimpleNamespace(
        affected_sop_class_uid=FIND,
        caller=SimpleNamespace(calling_ae_title="WS1", address="192.0.2.8"),
        context=SimpleNamespace(transfer_syntax=ImplicitVRLittleEndian),
        extended=b"",
        permissions=frozenset(),
        is_cancelled=lambda: False,
    )

    async def every() -> list[int]:
        return [
            answer.status
            async for answers in dimse.respond(house, request, identifier())
            for answer in answers
        ]

    return asyncio.run(every())


def identifier() -> bytes:
    keys = Dataset()
    keys.QueryRetrieveLevel = "STUDY"
    keys.PatientID = "nobody"
    stream = DicomIO(BytesIO())
    stream.is_little_endian, stream.is_implicit_VR = True, True
    write_dataset(stream, keys)
    return stream.parent.getvalue()


def fill(house: House) -> None:
    while not house.audit.is_crowded:
        house.audit.record_query(HOUSE, level="STUDY", keys=(), matches=0)


def test_a_search_of_the_web_leaves_a_crowded_book_to_a_thread(
    house: House, disk: FullDisk, writers: set[int], asked_by_web: Request
) -> None:
    at_once, search = dicomweb.search_at_once(Level.STUDY), dicomweb.search(Level.STUDY)
    assert at_once(house, asked_by_web).status_code == 204
    house.audit.close()
    writers.clear()
    disk.is_full = True
    fill(house)
    for _ in range(3):
        with pytest.raises(WouldWait):
            at_once(house, asked_by_web)
        assert threading.get_ident() not in writers
        with pytest.raises(Unavailable):
            search(house, asked_by_web)
        writers.discard(threading.get_ident())
    # Nobody was answered, so nobody is said to have been.
    assert house.audit._later.waiting == CROWD
    disk.is_full = False
    assert search(house, asked_by_web).status_code == 204
    assert at_once(house, asked_by_web).status_code == 204
    house.audit.close()
    assert house.audit.count() == 1 + CROWD + 2


def test_a_c_find_leaves_a_crowded_book_to_a_thread(
    house: House, disk: FullDisk, writers: set[int]
) -> None:
    disk.is_full = True
    fill(house)
    for _ in range(3):
        with pytest.raises(Unavailable):
            statuses(house)
    assert threading.get_ident() not in writers
    assert house.audit._later.waiting == CROWD
    disk.is_full = False
    assert statuses(house) == [0]
    assert threading.get_ident() not in writers
    house.audit.close()
    assert house.audit.count() == CROWD + 1


def test_what_was_answered_is_recorded_although_the_book_became_crowded_meanwhile(
    house: House, disk: FullDisk, writers: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    find_at_once = house.archive.find_at_once

    def crowded_meanwhile(query: Any) -> Any:
        disk.is_full = True
        fill(house)
        return find_at_once(query)

    monkeypatch.setattr(house.archive, "find_at_once", crowded_meanwhile)
    assert statuses(house) == [0]
    assert threading.get_ident() not in writers
    assert house.audit._later.waiting == CROWD + 1
