"""What the tests with other implementations share: an image, its bytes, both sides of a call."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from itertools import count

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.uid import UID
from pynetdicom import AE
from tests.support.scu import steady

from pacsteward.base.ids import Uid
from pacsteward.dicom.dimse import (
    Answer,
    CommandField,
    ProposedContext,
    Service,
    SubOperations,
    connect,
)
from pacsteward.dicom.dimse.test_support import (
    CT,
    EXPLICIT,
    IMPLICIT,
    OURS,
    STUDY_GET,
    THEIRS,
    House,
    service_of,
)


def ct(number: int = 1, syntax: str = EXPLICIT) -> Dataset:
    image = Dataset()
    image.SOPClassUID = CT
    image.SOPInstanceUID = f"1.2.3.{number}"
    image.StudyInstanceUID = "1.2.3"
    image.SeriesInstanceUID = "1.2.3.0"
    image.PatientID = "P1"
    image.PatientName = "TEST^OBJECT"
    image.StudyID = ""
    image.Modality = "CT"
    image.Rows = image.Columns = 128
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit = 15
    image.SamplesPerPixel = 1
    image.PixelRepresentation = 0
    image.PhotometricInterpretation = "MONOCHROME2"
    image.PixelData = bytes(range(256)) * 128
    image["PixelData"].VR = "OW"
    image.ensure_file_meta()
    image.file_meta.TransferSyntaxUID = UID(syntax)
    image.file_meta.MediaStorageSOPClassUID = CT
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    return image


def encoded(data_set: Dataset, syntax: str = EXPLICIT) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian = True
    buffer.is_implicit_VR = syntax == IMPLICIT
    write_dataset(buffer, data_set)
    return buffer.getvalue()


def decoded(data: bytes, syntax: str = EXPLICIT) -> Dataset:
    return read_dataset(BytesIO(data), syntax == IMPLICIT, True)


def scu(*contexts: tuple[str, list[str]]) -> AE:
    ae = AE(ae_title=THEIRS)
    for abstract, syntaxes in contexts:
        ae.add_requested_context(abstract, syntaxes)
    return ae


def associate(ae: AE, home: House, **arguments):
    association = ae.associate("127.0.0.1", home.port, ae_title=OURS, **arguments)
    assert association.is_established
    return steady(association)


async def studies(request, data_set):
    key = decoded(data_set)
    assert key.QueryRetrieveLevel == "STUDY"
    for number in range(500) if key.PatientID != "ENDLESS" else count():
        if request.is_cancelled():
            yield Answer(0xFE00)
            return
        match = Dataset()
        match.QueryRetrieveLevel = "STUDY"
        match.StudyInstanceUID = f"1.2.3.{number}"
        yield Answer(0xFF00, data_set=encoded(match))
        await asyncio.sleep(0)
    yield Answer(0x0000)


def study_key(patient_id: str = "") -> Dataset:
    key = Dataset()
    key.QueryRetrieveLevel = "STUDY"
    key.PatientID = patient_id
    key.StudyInstanceUID = ""
    return key


def get_service(objects: list[Dataset]) -> Service:
    async def retrieve(request, _data_set):
        by_syntax = {c.transfer_syntax: c for c in request.channel.contexts if c.as_scp}
        done = 0
        for image in objects:

            async def chunks(image=image):
                data = encoded(image)
                for at in range(0, len(data), 10_001):
                    yield memoryview(data)[at : at + 10_001]

            status, _comment = await request.channel.store(
                by_syntax[EXPLICIT].context_id, CT, Uid(image.SOPInstanceUID), chunks()
            )
            done += status == 0
            remaining = len(objects) - done
            yield Answer(0xFF00, sub_operations=SubOperations(remaining, done, 0, 0))
        yield Answer(0, sub_operations=SubOperations(None, done, 0, 0))

    return service_of(retrieve, CommandField.C_GET, STUDY_GET, "retrieve")


@contextmanager
def scp(handlers: list, *contexts: tuple[str, list[str]], **roles) -> Iterator[int]:
    ae = AE(ae_title=THEIRS)
    ae.require_called_aet = True
    ae.maximum_pdu_size = 5000
    for abstract, syntaxes in contexts:
        ae.add_supported_context(abstract, syntaxes, **roles)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()


def call(port: int, *contexts: ProposedContext, **arguments):
    arguments = {"called": THEIRS, "calling": OURS, "timeout_s": 5.0} | arguments
    return connect("127.0.0.1", port, contexts=contexts, **arguments)
