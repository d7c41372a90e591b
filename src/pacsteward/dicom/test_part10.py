"""Promises of part10.py."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any

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
    _split,
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


def _meta_element(element: int, value: bytes, vr: bytes = b"UI") -> bytes:
    return struct.pack("<HH2sH", 2, element, vr, len(value)) + value


_USUAL = b"".join(
    (
        b"\2\0\1\0OB\0\0\2\0\0\0\0\1",
        _meta_element(2, b"1.2.840.10008.5.1.4.1.1.2\0"),
        _meta_element(3, b"1.2.3.4\0"),
        _meta_element(0x10, b"1.2.840.10008.1.2.1\0"),
        _meta_element(0x13, b"VERSION ", b"SH"),
    )
)


@given(
    st.lists(
        st.tuples(
            st.integers(0, len(_USUAL) - 1),
            st.sampled_from([b"", b"\2\0\3\0UI\2\x009\0", b"\0", b"\2", b"\x08\0", b"\xff"]),
            st.integers(0, 3),
        ),
        max_size=3,
    ),
    st.integers(-30, 30),
    st.sampled_from([b"", b"\x08", b"\x08\0\5\0CS", b"\2\0\x16\0AE\2\0XY\x08\0", bytes(2000)]),
)
def test_a_file_that_looks_usual_is_read_as_every_other(
    damages: list[tuple[int, bytes, int]], wrong_by: int, data: bytes
) -> None:
    """Its elements are not walked one by one; that must make no difference."""
    elements = _USUAL
    for place, inserted, removed in damages:
        elements = elements[:place] + inserted + elements[place + removed :]
    for length in {len(elements), max(0, len(elements) + wrong_by)}:
        head = bytes(128) + b"DICM\2\0\0\0UL\4\0" + length.to_bytes(4, "little") + elements
        for _ in range(2):
            assert _outcome(split_part10, head + data) == _outcome(_split, head + data)


def _outcome(split: Any, data: bytes) -> object:
    try:
        return split(memoryview(data))
    except Invalid as error:
        return str(error)


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
