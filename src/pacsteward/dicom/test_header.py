"""Promises of header.py and header_walk.py."""

from __future__ import annotations

import os
import random
import struct
import warnings
import zlib
from pathlib import Path

import pydicom
import pydicom.filebase
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence

from pacsteward.base.errors import Invalid, PacstewardError, Unsupported
from pacsteward.dicom import header_walk
from pacsteward.dicom.fragments import Fragments
from pacsteward.dicom.header import Header, RequestAttributes, read_header
from pacsteward.dicom.header_tables import INDEX_TAGS
from pacsteward.dicom.part10 import split_part10
from pacsteward.dicom.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    JPEG_BASELINE,
    RLE_LOSSLESS,
)

ENCODINGS: dict[str, tuple[bool, bool]] = {
    EXPLICIT_VR_LITTLE_ENDIAN: (False, True),
    IMPLICIT_VR_LITTLE_ENDIAN: (True, True),
    EXPLICIT_VR_BIG_ENDIAN: (False, False),
}


def sample() -> Dataset:
    """A small CT image with what makes a header interesting."""
    data_set = Dataset()
    data_set.SpecificCharacterSet = "ISO_IR 100"
    data_set.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    data_set.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    data_set.SOPInstanceUID = "1.2.3.4.5"
    data_set.StudyDate = "20240229"
    data_set.Modality = "CT"
    data_set.AccessionNumber = "A1"
    data_set.ReferringPhysicianName = "Jérôme^Léa"
    data_set.PatientName = "Doe^John"
    data_set.PatientID = "007"
    data_set.PatientBirthDate = ""
    data_set.StudyInstanceUID = "1.2.3"
    data_set.SeriesInstanceUID = "1.2.3.4"
    data_set.InstanceNumber = "1"
    data_set.SamplesPerPixel = 1
    data_set.PhotometricInterpretation = "MONOCHROME2"
    data_set.Rows = 4
    data_set.Columns = 300
    data_set.BitsAllocated = 16
    requests = []
    for number in (1, 2):
        item = Dataset()
        item.AccessionNumber = f"A{number}"
        item.ScheduledProcedureStepID = f"S{number}"
        item.RequestedProcedureID = f"P{number}"
        requests.append(item)
    data_set.RequestAttributesSequence = Sequence(requests)
    inner = Dataset()
    inner.PatientID = "someone else"
    outer = Dataset()
    outer.ReferencedSOPInstanceUID = "9.9"
    outer.PurposeOfReferenceCodeSequence = Sequence([inner])
    data_set.ReferencedImageSequence = Sequence([outer])
    data_set.add_new(0x00291010, "LO", "private")
    data_set.add_new(0x7FE00010, "OW", bytes(2400))
    return data_set


def encode(
    data_set: Dataset, syntax: str = EXPLICIT_VR_LITTLE_ENDIAN, *, delimited: bool = False
) -> bytes:
    """Encode a data set; `delimited` gives every sequence and item an undefined length."""
    if delimited:
        _delimit(data_set)
    file = pydicom.filebase.DicomBytesIO()
    file.is_implicit_VR, file.is_little_endian = ENCODINGS[syntax]
    write_dataset(file, data_set)
    return file.getvalue()


def _delimit(data_set: Dataset) -> None:
    for element in data_set:
        if element.VR == "SQ":
            element.is_undefined_length = True
            for item in element.value:
                item.is_undefined_length_sequence_item = True
                _delimit(item)


def read(
    data: bytes, syntax: str = EXPLICIT_VR_LITTLE_ENDIAN, *, part_bytes: int = 1 << 17
) -> Header:
    view = memoryview(data)
    parts = [view[place : place + part_bytes] for place in range(0, len(view), part_bytes)]
    return read_header(Fragments(parts), syntax)


