"""C-MOVE against a destination that misbehaves: every object is counted, none stops the rest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import CTImageStorage, StudyRootQueryRetrieveInformationModelMove

from tests.support.ports import free_port
from tests.support.product import Product
from tests.support.samples import pretend_orders
from tests.support.scu import steady

pytestmark = pytest.mark.journey

Hospital = tuple[Product, list[Path]]


@contextmanager
def _sink(product: Product, answer, *, name: str = "FUSSY") -> Iterator[None]:  # type: ignore[no-untyped-def]
    """A registered destination that answers each C-STORE with what `answer(event)` returns."""
    ae = AE(ae_title=name)
    ae.add_supported_context(CTImageStorage, "1.2.840.10008.1.2.1")
    port = free_port()
    server = ae.start_server(
        ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, answer)]
    )
    product.run("peers", "add", name, "127.0.0.1", str(port))
    try:
        yield
    finally:
        product.run("peers", "remove", name)
        server.shutdown()


def _move(product: Product, destination: str, study: str, **wanted: str) -> list[Dataset]:
    """Ask for a study to be moved; return the command sets of all answers, identifiers joined."""
    identifier = Dataset()
    identifier.QueryRetrieveLevel = "STUDY"
    identifier.StudyInstanceUID = study
    for keyword, value in wanted.items():
        setattr(identifier, keyword, value)
    ae = AE(ae_title="ASKER")
    ae.add_requested_context(StudyRootQueryRetrieveInformationModelMove)
    association = steady(ae.associate("127.0.0.1", product.dimse_port))
    assert association.is_established
    answers = []
    for status, data in association.send_c_move(
        identifier, destination, StudyRootQueryRetrieveInformationModelMove
    ):
        status.failed = getattr(data, "FailedSOPInstanceUIDList", None) if data else None
        answers.append(status)
    association.release()
    return answers


def test_c84_one_refused_suboperation_does_not_stop_a_move(hospital: Hospital) -> None:
    product, _ = hospital
    order = pretend_orders()[0]
    refused = f"{order.study_instance_uid}.1.2"
    seen: list[str] = []

    def answer(event) -> int:  # type: ignore[no-untyped-def]
        uid = str(event.request.AffectedSOPInstanceUID)
        seen.append(uid)
        return 0xA700 if uid == refused else 0x0000

    with _sink(product, answer):
        answers = _move(product, "FUSSY", order.study_instance_uid)
    final = answers[-1]
    assert final.Status == 0xB000
    assert (final.NumberOfCompletedSuboperations, final.NumberOfFailedSuboperations) == (23, 1)
    assert "NumberOfRemainingSuboperations" not in final
    assert final.failed == refused
    assert len(set(seen)) == 24


def test_c83_pending_answers_carry_all_four_counters(hospital: Hospital) -> None:
    import time

    product, _ = hospital

    def slowly(_event) -> int:  # type: ignore[no-untyped-def]
        time.sleep(0.05)
        return 0

    with _sink(product, slowly):
        answers = _move(product, "FUSSY", pretend_orders()[0].study_instance_uid)
    pending = [answer for answer in answers if answer.Status == 0xFF00]
    assert pending
    for answer in pending:
        assert answer.NumberOfRemainingSuboperations + answer.NumberOfCompletedSuboperations == 24
        assert answer.NumberOfFailedSuboperations == answer.NumberOfWarningSuboperations == 0
    assert answers[-1].Status == 0x0000


def test_c85_nothing_could_be_sent_is_answered_a702(hospital: Hospital) -> None:
    product, _ = hospital
    product.run("peers", "add", "GONE", "127.0.0.1", str(free_port()))
    answers = _move(product, "GONE", pretend_orders()[1].study_instance_uid)
    product.run("peers", "remove", "GONE")
    assert answers[-1].Status == 0xA702
    assert answers[-1].NumberOfFailedSuboperations == 1
    assert answers[-1].ErrorComment


def test_c86_a_class_that_the_destination_does_not_take_fails_alone(hospital: Hospital) -> None:
    product, _ = hospital
    chest = pretend_orders()[1]
    with _sink(product, lambda _event: 0x0000):
        answers = _move(product, "FUSSY", chest.study_instance_uid)
    assert answers[-1].Status == 0xA702
    assert answers[-1].failed == f"{chest.study_instance_uid}.1.1"


def test_c88_suboperations_name_the_one_who_asked(hospital: Hospital) -> None:
    product, _ = hospital
    named: set[tuple[str, bool]] = set()
    callers: set[str] = set()

    def answer(event) -> int:  # type: ignore[no-untyped-def]
        request = event.request
        callers.add(event.assoc.requestor.ae_title)
        named.add(
            (
                str(request.MoveOriginatorApplicationEntityTitle).strip(),
                bool(request.MoveOriginatorMessageID),
            )
        )
        return 0x0000

    with _sink(product, answer):
        _move(product, "FUSSY", pretend_orders()[0].study_instance_uid)
    assert named == {("ASKER", True)}
    # Whatever the asker called us: a destination knows us by our own name.
    assert callers == {"PACSTEWARD"}


def test_f014_a_cancelled_move_stops_and_says_so(hospital: Hospital) -> None:
    import time

    product, _ = hospital
    seen: list[int] = []

    def slowly(_event) -> int:  # type: ignore[no-untyped-def]
        time.sleep(0.15)
        seen.append(1)
        return 0x0000

    identifier = Dataset()
    identifier.QueryRetrieveLevel = "STUDY"
    identifier.StudyInstanceUID = pretend_orders()[0].study_instance_uid
    ae = AE(ae_title="ASKER")
    ae.add_requested_context(StudyRootQueryRetrieveInformationModelMove)
    with _sink(product, slowly):
        association = steady(ae.associate("127.0.0.1", product.dimse_port))
        statuses = []
        model = StudyRootQueryRetrieveInformationModelMove
        for status, _data in association.send_c_move(identifier, "FUSSY", model, msg_id=7):
            statuses.append(status.Status)
            if len(statuses) == 1:
                association.send_c_cancel(7, query_model=model)
        association.release()
    assert statuses[-1] == 0xFE00
    assert len(seen) < 24


def test_c85_a_study_that_is_not_here_is_success_with_nothing_done(hospital: Hospital) -> None:
    product, _ = hospital
    with _sink(product, lambda _event: 0x0000):
        answers = _move(product, "FUSSY", "2.25.1234")
    assert answers[-1].Status == 0x0000
    assert answers[-1].NumberOfCompletedSuboperations == 0
