"""What is said of a study that did not get to a peer, and what a peer is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.events import EVT_C_FIND, EVT_C_GET, EVT_DIMSE_RECV, Event
from tests.support.ports import free_port

from pacsteward.archive import ArchiveSettings
from pacsteward.base.errors import Unavailable, Unsupported
from pacsteward.base.ids import AeTitle
from pacsteward.base.settings import load
from pacsteward.dicom.settings import DicomSettings
from pacsteward.dicom.uids import (
    JPEG_2000,
    JPEG_2000_LOSSLESS,
    JPEG_LOSSLESS_SV1,
    STORAGE_SOP_CLASSES,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
)
from pacsteward.feature import House
from pacsteward.features.retrieve.elsewhere import (
    _sop_classes,
    _storage_contexts,
    fetch_study,
    send_study,
)
from pacsteward.features.retrieve.settings import RetrieveSettings
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


@pytest.mark.parametrize("how", ["move", "get"])
def test_a_peer_that_takes_no_such_request_is_said_to(
    house: House, how: Literal["move", "get"]
) -> None:
    """Also where it takes the classes that are offered beside C-GET, and where it has no C-FIND."""
    other = AE("OTHER")
    other.add_supported_context(CT, scu_role=True, scp_role=True)
    port = free_port()
    server = other.start_server(("127.0.0.1", port), block=False)
    try:
        house.peers.add(Peer("OTHER", "127.0.0.1", port))
        with pytest.raises(Unsupported, match="OTHER does not take SOP class"):
            fetch_study(house, "1.2.99", "OTHER", how)
    finally:
        server.shutdown()


def test_an_object_that_is_fetched_may_be_as_large_as_any_other(house: House) -> None:
    """The archive's own limit holds for C-GET, too; the peer is not told to try again (A700)."""
    small = load(
        [ArchiveSettings, DicomSettings, RetrieveSettings],
        environ={},
        overrides={"archive.largest_object_bytes": 1024**2},
    )
    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = CT, "1.2.99.1"
    image.add_new(0x7FE00010, "OW", bytes(1024**2))
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian

    def get(_event: Event) -> Iterator[Any]:
        yield 1
        yield 0xFF00, image

    said: list[int] = []

    def note(event: Event) -> None:
        answer = event.message.command_set
        if answer.CommandField == 0x8001:
            said.append(answer.Status)

    other = AE("OTHER")
    other.add_supported_context(STUDY_ROOT_GET)
    other.add_supported_context(CT, scu_role=True, scp_role=True)
    port = free_port()
    server = other.start_server(
        ("127.0.0.1", port),
        block=False,
        evt_handlers=[(EVT_C_GET, get), (EVT_DIMSE_RECV, note)],
    )
    try:
        house.peers.add(Peer("OTHER", "127.0.0.1", port))
        with pytest.raises(Unavailable):
            fetch_study(replace(house, settings=small), "1.2.99", "OTHER", "get")
    finally:
        server.shutdown()
    assert said == [0xA900]
