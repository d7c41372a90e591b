"""Values that BulkDataURIs name, from every encoding an object may be stored in."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomIO
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    MPEG4HP41,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
)

from pacsteward.archive.bulk import IN_MEMORY_MAX, BulkData, format_path, locate, parse_path
from pacsteward.base.errors import Exhausted, NotFound, Unsupported
from pacsteward.dicom.elements import DataSetReader

LUT = np.arange(300, dtype="<u2").tobytes()
PIXELS = np.arange(64, dtype="<u2").tobytes()


def image() -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    dataset.SOPInstanceUID = "1.2.3"
    dataset.Rows = dataset.Columns = 8
    dataset.BitsAllocated = 16
    dataset.SamplesPerPixel = 1
    item = Dataset()
    item.add_new(0x00283006, "OW", LUT)
    dataset.VOILUTSequence = [Dataset(), item]
    dataset.add_new(0x7FE00010, "OW", PIXELS)
    return dataset


def written(dataset: Dataset, transfer_syntax_uid: str = ExplicitVRLittleEndian) -> bytes:
    buffer = BytesIO()
    writer = DicomIO(buffer)
    writer.is_little_endian = UID(transfer_syntax_uid).is_little_endian
    writer.is_implicit_VR = UID(transfer_syntax_uid).is_implicit_VR
    write_dataset(writer, dataset)
    return buffer.getvalue()


def bulk(data: bytes, transfer_syntax_uid: str, path: str) -> tuple[bytes, BulkData]:
    def read(offset: int, length: int) -> bytes:
        return data[offset : offset + length]

    found = locate(read, len(data), transfer_syntax_uid, path)
    value = found.read(read)
    assert len(value) == found.length
    assert found.read(read, 3, 5) == value[3:8]
    return value, found


def swapped(data: bytes) -> bytes:
    return np.frombuffer(data, "<u2").byteswap().tobytes()


@pytest.mark.parametrize(
    "transfer_syntax_uid", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian]
)
def test_c36_a_value_inside_a_sequence_is_found_in_every_encoding(
    transfer_syntax_uid: str,
) -> None:
    dataset = image()
    if transfer_syntax_uid == ExplicitVRBigEndian:
        dataset.VOILUTSequence[1][0x00283006].value = swapped(LUT)
        dataset.PixelData = swapped(PIXELS)
    data = written(dataset, transfer_syntax_uid)
    assert bulk(data, transfer_syntax_uid, "00283010/1/00283006")[0] == LUT
    assert bulk(data, transfer_syntax_uid, "7FE00010")[0] == PIXELS
    assert bulk(data, transfer_syntax_uid, "7fe00010")[1].media_type == "application/octet-stream"


def test_c54_a_deflated_object_gives_its_values_inflated() -> None:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    data = compressor.compress(written(image())) + compressor.flush()
    assert bulk(data, DeflatedExplicitVRLittleEndian, "00283010/1/00283006")[0] == LUT


def test_c43_a_document_bears_its_own_media_type_and_length() -> None:
    dataset = Dataset()
    dataset.EncapsulatedDocument = b"%PDF-1.7 odd!"
    dataset.MIMETypeOfEncapsulatedDocument = "application/pdf"
    dataset.EncapsulatedDocumentLength = 13
    value, found = bulk(written(dataset), ExplicitVRLittleEndian, "00420011")
    assert (value, found.media_type) == (b"%PDF-1.7 odd!", "application/pdf")


def test_a_media_type_that_is_none_is_not_passed_on() -> None:
    dataset = Dataset()
    dataset.EncapsulatedDocument = b"<script>"
    dataset.MIMETypeOfEncapsulatedDocument = "text/html\r\nX-Evil: 1"
    _, found = bulk(written(dataset), ExplicitVRLittleEndian, "00420011")
    assert found.media_type == "application/octet-stream"


def test_c44_a_film_is_one_stream_of_its_own_media_type() -> None:
    dataset = image()
    dataset.NumberOfFrames = 100
    film = [bytes(range(256)) * 4, b"\1\2\3\4" * 100]
    dataset.PixelData = encapsulate(film, has_bot=False)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    value, found = bulk(written(dataset), MPEG4HP41, "7FE00010")
    assert (value, found.media_type) == (b"".join(film), "video/mp4")
    assert len(found.spans) == 2


def test_a_single_compressed_frame_is_an_image() -> None:
    original = dcmread(get_testdata_file("SC_rgb_jpeg_dcmtk.dcm"))
    data = written(original, JPEGBaseline8Bit)
    value, found = bulk(data, JPEGBaseline8Bit, "7FE00010")
    assert found.media_type == "image/jpeg"
    assert value.startswith(b"\xff\xd8")


def test_what_stands_behind_compressed_pixel_data_is_found_too() -> None:
    dataset = image()
    dataset.NumberOfFrames = 2
    dataset.PixelData = encapsulate([b"\xff\xd8\xff\xd9"] * 2)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.add_new(0xCB0D0010, "LO", "ACME")
    dataset.add_new(0xCB0D1001, "OB", b"behind")
    assert bulk(written(dataset), JPEGBaseline8Bit, "CB0D1001")[0] == b"behind"


def test_several_compressed_frames_are_not_joined() -> None:
    dataset = image()
    dataset.NumberOfFrames = 2
    dataset.PixelData = encapsulate([b"\xff\xd8\xff\xd9"] * 2)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    with pytest.raises(Unsupported, match="frames"):
        bulk(written(dataset), JPEGBaseline8Bit, "7FE00010")


@pytest.mark.parametrize(
    "path",
    [
        "", "00283010", "00283010/7/00283006", "00283010/1", "00283010/1/00283010", "x", "../..",
        "7FE00010/0/00283006", "00280010/0/00283006", "00990010", "00283010/-1/00283006",
        "00283010/99999999999/00283006",
    ],
)  # fmt: skip
def test_a_path_that_names_nothing_is_not_found(path: str) -> None:
    with pytest.raises(NotFound, match="no such bulk data"):
        bulk(written(image()), ExplicitVRLittleEndian, path)


def test_paths_are_written_as_they_are_read() -> None:
    assert format_path(parse_path("52009229/0/00209116/12/00189087")) == (
        "52009229/0/00209116/12/00189087"
    )


def test_a_value_that_must_be_converted_and_is_huge_is_refused_and_one_that_lies_is_not() -> None:
    size = IN_MEMORY_MAX + 2
    for prefix, syntax in (("<", "1.2.840.10008.1.2.1"), (">", "1.2.840.10008.1.2.2")):
        data = struct.pack(f"{prefix}HH2sHI", 0x11, 0x1001, b"OW", 0, size) + bytes(size)
        read = DataSetReader.over(data).value
        if prefix == ">":
            with pytest.raises(Exhausted, match="converted"):
                locate(read, len(data), syntax, "00111001")
        else:
            assert locate(read, len(data), syntax, "00111001").length == size


def test_a_value_of_a_deflated_object_is_inflated_in_little_memory(tmp_path: Path) -> None:
    size = 48 << 20
    data = struct.pack("<HH2sHI", 0x11, 0x1001, b"OB", 0, size) + bytes(size)
    data += struct.pack("<HH2sH", 0x11, 0x1002, b"LO", 4) + b"last"
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(data) + packer.flush()
    read = DataSetReader.over(packed).value
    tracemalloc.start()
    found = locate(read, len(packed), "1.2.840.10008.1.2.1.99", "00111002", scratch=tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.value == b"last"
    assert peak < 24 << 20
