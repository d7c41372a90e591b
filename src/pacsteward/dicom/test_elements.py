"""Walking a data set by range reads: every encoding, and lengths that lie."""

import struct

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from pacsteward.base.errors import Exhausted, Invalid, PacstewardError
from pacsteward.dicom.elements import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    Attributes,
    DataSetReader,
)
from pacsteward.dicom.fixtures.phantoms import CountingReader, gradient, image, written

_ENCODINGS = [
    (EXPLICIT_LITTLE, False, True),
    (IMPLICIT_LITTLE, True, True),
    (EXPLICIT_BIG, False, False),
]


def _nested(undefined: bool) -> Dataset:
    inner = Dataset()
    inner.CodeValue = "T-11501"
    item = Dataset()
    item.ReferencedSOPInstanceUID = "1.2.3"
    item.PurposeOfReferenceCodeSequence = Sequence([inner])
    data_set = Dataset()
    data_set.Modality = "CT"
    data_set.SourceImageSequence = Sequence([item, item])
    data_set.PatientID = "4711"
    if undefined:
        data_set["SourceImageSequence"].is_undefined_length = True
        item["PurposeOfReferenceCodeSequence"].is_undefined_length = True
        for each in (item, inner):
            each.is_undefined_length_sequence_item = True
    return data_set


@pytest.mark.parametrize(("encoding", "implicit", "little"), _ENCODINGS)
@pytest.mark.parametrize("undefined", [False, True])
def test_every_encoding_of_a_nested_data_set_is_walked(encoding, implicit, little, undefined):
    stored = written(_nested(undefined), implicit=implicit, little=little)
    attributes = Attributes.of(DataSetReader.over(stored), encoding)
    assert sorted(attributes.elements) == [0x00080060, 0x00082112, 0x00100020]
    assert attributes.text(0x00100020) == "4711"
    items = list(attributes.items(0x00082112))
    assert [item.text(0x00081155) for item in items] == ["1.2.3", "1.2.3"]
    assert items[1].item(0x0040A170).text(0x00080100) == "T-11501"


def test_values_are_not_read_when_nobody_asks():
    big = image(gradient())
    big.add_new(0x00091010, "OB", b"\0" * 5_000_000)
    stored = written(big)
    read = CountingReader(stored)
    attributes = Attributes.of(DataSetReader(read, len(stored)), EXPLICIT_LITTLE)
    assert attributes.word(0x00280010) == 16
    assert read.bytes_read < 200_000


def test_numbers_read_in_both_byte_orders():
    data_set = image(gradient(), WindowCenter="40.5", RescaleSlope=" 2 ", PixelAspectRatio=[1, 2])
    for encoding, implicit, little in _ENCODINGS:
        stored = written(data_set, implicit=implicit, little=little)
        attributes = Attributes.of(DataSetReader.over(stored), encoding)
        assert attributes.word(0x00280011) == 12
        assert attributes.decimal(0x00281050) == 40.5
        assert attributes.decimals(0x00280034) == [1.0, 2.0]
        assert attributes.decimal(0x00281051) is None


def test_an_element_in_implicit_vr_inside_an_explicit_data_set_is_found():
    implicit = struct.pack("<HHI", 0x0010, 0x0020, 4) + b"4711"
    explicit = struct.pack("<HH2sH", 0x0010, 0x0030, b"DA", 8) + b"19700101"
    attributes = Attributes.of(DataSetReader.over(implicit + explicit), EXPLICIT_LITTLE)
    assert attributes.text(0x00100020) == "4711"
    assert attributes.text(0x00100030) == "19700101"


def test_a_length_beyond_the_end_is_invalid():
    stored = struct.pack("<HH2sH", 0x0010, 0x0020, b"LO", 400) + b"4711"
    with pytest.raises(Invalid, match="400 bytes, and 4 are left"):
        Attributes.of(DataSetReader.over(stored), EXPLICIT_LITTLE)


def test_nesting_without_end_is_refused():
    opened = struct.pack("<HH2s2xI", 0x0008, 0x2112, b"SQ", 0xFFFFFFFF)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    with pytest.raises(Exhausted, match="nested"):
        Attributes.of(DataSetReader.over((opened + item) * 500), EXPLICIT_LITTLE)


def test_a_reader_does_not_visit_more_elements_than_it_may():
    stored = struct.pack("<HH2sH", 0x0011, 0x0020, b"LO", 0) * 100
    size = len(stored)
    read = DataSetReader.over(stored).value
    assert len(list(DataSetReader(read, size, 100).elements(0, size, EXPLICIT_LITTLE))) == 100
    with pytest.raises(Exhausted, match="too many"):
        list(DataSetReader(read, size, 99).elements(0, size, EXPLICIT_LITTLE))


def test_no_cut_of_a_data_set_raises_anything_but_a_kind_of_error():
    stored = written(_nested(undefined=True))
    for end in range(len(stored)):
        try:
            Attributes.of(DataSetReader.over(stored[:end]), EXPLICIT_LITTLE)
        except PacstewardError:
            continue
