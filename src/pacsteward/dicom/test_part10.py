"""Promises of part10.py."""

from __future__ import annotations

from io import BytesIO

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file

from pacsteward.base.errors import Invalid, PacstewardError
from pacsteward.dicom.part10 import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    FileMeta,
    encode_part10_head,
    split_part10,
)

META = FileMeta(
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.3.4",
    "1.2.840.10008.1.2.1",
    source_application_entity_title="CT1",
)


def test_a_head_is_read_back_as_it_was_written() -> None:
    head = encode_part10_head(META)
    assert split_part10(head + b"data") == (META, len(head))
    assert split_part10(memoryview(head)) == (META, len(head))


def test_pydicom_reads_our_head() -> None:
    meta = pydicom.dcmread(BytesIO(encode_part10_head(META))).file_meta
    assert meta.MediaStorageSOPInstanceUID == "1.2.3.4"
    assert meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert meta.ImplementationVersionName == IMPLEMENTATION_VERSION_NAME
    assert meta.SourceApplicationEntityTitle == "CT1"
    assert meta.FileMetaInformationVersion == b"\0\1"
    assert meta.FileMetaInformationGroupLength == len(encode_part10_head(META)) - 144


def test_our_names_obey_their_limits() -> None:
    assert len(IMPLEMENTATION_CLASS_UID) <= 64
    assert len(IMPLEMENTATION_VERSION_NAME) <= 16


@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "JPEG2000.dcm", "rtplan.dcm", "ExplVR_BigEnd.dcm", "image_dfl.dcm"]
)
def test_files_are_split_where_pydicom_splits_them(name: str) -> None:
    path = get_testdata_file(name)
    assert isinstance(path, str)
    with open(path, "rb") as file:
        data = file.read()
    meta, offset = split_part10(data)
    theirs = pydicom.dcmread(path)
    assert meta.transfer_syntax_uid == theirs.file_meta.TransferSyntaxUID
    assert meta.media_storage_sop_instance_uid == theirs.file_meta.MediaStorageSOPInstanceUID
    assert data[offset : offset + 2] in (b"\x08\0", b"\0\x08") or name == "image_dfl.dcm"


def test_a_lost_preamble_does_not_matter() -> None:
    head = encode_part10_head(META)
    for lost in (128, 132):
        meta, offset = split_part10(head[lost:] + b"data")
        assert meta == META
        assert (head[lost:] + b"data")[offset:] == b"data"


def test_file_meta_without_transfer_syntax_means_the_default_of_dicom() -> None:
    meta = FileMeta("1.2", "1.3", "")
    assert split_part10(encode_part10_head(meta))[0].transfer_syntax_uid == "1.2.840.10008.1.2"


@pytest.mark.parametrize(
    "data",
    [
        b"", b"DICM", bytes(132), bytes(128) + b"DICM", b"\x89PNG" + bytes(200),
        encode_part10_head(META)[:200], b"\x08\0\x05\0CS\x0a\0ISO_IR 100",
    ],
)  # fmt: skip
def test_what_is_no_dicom_file_is_refused(data: bytes) -> None:
    with pytest.raises(Invalid):
        split_part10(data)


@settings(deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=8), st.integers(0, 300)
)
def test_damage_never_brings_it_down(changes: list[tuple[int, int]], end: int) -> None:
    data = bytearray(encode_part10_head(META) + bytes(20))
    for place, byte in changes:
        if place < len(data):
            data[place] = byte
    try:
        _, offset = split_part10(bytes(data[:end]))
    except PacstewardError:
        return
    assert offset <= end
