"""What objects have in common is converted once, and each is what it would be alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid

from pacsteward.archive import header_json, headers
from pacsteward.archive.header_json import HeaderTexts
from pacsteward.archive.headers import parse
from pacsteward.archive.read import Reader
from pacsteward.dicom.elements import DataSetReader, Element, Encoding

FILES = (
    "CT_small.dcm",
    "MR_small.dcm",
    "MR_small_implicit.dcm",
    "MR_small_bigendian.dcm",
    "JPEG2000.dcm",
    "nested_priv_SQ.dcm",
    "priv_SQ.dcm",
    "UN_sequence.dcm",
    "badVR.dcm",
    "reportsi.dcm",
    "examples_palette.dcm",
    "rtplan.dcm",
    "test-SR.dcm",
    "waveform_ecg.dcm",
)


class Shelf:
    """Stores objects and makes their metadata."""

    def __init__(self, vault: Any) -> None:
        self._vault = vault
        self._reader = Reader(vault.database, vault.data_folder)

    def text(self, texts: HeaderTexts, uid: str) -> bytes:
        with self._reader.open(self._reader.instance("", "", uid)) as stored:
            return texts.text(stored, bulk_data_prefix=f"of/{uid}/")

    def model(self, texts: HeaderTexts, uid: str) -> dict[str, Any]:
        model: dict[str, Any] = json.loads(self.text(texts, uid))
        return model

    def keep(self, dataset: Dataset, syntax: str = ExplicitVRLittleEndian) -> str:
        dataset.SOPInstanceUID = generate_uid()
        uid: str = self._vault.keep(dataset, transfer_syntax_uid=syntax)
        return uid

    def keep_data(self, dataset: Dataset, data: bytes, syntax: str = ExplicitVRLittleEndian) -> str:
        dataset.SOPInstanceUID = generate_uid()
        uid: str = self._vault.keep_bytes(dataset, data, syntax)
        return uid


@pytest.fixture
def shelf(vault: Any) -> Shelf:
    return Shelf(vault)


@pytest.fixture
def ct() -> Dataset:
    return dcmread(get_testdata_file("CT_small.dcm"))


@pytest.mark.parametrize("limit", [16, 1024])
def test_whatever_came_before_an_object_is_converted_as_if_it_came_alone(
    shelf: Shelf, limit: int
) -> None:
    texts = HeaderTexts(limit)
    for _ in range(2):
        for name in FILES:
            dataset = dcmread(get_testdata_file(name, download=False), force=True)
            for keyword in ("SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID"):
                dataset.setdefault(keyword, "1.2.3")
            uid = shelf.keep(dataset, dataset.file_meta.TransferSyntaxUID)
            text = shelf.text(texts, uid)
            assert text == shelf.text(HeaderTexts(limit), uid), name
            assert json.loads(text)["00080018"]["Value"] == [uid]


def test_only_what_differs_is_decoded(
    shelf: Shelf, ct: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[list[int]] = []

    def counted(data: bytes, encoding: Encoding) -> Dataset:
        dataset = parse(data, encoding)
        decoded.append(list(map(int, dataset.keys())))
        return dataset

    monkeypatch.setattr(header_json, "parse", counted)
    texts = HeaderTexts(1024)
    for number in (1, 2):
        ct.InstanceNumber = number
        shelf.text(texts, shelf.keep(ct))
    first, second = decoded
    assert len(first) > 100
    # Number and UID, and what others are read by: the character set, words, private creators.
    assert {0x00080018, 0x00200013} <= set(second)
    assert set(second) - {0x00080018, 0x00200013, 0x00080005, 0x00280100, 0x00280103} <= {
        tag for tag in first if tag & 0x10000
    }


def test_what_stands_in_the_object_before_is_not_walked_again(
    shelf: Shelf, ct: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    walked: list[int] = []
    element_at = DataSetReader.element_at

    def counted(self: DataSetReader, position: int, *args: Any, **options: Any) -> Element:
        element = element_at(self, position, *args, **options)
        walked.append(element.tag)
        return element

    monkeypatch.setattr(DataSetReader, "element_at", counted)
    texts = HeaderTexts(1024)
    shelf.text(texts, shelf.keep(ct))
    assert len(walked) > 100
    walked.clear()
    del ct.PatientSex
    ct.PatientComments = "An element more."
    ct.InstanceNumber = 77
    uid = shelf.keep(ct)
    text = shelf.text(texts, uid)
    # The first fills the window that the others are compared in.
    assert set(walked[1:]) == {
        0x00080018, 0x00101002, 0x00104000, 0x00200013, 0x7FE00010, 0xFFFCFFFC,
    }  # fmt: skip
    assert text == shelf.text(HeaderTexts(1024), uid)


def test_a_header_that_is_too_large_is_not_read(
    shelf: Shelf, ct: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    ct.add_new(0x00400254, "UT", "x" * 5000)
    monkeypatch.setattr(headers, "HEADER_MAX", 4000)
    asked: list[int] = []
    value = DataSetReader.value

    def counted(self: DataSetReader, offset: int, length: int) -> bytes:
        asked.append(length)
        return value(self, offset, length)

    monkeypatch.setattr(DataSetReader, "value", counted)
    model = shelf.model(HeaderTexts(1024), shelf.keep(ct))
    assert list(model) == ["00080016", "00080018", "00083002", "0020000D", "0020000E"]
    assert max(asked) <= 4000


def test_the_same_bytes_are_another_text_in_another_character_set(
    shelf: Shelf, ct: Dataset
) -> None:
    texts = HeaderTexts(1024)
    names = []
    for character_set in (b"ISO_IR 100", b"ISO_IR 144", b"ISO_IR 100"):
        ct.SOPInstanceUID = generate_uid()
        data = (
            b"\x08\0\x05\0CS\x0a\0" + character_set
            + b"\x08\0\x18\0UI" + len(ct.SOPInstanceUID.encode() + b"\0").to_bytes(2, "little")
            + ct.SOPInstanceUID.encode() + b"\0"
            + b"\x10\0\x10\0PN\x04\0\xb1\xb2^\xb3"
        )  # fmt: skip
        uid = shelf.keep_data(ct, data)
        names.append(shelf.model(texts, uid)["00100010"]["Value"][0]["Alphabetic"])
    assert names == ["±²^³", "БВ^Г", "±²^³"]


def test_the_same_words_have_a_sign_where_the_pixels_have_one(shelf: Shelf, ct: Dataset) -> None:
    texts = HeaderTexts(1024)
    seen = []
    for sign in (0, 1, 0):
        data = (
            b"\x28\0\x03\1\2\0\0\0" + sign.to_bytes(2, "little")  # Pixel Representation
            + b"\x28\0\x06\1\2\0\0\0\xff\xff"  # Smallest Image Pixel Value
        )  # fmt: skip
        uid = shelf.keep_data(ct, data, ImplicitVRLittleEndian)
        seen.append(shelf.model(texts, uid)["00280106"])
    assert seen == [
        {"vr": "US", "Value": [65535]},
        {"vr": "SS", "Value": [-1]},
        {"vr": "US", "Value": [65535]},
    ]


def test_the_same_private_bytes_are_what_their_creator_says(shelf: Shelf, ct: Dataset) -> None:
    texts = HeaderTexts(1024)
    seen = []
    for creator in (b"GEMS_ACQU_01", b"NOBODY KNOWS"):
        data = (
            b"\x19\0\x10\0" + len(creator).to_bytes(4, "little") + creator
            + b"\x19\0\x02\x10\4\0\0\0\x07\0\0\0"  # of GE: Number of Cells in Detector, SL
        )  # fmt: skip
        uid = shelf.keep_data(ct, data, ImplicitVRLittleEndian)
        model = shelf.model(texts, uid)
        assert model == shelf.model(HeaderTexts(1024), uid)
        seen.append(model["00191002"])
    assert seen[0] != seen[1]


def test_a_value_is_fetched_from_the_object_it_is_of(shelf: Shelf, ct: Dataset) -> None:
    texts = HeaderTexts(16)
    ct.add_new(0x00420011, "OB", b"The same in both objects, and long.")
    for _ in range(2):
        uid = shelf.keep(ct)
        assert shelf.model(texts, uid)["00420011"]["BulkDataURI"] == f"of/{uid}/00420011"


def test_a_representation_that_nobody_knows_spoils_no_other_object(
    shelf: Shelf, ct: Dataset
) -> None:
    # The length of one has four bytes (PS3.5 7.1.2). pydicom reads two, and takes what is inside
    # for an element of its own: here one with another patient's ID.
    patient_id = b"\x10\0\x20\0LO\x04\0AB12"
    group_length = b"\x10\0\0\0UL\x04\0\x0c\0\0\0"
    odd = b"\x08\0\x7f\0ZZ\0\0\x10\0\0\0" + b"UL\0\0" + b"\x10\0\x20\0LO\x04\0CD34"
    texts = HeaderTexts(1024)
    shelf.text(texts, shelf.keep_data(ct, patient_id + group_length + odd))
    model = shelf.model(texts, shelf.keep_data(ct, patient_id))
    assert model["00100020"] == {"vr": "LO", "Value": ["AB12"]}


def test_a_header_that_is_taken_for_another_encoding_spoils_no_other_object(
    shelf: Shelf, ct: Dataset
) -> None:
    # Two letters of a representation are seen by pydicom in this length.
    first = b"\x08\0\x7f\0" + b"BB\0\0" + bytes(0x4242)
    patient_id = b"\x10\0\x20\0" + b"\x04\0\0\0AB12"
    texts = HeaderTexts(1024)
    shelf.text(texts, shelf.keep_data(ct, first + patient_id, ImplicitVRLittleEndian))
    model = shelf.model(texts, shelf.keep_data(ct, patient_id, ImplicitVRLittleEndian))
    assert model["00100020"] == {"vr": "LO", "Value": ["AB12"]}


def test_what_is_kept_is_bounded(
    shelf: Shelf, ct: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(header_json, "KNOWN_BYTES_MAX", 2000)
    texts = HeaderTexts(1024)
    for _ in range(2):
        uid = shelf.keep(ct)
        assert shelf.text(texts, uid) == shelf.text(HeaderTexts(1024), uid)
    kept = [raw + member for known in texts._known.values() for raw, member in known.items()]
    assert kept
    assert sum(map(len, kept)) <= 2000


def test_what_is_kept_of_headers_with_other_companions_each_is_bounded(
    shelf: Shelf, ct: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(header_json, "KNOWN_BYTES_MAX", 2000)
    texts = HeaderTexts(1024)
    for number in range(6):
        creator = f"Of the {number}th slice alone ".encode() * 30
        data = b"\x19\0\x10\0" + len(creator).to_bytes(4, "little") + creator
        uid = shelf.keep_data(ct, data, ImplicitVRLittleEndian)
        assert shelf.text(texts, uid) == shelf.text(HeaderTexts(1024), uid)
    assert texts._known
    assert sum(len(companions) for _, _, companions in texts._known) <= 2000
