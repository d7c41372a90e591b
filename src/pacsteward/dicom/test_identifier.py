"""Promises of identifier.py."""

from __future__ import annotations

import struct
import zlib

import pydicom
import pydicom.filebase
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence

from pacsteward.base.errors import Invalid, PacstewardError
from pacsteward.dicom.charset import character_set_for
from pacsteward.dicom.identifier import KEYS_MAX, SIZE_MAX, read_identifier, write_identifier
from pacsteward.dicom.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)

ENCODINGS = {
    EXPLICIT_VR_LITTLE_ENDIAN: (False, True),
    IMPLICIT_VR_LITTLE_ENDIAN: (True, True),
    EXPLICIT_VR_BIG_ENDIAN: (False, False),
}


def encode(data_set: Dataset, syntax: str) -> bytes:
    file = pydicom.filebase.DicomBytesIO()
    file.is_implicit_VR, file.is_little_endian = ENCODINGS[syntax]
    write_dataset(file, data_set)
    return file.getvalue()


def decode(data: bytes, syntax: str) -> Dataset:
    return read_dataset(pydicom.filebase.DicomBytesIO(data), *ENCODINGS[syntax])


def worklist_query() -> Dataset:
    step = Dataset()
    step.Modality = "CT"
    step.ScheduledProcedureStepStartDate = "20240101-20240131"
    step.ScheduledStationAETitle = ""
    query = Dataset()
    query.SpecificCharacterSet = "ISO_IR 100"
    query.QueryRetrieveLevel = "STUDY "
    query.PatientName = "Jérôme*"
    query.PatientID = ""
    query.StudyInstanceUID = ["1.2.3", "1.2.4"]
    query.NumberOfStudyRelatedInstances = ""
    query.Rows = 512
    query.ScheduledProcedureStepSequence = Sequence([step])
    query.ReferencedStudySequence = Sequence([])
    query.add_new(0x00091010, "LO", "private")
    query.add_new(0x00091011, "UN", b"")
    query.add_new(0x00101099, "LO", "no such attribute")
    return query


@pytest.mark.parametrize("syntax", ENCODINGS)
@pytest.mark.parametrize("delimited", [False, True])
def test_keys_are_read_in_every_encoding(syntax: str, delimited: bool) -> None:
    query = worklist_query()
    query[0x00400100].is_undefined_length = delimited
    query.ScheduledProcedureStepSequence[0].is_undefined_length_sequence_item = delimited
    identifier = read_identifier(encode(query, syntax), syntax)
    assert identifier.level == "STUDY"
    assert identifier.character_set == "ISO_IR 100"
    assert identifier.keys[0x00100010] == "Jérôme*"
    assert identifier.keys[0x00100020] == ""
    assert identifier.keys[0x0020000D] == "1.2.3\\1.2.4"
    assert identifier.keys[0x00201208] == ""
    assert identifier.keys[0x00280010] == "512"
    assert identifier.keys[0x00400100] == (
        {0x00080060: "CT", 0x00400001: "", 0x00400002: "20240101-20240131"},
    )
    assert identifier.keys[0x00081110] == ()
    assert identifier.private == (0x00091010, 0x00091011)
    assert identifier.unknown == (0x00101099,)
    assert 0x00080052 not in identifier.keys
    assert 0x00080005 not in identifier.keys


def test_a_deflated_identifier_is_read() -> None:
    compressor = zlib.compressobj(wbits=-15)
    data = compressor.compress(encode(worklist_query(), EXPLICIT_VR_LITTLE_ENDIAN))
    data += compressor.flush()
    assert read_identifier(data, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN).level == "STUDY"


def test_c76_a_missing_level_is_no_crash() -> None:
    identifier = read_identifier(
        encode(Dataset(), IMPLICIT_VR_LITTLE_ENDIAN), IMPLICIT_VR_LITTLE_ENDIAN
    )
    assert identifier.level == ""
    assert identifier.keys == {}


def test_c80_a_thousand_uids_are_read() -> None:
    query = Dataset()
    query.StudyInstanceUID = [f"1.2.840.113619.{number}" for number in range(2000)]
    identifier = read_identifier(
        encode(query, EXPLICIT_VR_LITTLE_ENDIAN), EXPLICIT_VR_LITTLE_ENDIAN
    )
    text = identifier.keys[0x0020000D]
    assert isinstance(text, str)
    assert len(text.split("\\")) == 2000