def check_sample(header: Header) -> None:
    assert header.sop_class_uid == "1.2.840.10008.5.1.4.1.1.2"
    assert header.sop_instance_uid == "1.2.3.4.5"
    assert header.study_instance_uid == "1.2.3"
    assert header.series_instance_uid == "1.2.3.4"
    assert header.specific_character_set == "ISO_IR 100"
    assert header.values[0x00080008] == "ORIGINAL\\PRIMARY\\AXIAL"
    assert header.values[0x00080090] == "Jérôme^Léa"
    assert header.values[0x00100010] == "Doe^John"
    assert header.values[0x00100020] == "007"
    assert header.values[0x00100030] == ""
    assert header.values[0x00280011] == "300"
    assert 0x00100021 not in header.values
    assert header.request_attributes == (
        RequestAttributes("P1", "S1", "A1"),
        RequestAttributes("P2", "S2", "A2"),
    )
    assert header.pixel_data is not None
    assert header.pixel_data.value_length == 2400
    assert header.pixel_data.rows == 4
    assert header.pixel_data.columns == 300
    assert header.pixel_data.number_of_frames == 1
    assert header.pixel_data.photometric_interpretation == "MONOCHROME2"


@pytest.mark.parametrize("delimited", [False, True])
@pytest.mark.parametrize("part_bytes", [1, 7, 100, 1 << 17])
@pytest.mark.parametrize("syntax", ENCODINGS)
def test_every_encoding_gives_the_same_header(
    syntax: str, part_bytes: int, delimited: bool
) -> None:
    data = encode(sample(), syntax, delimited=delimited)
    header = read(data, syntax, part_bytes=part_bytes)
    check_sample(header)
    assert header.size == len(data)
    assert header.warnings == ()
    assert header.pixel_data is not None
    assert header.pixel_data.end_offset == len(data)
    assert header.pixel_data.value_offset == len(data) - 2400


def test_a_deflated_object_is_read_and_its_end_is_checked() -> None:
    compressor = zlib.compressobj(wbits=-15)
    data = compressor.compress(encode(sample())) + compressor.flush()
    check_sample(read(data, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, part_bytes=50))
    assert read(data, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN).size == len(data)
    with pytest.raises(Invalid, match="cut short"):
        read(data[:-4], DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)


