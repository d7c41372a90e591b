"""What the audit book says of studies that are sent to a peer or fetched from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.events import EVT_C_MOVE, EVT_C_STORE, Event
from tests.support.full_disk import FullDisk
from tests.support.ports import free_port

from pacsteward.archive import Selection
from pacsteward.base.clock import ManualClock
from pacsteward.base.errors import Unavailable
from pacsteward.base.jobs import JobEngine, Work
from pacsteward.dicom.uids import STUDY_ROOT_MOVE
from pacsteward.feature import House, Job
from pacsteward.features.retrieve import routes
from pacsteward.features.retrieve.elsewhere import fetch_study, send_study
from pacsteward.features.retrieve.jobs import FETCH_STUDY, SEND_STUDY
from pacsteward.features.retrieve.transfers import (
    Sending,
    record_fetching,
    record_leaving,
    sent,
)
from pacsteward.security import Actor, AuditEvent, AuditFilter, AuditOutcome, Peer, RecordedEntry

CT = "1.2.840.10008.5.1.4.1.1.2"
STUDY = "1.2.1"
ADA = Actor("person", "ada", frozenset({"*"}), "192.0.2.7")
BEGUN, ENDED = AuditEvent.BEGIN_TRANSFERRING, AuditEvent.INSTANCES_TRANSFERRED


@contextmanager
def _peer(house: House, handlers: list[tuple[Any, Callable[[Event], Any]]]) -> Iterator[None]:
    """Register OTHER, which takes CT images and questions by C-MOVE, and let it serve."""
    other = AE("OTHER")
    other.add_supported_context(CT)
    other.add_supported_context(STUDY_ROOT_MOVE)
    other.add_requested_context(CT)
    port = free_port()
    server = other.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
    try:
        house.peers.add(Peer("OTHER", "127.0.0.1", port))
        yield
    finally:
        server.shutdown()


def _run(house: House, job: Job) -> None:
    """Run the jobs of a kind that are due, as the jobs process does."""
    JobEngine(house.database, [Work(job.kind, partial(job.run, house))], house.clock).drain()


def _entries(house: House) -> list[RecordedEntry]:
    """Return what tells of transfers, the oldest first."""
    found = [one for one in house.audit.entries() if one.event in (BEGUN, ENDED)]
    return found[::-1]


def test_the_end_of_a_sending_says_how_much_arrived(house: House) -> None:
    answers = iter([0xA700, 0x0000])
    with _peer(house, [(EVT_C_STORE, lambda _event: next(answers))]), pytest.raises(Unavailable):
        send_study(house, STUDY, "OTHER", by=ADA)
    begun, ended = _entries(house)
    assert (begun.event, begun.outcome) == (BEGUN, AuditOutcome.SUCCESS)
    assert begun.what == "ada has 2 instances sent to OTHER."
    assert (ended.event, ended.outcome) == (ENDED, AuditOutcome.MINOR_FAILURE)
    assert ended.what == "ada had 1 of 2 instances sent to OTHER. 1 failed."
    assert [(one.kind, one.object_id, one.number_of_instances) for one in ended.objects] == [
        ("study", STUDY, 1),
        ("patient", "P1", None),
    ]
    assert [(one.name, one.role) for one in ended.participants] == [("OTHER", "destination")]


def test_a_sending_of_which_all_arrived_is_a_success(house: House) -> None:
    """A peer that has the object already, or changed it, has it (B000, 0111)."""
    answers = iter([0xB000, 0x0111])
    with _peer(house, [(EVT_C_STORE, lambda _event: next(answers))]):
        send_study(house, STUDY, "OTHER", by=ADA)
    ended = _entries(house)[-1]
    assert (ended.outcome, ended.objects[0].number_of_instances) == (AuditOutcome.SUCCESS, 2)
    assert ended.what == "ada had 2 of 2 instances sent to OTHER."


@pytest.mark.parametrize(
    ("tried", "counts"),
    [(1, {STUDY: None, "1.2.2": None}), (2, {STUDY: 0, "1.2.2": 1})],
)
def test_instances_that_arrived_are_counted_by_study_while_that_is_known(
    house: House, tried: int, counts: dict[str, int | None]
) -> None:
    """Of a sending that is broken off nobody knows which were on the wire."""
    one, two = house.archive.instances(Selection(study_instance_uids=(STUDY,)))
    sending = Sending(ADA, [one, replace(two, study_instance_uid="1.2.2")], "OTHER")
    with sent(house.audit, sending) as tally:
        for instance, status in list(zip(sending.instances, (0xA700, 0), strict=True))[:tried]:
            tally.record(instance.sop_instance_uid, status)
    (ended,) = _entries(house)
    found = {one.object_id: one.number_of_instances for one in ended.objects}
    assert found == {**counts, "P1": None}


def test_each_attempt_of_a_job_names_the_job_and_who_ordered_it(
    house: House, clock: ManualClock
) -> None:
    """Two attempts are one deed; only the job that both name tells so."""
    accepted = routes.send(house, ADA, STUDY, routes.SendRequest(destination="GONE"))
    job = f"jobs/{accepted.job_id}"
    for _ in range(2):
        _run(house, SEND_STUDY)
        house.audit.catch_up()
        clock.advance(600)
    entries = house.audit.entries(AuditFilter(object_id=job))[::-1]
    assert [(one.event, one.actor, one.address) for one in entries] == [
        (BEGUN, "ada", "192.0.2.7"),
        (ENDED, "ada", "192.0.2.7"),
    ] * 2
    assert [one.what for one in entries] == [
        f"ada has 2 instances sent to GONE (job {accepted.job_id}, attempt 1).",
        f"ada had 0 of 2 instances sent to GONE (job {accepted.job_id}, attempt 1). 2 failed.",
        f"ada has 2 instances sent to GONE (job {accepted.job_id}, attempt 2).",
        f"ada had 0 of 2 instances sent to GONE (job {accepted.job_id}, attempt 2). 2 failed.",
    ]
    assert entries[-1].outcome is AuditOutcome.SERIOUS_FAILURE


def test_whoever_orders_what_waits_already_is_in_the_book_too(house: House) -> None:
    wanted = routes.SendRequest(destination="GONE")
    first, again = (routes.send(house, ADA, STUDY, wanted).job_id for _ in range(2))
    assert first == again
    ben = Actor("person", "ben", frozenset({"*"}), "192.0.2.8")
    routes.send(house, ben, STUDY, wanted)
    for _ in range(2):
        routes.fetch(house, ADA, STUDY, routes.FetchRequest(source="GONE"))
        routes.fetch(house, ben, STUDY, routes.FetchRequest(source="GONE"))
    _run(house, SEND_STUDY)
    _run(house, FETCH_STUDY)
    begun = [one for one in _entries(house) if one.event is BEGUN]
    assert sorted((one.actor, one.what.split(" (job")[0]) for one in begun) == [
        ("ada", "ada has 2 instances sent to GONE"),
        ("ada", "ada has a study fetched from GONE"),
        ("ben", "ben has 2 instances sent to GONE"),
        ("ben", "ben has a study fetched from GONE"),
    ]


def test_nothing_leaves_while_too_much_waits_for_the_book(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The beginning of a minute ago is enough for this one; its end needs room."""
    sending = Sending(ADA, house.archive.instances(Selection(study_instance_uids=(STUDY,))), "PACS")
    record_leaving(house.audit, sending)

    def fail(*_given: Any) -> None:
        raise Unavailable("The database is away.")

    monkeypatch.setattr("pacsteward.security.audit_later.WAITING_MAX", 1)
    with monkeypatch.context() as away:
        away.setattr("pacsteward.security.audit.audit_rows.append", fail)
        with sent(house.audit, sending):
            pass
        with pytest.raises(Unavailable):
            record_leaving(house.audit, sending)
    record_leaving(house.audit, sending)
    assert [one.event for one in _entries(house)] == [BEGUN, ENDED]