@pytest.mark.parametrize("syntax", ENCODINGS)
def test_an_answer_reads_with_pydicom_as_it_was_meant(syntax: str) -> None:
    values = {
        0x00100010: "Müller^Jürgen",
        0x00080052: "STUDY",
        0x0020000D: "1.2.3",
        0x00080061: "CT\\PR",
        0x00100020: "",
        0x00201208: "12",
        0x00280010: "512",
        0x00080056: "ONLINE",
        0x00280009: "00181063",
        0x00189087: "1.5",
        0x00104000: "a note",
        0x00400275: [{0x00400009: "S1", 0x00080050: "A1"}, {}],
        0x00081110: [],
    }
    character_set = character_set_for(["Müller^Jürgen"])
    data = write_identifier(values, character_set=character_set, transfer_syntax_uid=syntax)
    assert len(data) % 2 == 0
    answer = decode(data, syntax)
    assert answer.SpecificCharacterSet == "ISO_IR 100"
    assert answer.PatientName == "Müller^Jürgen"
    assert answer.QueryRetrieveLevel == "STUDY"
    assert answer.StudyInstanceUID == "1.2.3"
    assert answer.ModalitiesInStudy == ["CT", "PR"]
    assert answer.PatientID in ("", None)
    assert answer.NumberOfStudyRelatedInstances == 12
    assert answer.Rows == 512
    assert answer.FrameIncrementPointer == 0x00181063
    assert answer.DiffusionBValue == 1.5
    assert answer.RequestAttributesSequence[0].ScheduledProcedureStepID == "S1"
    assert len(answer.RequestAttributesSequence) == 2
    assert len(answer.ReferencedStudySequence) == 0
    assert list(map(int, answer.keys())) == sorted(map(int, answer.keys()))
    assert encode(answer, syntax) == data
    back = read_identifier(data, syntax)
    assert back.keys[0x00100010] == "Müller^Jürgen"
    assert back.keys[0x00280009] == "00181063"


def test_a_value_longer_than_its_length_field_goes_as_unknown() -> None:
    uids = "\\".join(f"1.2.840.{number}" for number in range(10_000))
    data = write_identifier(
        {0x0020000D: uids}, character_set="", transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN
    )
    assert read_identifier(data, EXPLICIT_VR_LITTLE_ENDIAN).keys[0x0020000D] == uids


@pytest.mark.parametrize(
    "values",
    [{0x00100010: "Łukasz"}, {0x00100010: [{}]}, {0x00081110: "text"}, {0x7FE00010: "text"}],
)  # fmt: skip
def test_what_cannot_be_encoded_is_refused_without_naming_it(values: dict[int, str]) -> None:
    with pytest.raises(Invalid) as refused:
        write_identifier(values, character_set="", transfer_syntax_uid=IMPLICIT_VR_LITTLE_ENDIAN)
    assert "ukasz" not in str(refused.value)


def test_an_object_with_a_word_for_a_number_does_not_spoil_the_answer() -> None:
    values = {
        0x00280010: "many",
        0x00280011: "70000",
        0x00280009: "none",
        0x00189087: "x",
        0x00100020: "1",
    }
    data = write_identifier(values, character_set="", transfer_syntax_uid=IMPLICIT_VR_LITTLE_ENDIAN)
    keys = read_identifier(data, IMPLICIT_VR_LITTLE_ENDIAN).keys
    assert keys == {**dict.fromkeys(values, ""), 0x00100020: "1"}


def test_what_no_question_can_be_is_refused() -> None:
    with pytest.raises(Invalid, match="bytes"):
        read_identifier(bytes(SIZE_MAX + 2), IMPLICIT_VR_LITTLE_ENDIAN)
    many = b"".join(struct.pack("<HHI", 0x0009, 0x1000 + n, 0) for n in range(KEYS_MAX + 1))
    with pytest.raises(Invalid, match="keys"):
        read_identifier(many, IMPLICIT_VR_LITTLE_ENDIAN)
    begin = struct.pack("<HHI", 0x0040, 0x0100, 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    end = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    with pytest.raises(Invalid):
        read_identifier(begin * 20 + end * 20, IMPLICIT_VR_LITTLE_ENDIAN)
    with pytest.raises(PacstewardError):
        read_identifier(begin * 5000 + end * 5000, IMPLICIT_VR_LITTLE_ENDIAN)


@settings(deadline=None, derandomize=True)
@given(
    st.sampled_from(sorted(ENCODINGS)),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6),
    st.integers(0, 500),
)
def test_a_damaged_identifier_is_read_or_refused(
    syntax: str, changes: list[tuple[int, int]], end: int
) -> None:
    data = bytearray(encode(worklist_query(), syntax))
    for place, byte in changes:
        if place < len(data):
            data[place] = byte
    try:
        read_identifier(bytes(data[:end]), syntax)
    except PacstewardError:
        return