def test_a_deflated_object_may_end_with_a_sequence() -> None:
    """As every structured report does: its content is the last element."""
    data_set = sample()
    del data_set[0x7FE00010]
    del data_set[0x00291010]
    for plain in (encode(data_set), encode(data_set, delimited=True)):
        compressor = zlib.compressobj(wbits=-15)
        data = compressor.compress(plain) + compressor.flush()
        header = read(data, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
        assert header.sop_instance_uid == "1.2.3.4.5"
        assert len(header.request_attributes) == 2


def test_items_without_number_are_refused_soon() -> None:
    items = (b"\xfe\xff\x00\xe0" + bytes(4)) * (header_walk.WALKED_MAX // 128)
    sequence = struct.pack("<HH2sHI", 0x40, 0x275, b"SQ", 0, len(items)) + items
    with pytest.raises(Invalid, match="heads of elements"):
        read(sequence)
    few = struct.pack("<HH2sHI", 0x40, 0x275, b"SQ", 0, 80_000) + items[:80_000]
    assert len(read(few).request_attributes) == header_walk.ITEMS_MAX


@pytest.mark.parametrize(("text", "count"), [("2147483647", 2147483647), ("99999999999", 1)])
def test_number_of_frames_is_read_up_to_the_largest_there_is(text: str, count: int) -> None:
    data_set = sample()
    data_set.NumberOfFrames = text
    pixels = read(encode(data_set)).pixel_data
    assert pixels is not None
    assert pixels.number_of_frames == count


def test_encapsulated_pixel_data_are_walked_to_their_end() -> None:
    data_set = sample()
    data_set.NumberOfFrames = "3"
    data_set[0x7FE00010].value = encapsulate([b"a" * 40000, b"b" * 10, b"c" * 6])
    data_set[0x7FE00010].VR = "OB"
    data_set[0x7FE00010].is_undefined_length = True
    data_set.DataSetTrailingPadding = bytes(6)
    data = encode(data_set)
    pixels = read(data, JPEG_BASELINE).pixel_data
    assert pixels is not None
    assert pixels.vr == "OB"
    assert pixels.value_length is None
    assert pixels.fragment_count == 3
    assert pixels.number_of_frames == 3
    assert pixels.end_offset == len(data) - 18
    for end in (len(data) - 20, len(data) - 26, pixels.value_offset + 20):
        with pytest.raises(Invalid, match="cut short"):
            read(data[:end], JPEG_BASELINE)


def test_native_pixels_in_a_compressed_syntax_are_noticed() -> None:
    assert read(encode(sample()), RLE_LOSSLESS).warnings


@pytest.mark.parametrize("syntax", ENCODINGS)
@pytest.mark.parametrize("delimited", [False, True])
def test_an_object_that_was_cut_short_is_never_taken(syntax: str, delimited: bool) -> None:
    """Between two elements of the first level a cut cannot be seen; everywhere else it is."""
    data = encode(sample(), syntax, delimited=delimited)
    unseen = 0
    pixels_begin = len(data) - 2400
    for end in [*range(1, pixels_begin), *range(pixels_begin, len(data), 97)]:
        try:
            read(data[:end], syntax)
        except Invalid:
            continue
        unseen += 1
    assert 0 < unseen <= len(sample())


def test_the_message_says_where_and_names_no_patient() -> None:
    data = encode(sample())
    with pytest.raises(Invalid, match=f"cut short at offset {len(data) - 100}") as refused:
        read(data[:-100])
    assert "Doe" not in str(refused.value)


def test_missing_uids_are_left_to_the_archive() -> None:
    header = read(encode(Dataset()))
    assert header.sop_instance_uid == header.study_instance_uid == ""
    assert header.pixel_data is None
    assert header.size == 0


def test_a_private_syntax_is_unsupported() -> None:
    with pytest.raises(Unsupported):
        read(encode(sample()), "1.2.3.4")


# --- what real devices do ------------------------------------------------------------------------


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value


HEAD = element(0x00080005, b"CS", b"ISO_IR 100") + element(0x00080018, b"UI", b"1.2\0")
TAIL = element(0x00100020, b"LO", b"P1") + element(0x00280010, b"US", b"\0\2")


def test_a_mislabelled_encoding_is_found_out() -> None:
    header = read(encode(sample(), IMPLICIT_VR_LITTLE_ENDIAN), EXPLICIT_VR_LITTLE_ENDIAN)
    check_sample(header)
    assert header.is_implicit_vr
    assert header.warnings
    header = read(encode(sample()), IMPLICIT_VR_LITTLE_ENDIAN)
    check_sample(header)
    assert not header.is_implicit_vr
    assert header.warnings


def test_a_file_in_place_of_a_data_set_is_refused_with_its_reason() -> None:
    with pytest.raises(Invalid, match="preamble"):
        read(bytes(128) + b"DICM" + bytes(200))


@pytest.mark.parametrize(
    "odd",
    [
        struct.pack("<HHI", 0x0009, 0x1010, 4) + b"ABCD",  # implicit among explicit
        element(0x00091010, b"??", b"ABCD"),
        element(0x00091010, b"  ", b"ABCD"),
        element(0x00091010, b"ZZ", b"ABCD"),
        struct.pack("<HH2sHI", 0x0009, 0x1010, b"ZZ", 0, 4) + b"ABCD",
        struct.pack("<HH2sHI", 0x0009, 0x1010, b"\0\0", 0, 4) + b"ABCD",
    ],
)
def test_a_representation_that_does_not_exist_hides_nothing(odd: bytes) -> None:
    header = read(HEAD + odd + TAIL)
    assert header.sop_instance_uid == "1.2"
    assert header.values[0x00100020] == "P1"
    assert header.values[0x00280010] == "512"
    assert header.warnings


def test_an_implicit_sequence_in_an_explicit_data_set_is_passed_over() -> None:
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    item += struct.pack("<HHI", 0x0009, 0x1001, 2) + b"ab"
    item += struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    for head in (
        struct.pack("<HHI", 0x0009, 0x1010, 0xFFFFFFFF),
        struct.pack("<HH2sHI", 0x0009, 0x1010, b"UN", 0, 0xFFFFFFFF),
        struct.pack("<HH2sHI", 0x0009, 0x1010, b"SQ", 0, 0xFFFFFFFF),
    ):
        assert read(HEAD + head + item + TAIL).values[0x00100020] == "P1"


def test_an_unknown_sequence_left_in_explicit_vr_is_passed_over() -> None:
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + element(0x00091001, b"LO", b"ab")
    item += struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    head = struct.pack("<HH2sHI", 0x0009, 0x1010, b"UN", 0, 0xFFFFFFFF)
    assert read(HEAD + head + item + TAIL).values[0x00100020] == "P1"


def test_elements_out_of_order_are_found() -> None:
    header = read(TAIL + HEAD)
    assert header.sop_instance_uid == "1.2"
    assert header.specific_character_set == "ISO_IR 100"


def test_group_lengths_and_stray_delimiters_do_not_matter() -> None:
    group_length = element(0x00080000, b"UL", struct.pack("<I", len(HEAD)))
    stray = struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
    header = read(group_length + HEAD + stray + TAIL)
    assert header.values[0x00100020] == "P1"
    assert header.warnings


@pytest.mark.parametrize("zeros", [1, 7, 8, 12, 20000])
def test_zeros_after_the_end_are_tolerated(zeros: int) -> None:
    header = read(HEAD + TAIL + bytes(zeros))
    assert header.values[0x00100020] == "P1"
    assert header.warnings


def test_rubbish_after_the_end_is_not() -> None:
    with pytest.raises(Invalid):
        read(HEAD + TAIL + b"\x01")
    with pytest.raises(Invalid):
        read(HEAD + TAIL + bytes(20) + b"\x01")


def test_values_that_broke_their_representation_are_still_text() -> None:
    unknown = struct.pack("<HH2sHI", 0x0010, 0x0010, b"UN", 0, 8) + b"Doe^Jane"
    frames = element(0x00280008, b"US", b"\5\0")
    header = read(HEAD + unknown + frames + TAIL)
    assert header.values[0x00100010] == "Doe^Jane"
    assert header.values[0x00280008] == "5"


def test_a_null_inside_a_text_does_not_reach_the_index() -> None:
    data = element(0x00100010, b"PN", b"Doe\0^J\0") + element(0x00100020, b"LO", b"\0A\0\\B")
    assert read(data).values == {0x00100010: "Doe^J", 0x00100020: "A\\B"}
    data = element(0x00080005, b"CS", b"ISO_IR 192") + element(0x00100010, b"PN", "Ł\0ę\0".encode())
    assert read(data).values[0x00100010] == "Łę"


def test_a_value_too_long_for_an_index_is_left_out_and_noticed() -> None:
    long = struct.pack("<HH2sHI", 0x0010, 0x0010, b"UN", 0, 100_000) + b"x" * 100_000
    header = read(HEAD + long + TAIL)
    assert 0x00100010 not in header.values
    assert header.values[0x00100020] == "P1"
    assert header.warnings


def test_japanese_names_arrive_readable() -> None:
    name = b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B"
    data = element(0x00080005, b"CS", b"\\ISO 2022 IR 87 ") + element(
        0x00100010, b"PN", name + b" "
    )
    assert read(data).values[0x00100010] == "Yamada^Tarou=山田^太郎"


# --- hostile data sets ---------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [60, 64, 65, 5000])
def test_sequences_are_followed_sixty_four_levels_deep(depth: int) -> None:
    begin = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF)
    begin += struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    end = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    data = HEAD + begin * depth + end * depth + TAIL
    if depth <= 64:
        assert read(data).values[0x00100020] == "P1"
    else:
        with pytest.raises(Invalid, match="was not read"):
            read(data)


def test_a_data_set_made_of_heads_only_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header_walk, "WALKED_MAX", 1 << 20)
    with pytest.raises(Invalid, match="not read"):
        read(HEAD + element(0x00091010, b"LO", b"") * 200_000)


