"""Another archive is asked for its studies: what the audit book says of that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from pydicom import Dataset
from pynetdicom import AE
from pynetdicom.events import EVT_C_FIND, Event
from tests.support.console import PASSWORD, cheap_passwords, small_house, visitor
from tests.support.ports import free_port

from pacsteward.base.db import Database
from pacsteward.base.errors import Invalid, Unavailable
from pacsteward.base.jobs import JobKind, JobQueue
from pacsteward.dicom.uids import STUDY_ROOT_FIND
from pacsteward.feature import House
from pacsteward.features.query.elsewhere import Asked, find_elsewhere
from pacsteward.features.query.feature import FEATURE
from pacsteward.security import Actor, AuditEvent, AuditOutcome, Peer

ADA = Actor("person", "ada", frozenset({"*"}), "192.0.2.7")


def _answer(_event: Event) -> Iterator[tuple[int, Dataset | None]]:
    found = Dataset()
    found.StudyInstanceUID = "1.2.1"
    yield 0xFF00, found


def test_a_search_elsewhere_is_recorded_as_one_here_and_names_the_peer(house: House) -> None:
    """By the names of the keys, never by what was looked for: that may be a patient's name."""
    other = AE("OTHER")
    other.add_supported_context(STUDY_ROOT_FIND)
    port = free_port()
    server: Any = other.start_server(
        ("127.0.0.1", port), block=False, evt_handlers=[(EVT_C_FIND, _answer)]
    )
    try:
        house.peers.add(Peer("OTHER", "127.0.0.1", port))
        find_elsewhere(house, "OTHER", Asked("Yamada", study_date="20260101"), by=ADA)
    finally:
        server.shutdown()
    entry = house.audit.entries(limit=1)[0]
    assert (entry.event, entry.outcome) == (AuditEvent.QUERY, AuditOutcome.SUCCESS)
    assert (entry.actor, entry.address) == ("ada", "192.0.2.7")
    assert entry.what == "ada searched OTHER at STUDY level by PatientName, StudyDate: 1 answer."
    assert [(one.kind, one.object_id, one.query) for one in entry.objects] == [
        ("query", STUDY_ROOT_FIND, "PatientName, StudyDate"),
        ("peer", "OTHER", ""),
    ]
    assert [(one.name, one.role) for one in entry.participants] == [("OTHER", "destination")]


def test_a_search_that_the_peer_does_not_answer_is_recorded_as_failed(house: House) -> None:
    house.peers.add(Peer("GONE", "127.0.0.1", free_port()))
    with pytest.raises(Unavailable):
        find_elsewhere(house, "GONE", Asked(patient_id="P1"), by=ADA)
    entry = house.audit.entries(limit=1)[0]
    assert (entry.event, entry.outcome) == (AuditEvent.QUERY, AuditOutcome.SERIOUS_FAILURE)
    assert entry.what == "ada searched GONE at STUDY level by PatientID: no answer."


def test_what_nobody_was_asked_is_not_recorded_as_a_search(house: House) -> None:
    house.peers.add(Peer("GONE", "127.0.0.1", free_port()))
    with pytest.raises(Invalid):
        find_elsewhere(house, "GONE", Asked(), by=ADA)
    assert AuditEvent.QUERY not in {entry.event for entry in house.audit.entries()}


def test_a_fetch_names_who_ordered_it(
    house: House, sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job's entries in the audit book are theirs."""
    cheap_passwords(monkeypatch)
    built = small_house(sqlite_database, house.clock)
    queue = JobQueue(sqlite_database, house.clock, kinds=[JobKind("fetch_study", "Fetch")])
    built.access.add_person("ada", PASSWORD, ["administrator"])
    built.peers.add(Peer("OTHER", "127.0.0.1", 104))
    console = visitor(replace(built, jobs=queue), FEATURE).sign_in("ada")
    console.fill_in(
        "/elsewhere", "/elsewhere/fetch", peer="OTHER", study_instance_uid="1.2.1", how="get"
    )
    (job,) = queue.jobs()
    assert job.arguments["ordered_by"] == ["person", "ada", "127.0.0.1"]
    assert (job.arguments["source"], job.arguments["how"]) == ("OTHER", "get")
