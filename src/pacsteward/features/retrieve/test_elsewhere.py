"""What is said of a study that did not get to a peer, and what a peer is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from pydicom import Dataset
from pynetdicom import AE
from pynetdicom.events import EVT_C_FIND, Event
from tests.support.ports import free_port

from pacsteward.base.errors import Unavailable
from pacsteward.base.ids import AeTitle
from pacsteward.dicom.uids import (
    JPEG_2000,
    JPEG_2000_LOSSLESS,
    JPEG_LOSSLESS_SV1,
    STORAGE_SOP_CLASSES,
    STUDY_ROOT_FIND,
)
from pacsteward.feature import House
from pacsteward.features.retrieve.elsewhere import _sop_classes, _storage_contexts, send_study
from pacsteward.security import Peer

CT = "1.2.840.10008.5.1.4.1.1.2"
PET = "1.2.840.10008.5.1.4.1.1.128"
DOSE_REPORT = "1.2.840.10008.5.1.4.1.1.88.67"
PDF = "1.2.840.10008.5.1.4.1.1.104.1"
RT_STRUCTURES = "1.2.840.10008.5.1.4.1.1.481.3"


def test_nobody_is_told_that_it_is_sent_again_by_itself(house: House) -> None:
    """A command orders no job, and a job that was given up is not tried again either."""
    with pytest.raises(Unavailable, match=r"2 of 2 instances of study 1\.2\.1") as said:
        send_study(house, "1.2.1", "GONE")
    assert "again by" not in str(said.value)
    assert "Sending all of it again does no harm." in said.value.remedy
    assert house.jobs.jobs() == []


@pytest.mark.parametrize("count", [1, 18, 63, 64, 127, 300])
def test_each_class_is_offered_and_as_archives_hold_it_while_there_is_room(count: int) -> None:
    classes = [f"1.2.{number}" for number in range(count)]
    offers = _storage_contexts([*classes, *classes])
    assert len(offers) <= 127
    assert list(dict.fromkeys(one.abstract_syntax for one in offers)) == classes[:127]
    if count <= 18:
        offered = {
            (one.abstract_syntax, syntax) for one in offers for syntax in one.transfer_syntaxes
        }
        likely = (JPEG_LOSSLESS_SV1, JPEG_2000_LOSSLESS, JPEG_2000)
        assert {(uid, syntax) for uid in classes for syntax in likely} <= offered


def test_a_peer_that_does_not_tell_its_classes_is_offered_what_hospitals_make() -> None:
    """SOP Classes in Study (0008,0062) is an optional key, and not every peer has it."""

    def answer(_event: Event) -> Iterator[tuple[int, Dataset | None]]:
        found = Dataset()
        found.StudyInstanceUID = "1.2.1"
        yield 0xFF00, found

    archive = AE("SILENT")
    archive.add_supported_context(STUDY_ROOT_FIND)
    port = free_port()
    server = archive.start_server(
        ("127.0.0.1", port), block=False, evt_handlers=[(EVT_C_FIND, answer)]
    )
    try:
        peer = Peer("SILENT", "127.0.0.1", port)
        classes = asyncio.run(_sop_classes(peer, AeTitle("PACSTEWARD"), "1.2.1"))
    finally:
        server.shutdown()
    offered = {one.abstract_syntax for one in _storage_contexts(classes)}
    assert {CT, PET, DOSE_REPORT, PDF, RT_STRUCTURES} <= offered <= STORAGE_SOP_CLASSES.keys()