def test_endless_requests_are_not_kept() -> None:
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 10) + element(0x00400009, b"SH", b"S1")
    sequence = struct.pack("<HH2sHI", 0x0040, 0x0275, b"SQ", 0, len(item) * 1000) + item * 1000
    assert len(read(HEAD + sequence).request_attributes) == header_walk.ITEMS_MAX


SEEDS = [
    (encode(sample()), EXPLICIT_VR_LITTLE_ENDIAN),
    (encode(sample(), delimited=True), EXPLICIT_VR_LITTLE_ENDIAN),
    (encode(sample(), IMPLICIT_VR_LITTLE_ENDIAN, delimited=True), IMPLICIT_VR_LITTLE_ENDIAN),
    (encode(sample(), EXPLICIT_VR_BIG_ENDIAN, delimited=True), EXPLICIT_VR_BIG_ENDIAN),
]


@settings(deadline=None, derandomize=True, max_examples=400)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 1200), st.integers(0, 255)), max_size=6),
    st.integers(0, 4000),
    st.integers(1, 3000),
)
def test_a_damaged_object_is_read_or_refused(
    seed: tuple[bytes, str], changes: list[tuple[int, int]], end: int, part_bytes: int
) -> None:
    data = bytearray(seed[0])
    for place, byte in changes:
        if place < len(data):
            data[place] = byte
    try:
        header = read(bytes(data[:end]), seed[1], part_bytes=part_bytes)
    except PacstewardError:
        pass
    else:
        assert header.pixel_data is None or header.pixel_data.end_offset <= end