def test_nothing_is_fetched_while_too_much_waits_for_the_book(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk the beginning may wait in memory, as the end does; not ever more of them."""
    disk = FullDisk(house.database, monkeypatch)
    disk.is_full = True
    other = Peer("OTHER", "192.0.2.9", 104)
    record_fetching(house.audit, ADA, STUDY, other)
    monkeypatch.setattr("pacsteward.security.audit_later.WAITING_MAX", 1)
    with pytest.raises(Unavailable):
        record_fetching(house.audit, ADA, STUDY, other)
    disk.is_full = False
    record_fetching(house.audit, ADA, STUDY, other)
    assert [one.event for one in _entries(house)] == [BEGUN, BEGUN]


def test_a_job_of_an_earlier_version_is_put_down_to_the_house(house: House) -> None:
    with pytest.raises(Unavailable):
        SEND_STUDY.run(house, study_instance_uid=STUDY, destination="GONE")
    with pytest.raises(Unavailable):
        FETCH_STUDY.run(house, study_instance_uid="1.2.99", source="GONE")
    assert [one.actor_kind for one in _entries(house)] == ["house"] * 4


def test_a_fetch_is_recorded_with_who_ordered_it_and_what_the_peer_says(house: House) -> None:
    def move(_event: Event) -> Iterator[Any]:
        yield None, None  # it does not know us

    with _peer(house, [(EVT_C_MOVE, move)]):
        accepted = routes.fetch(house, ADA, "1.2.99", routes.FetchRequest(source="OTHER"))
        _run(house, FETCH_STUDY)
    begun, ended = _entries(house)
    assert (begun.actor, begun.address, begun.event) == ("ada", "192.0.2.7", BEGUN)
    assert begun.what == f"ada has a study fetched from OTHER (job {accepted.job_id}, attempt 1)."
    assert ended.outcome is AuditOutcome.SERIOUS_FAILURE
    assert ended.what.endswith("it says that it sent 0 instances, and that 0 failed.")
    assert {one.role for one in (*begun.participants, *ended.participants)} == {"source"}
    assert [one.object_id for one in ended.objects] == ["1.2.99", f"jobs/{accepted.job_id}"]


def test_a_fetch_that_succeeds_says_how_many_instances_the_peer_sent(house: House) -> None:
    taken = AE("PACSTEWARD")
    taken.add_supported_context(CT)
    port = free_port()
    server = taken.start_server(
        ("127.0.0.1", port), block=False, evt_handlers=[(EVT_C_STORE, lambda _event: 0x0000)]
    )

    def move(_event: Event) -> Iterator[Any]:
        yield "127.0.0.1", port, {"ae_title": "PACSTEWARD"}
        yield 1
        image = Dataset()
        image.SOPClassUID, image.SOPInstanceUID = CT, "1.2.99.1"
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        yield 0xFF00, image

    try:
        with _peer(house, [(EVT_C_MOVE, move)]):
            fetch_study(house, "1.2.99", "OTHER", by=ADA)
    finally:
        server.shutdown()
    ended = _entries(house)[-1]
    assert (ended.event, ended.outcome) == (ENDED, AuditOutcome.SUCCESS)
    assert ended.what == (
        "ada had a study fetched from OTHER: it says that it sent 1 instance, and that 0 failed."
    )
    assert ended.objects[0].number_of_instances == 1