@settings(deadline=None, derandomize=True)
@given(st.binary(max_size=300), st.sampled_from([*ENCODINGS, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN]))
def test_noise_is_read_or_refused(data: bytes, syntax: str) -> None:
    for noise in (data, HEAD + data):
        try:
            read(noise, syntax)
        except PacstewardError:
            continue


# --- beside pydicom ------------------------------------------------------------------------------


def expected(data_set: Dataset, tag: int) -> str:
    """What pydicom says of an attribute, in our form."""
    one = data_set[tag]
    content = one.value
    values = list(content) if one.VM > 1 else [] if content is None else [content]
    texts = [
        str(getattr(value, "original_string", value)) if one.VR != "PN" else str(value)
        for value in values
    ]
    return "\\".join(text.strip(" \0") for text in texts)


def compare(path: str | Path) -> list[str]:
    """Return how our header differs from pydicom's reading."""
    data = Path(path).read_bytes()
    meta, offset = split_part10(data)
    header = read(data[offset:], meta.transfer_syntax_uid)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data_set = pydicom.dcmread(path)
        present = set(map(int, data_set.keys())) & INDEX_TAGS
        theirs = {tag: expected(data_set, tag) for tag in present}
    differences = [
        f"{path}: {tag:08X} {header.values.get(tag)!r} {text!r}"
        for tag, text in theirs.items()
        # pydicom drops an empty last component group of a name.
        if header.values.get(tag, "").rstrip("=") != text
    ]
    differences += [f"{path}: {tag:08X} too many" for tag in header.values.keys() - present]
    has_pixels = any(tag in data_set for tag in (0x7FE00008, 0x7FE00009, 0x7FE00010))
    if has_pixels != (header.pixel_data is not None):
        differences.append(f"{path}: pixel data")
    return differences


BROKEN = {
    "ExplVR_BigEndNoMeta.dcm", "ExplVR_LitEndNoMeta.dcm", "MR_truncated.dcm",
    "meta_missing_tsyntax.dcm", "no_meta.dcm", "no_meta_group_length.dcm", "rtplan_truncated.dcm",
    "rtstruct.dcm",
}  # fmt: skip


def test_headers_of_pydicoms_own_files_are_those_that_pydicom_reads() -> None:
    """Only those that come with the package; its larger ones would be fetched."""
    folder = Path(str(get_testdata_file("CT_small.dcm"))).parent
    paths = [path for path in sorted(folder.glob("*.dcm")) if path.name not in BROKEN]
    assert len(paths) > 50
    assert [text for path in paths for text in compare(path)] == []


@pytest.mark.shared_data
def test_headers_of_many_devices_are_those_that_pydicom_reads() -> None:
    folder = os.environ.get("PACSTEWARD_TEST_DATA")
    if not folder:
        pytest.skip("PACSTEWARD_TEST_DATA names no folder of samples")
    read_count = 0
    differences = []
    for path in sorted(Path(folder, "dicom").rglob("*.dcm")):
        try:
            differences += compare(path)
            read_count += 1
        except Invalid:
            continue
    assert differences == []
    assert read_count > 500


def test_a_shuffled_data_set_is_read_or_refused() -> None:
    """Slices of a good object in another order: real elements at wrong places."""
    chance = random.Random(7)
    data = SEEDS[1][0]
    for _ in range(200):
        cuts = sorted(chance.sample(range(len(data)), 4))
        pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        chance.shuffle(pieces)
        try:
            read(b"".join(pieces))
        except PacstewardError:
            continue
