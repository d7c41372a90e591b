"""Promises of assemble.py: what is put together reads as it was described, or is refused."""

from __future__ import annotations

import io
import re
import tracemalloc
from typing import Any

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames

from pacsteward.base.errors import Invalid
from pacsteward.dicom import assemble as module
from pacsteward.dicom.assemble import OCTETS, BulkData, assemble

EXPLICIT = "1.2.840.10008.1.2.1"
JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"


def put_together(model: object, **bulk: BulkData) -> Dataset:
    def find(uri: str) -> BulkData:
        return bulk[uri]

    return pydicom.dcmread(io.BytesIO(b"".join(assemble(model, find))))


def described(name: str, **more: Any) -> tuple[dict[str, Any], Dataset]:
    """Return a shipped image, and its metadata with the pixel data apart."""
    data = pydicom.dcmread(str(get_testdata_file(name)))
    model = data.to_json_dict(1 << 20, lambda _element: "unused")
    model["7FE00010"] = {"vr": data["PixelData"].VR, "BulkDataURI": "pixels"}
    return model | more, data


def octets(data: bytes, syntax: str = "") -> BulkData:
    return BulkData(OCTETS, syntax, memoryview(data))


PIXELS = octets(bytes(32_768))
"""As many as CT_small.dcm describes."""


@pytest.mark.parametrize("size", [32_768, 3 * 1024 * 1024, 32_769])
def test_uncompressed_pixel_data_follow_their_metadata(size: int) -> None:
    model, data = described("CT_small.dcm")
    pixels = bytes(range(256)) * (size // 256) + bytes(size % 256)
    made = put_together(model, pixels=octets(pixels, EXPLICIT))
    assert made.file_meta.TransferSyntaxUID == EXPLICIT
    assert made.file_meta.MediaStorageSOPInstanceUID == data.SOPInstanceUID
    assert made.PixelData == pixels + bytes(len(pixels) % 2)
    del made.PixelData, data.PixelData
    assert made.to_json_dict() == data.to_json_dict()


def test_one_compressed_frame_becomes_one_fragment() -> None:
    model, data = described("MR_small_jp2klossless.dcm")
    (frame,) = generate_frames(data.PixelData, number_of_frames=1)
    bulk = BulkData("image/jp2", JPEG_2000_LOSSLESS, memoryview(frame))
    made = put_together(model, pixels=bulk)
    assert made.file_meta.TransferSyntaxUID == JPEG_2000_LOSSLESS
    assert (made.pixel_array == data.pixel_array).all()
    # The transfer syntax may stand among the metadata instead.
    model["00020010"] = {"vr": "UI", "Value": [JPEG_2000_LOSSLESS]}
    made = put_together(model, pixels=octets(frame))
    assert (made.pixel_array == data.pixel_array).all()
    assert 0x00020010 not in made


def test_bulk_data_stand_where_they_were_referred_to_whatever_their_vr() -> None:
    item = {
        "00283006": {"vr": "US", "BulkDataURI": "table"},
        "00283003": {"vr": "LO", "Value": ["Größe"]},
    }
    model, _ = described(
        "CT_small.dcm",
        **{
            "00283000": {"vr": "SQ", "Value": [None, item]},
            "FFFCFFFC": {"vr": "OB", "BulkDataURI": "padding"},
        },
    )
    made = put_together(model, pixels=PIXELS, table=octets(b"\1\0\2\0"), padding=octets(b"\0\0"))
    assert made.ModalityLUTSequence[1].LUTData == [1, 2]
    assert made.ModalityLUTSequence[1].LUTExplanation == "Größe"
    assert made.SpecificCharacterSet == "ISO_IR 192"
    assert made.DataSetTrailingPadding == b"\0\0"


def test_texts_are_in_the_character_set_that_the_file_names_wherever_they_stand() -> None:
    latin = {"00080005": {"vr": "CS", "Value": ["ISO_IR 100"]}}
    model, _ = described(
        "CT_small.dcm",
        **latin,
        **{
            "00081115": {
                "vr": "SQ",
                "Value": [latin | {"00081030": {"vr": "LO", "Value": ["Größe Ж"]}}],
            },
            "7FE10010": {"vr": "LO", "Value": ["HERSTELLER"]},
            "7FE11001": {"vr": "LO", "Value": ["Größe Ж"]},
        },
    )
    made = put_together(model, pixels=PIXELS)
    assert made.ReferencedSeriesSequence[0].StudyDescription == "Größe Ж"
    assert made[0x7FE11001].value == "Größe Ж"


def test_a_text_that_comes_apart_is_utf_8() -> None:
    text = "Größe Ж"
    model = {
        "00080005": {"vr": "CS", "Value": ["ISO_IR 100"]},
        "00080016": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.88.11"]},
        "00080018": {"vr": "UI", "Value": ["1.2.3"]},
        "0040A160": {"vr": "UT", "BulkDataURI": "text"},
    }
    made = put_together(model, text=octets(text.encode()))
    assert (made.SpecificCharacterSet, made.TextValue) == ("ISO_IR 192", text)


@pytest.mark.parametrize(("vr", "data"), [("US", b"\1\0" * 500_000), ("DS", b"1\\" * 500_000)])
def test_numbers_that_come_apart_are_passed_on_without_being_parsed(vr: str, data: bytes) -> None:
    item = {"00283006": {"vr": vr, "BulkDataURI": "other"}}
    model, _ = described(
        "CT_small.dcm",
        **{
            "00283000": {"vr": "SQ", "Value": [item]},
            "00283006": {"vr": vr, "BulkDataURI": "numbers"},
        },
    )
    bulk = {"pixels": PIXELS, "numbers": octets(data), "other": octets(data)}
    tracemalloc.start()
    try:
        size = sum(map(len, assemble(model, bulk.__getitem__)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size > 2 * len(data)
    assert peak < 12 * len(data)


def test_an_object_without_pixels_needs_no_bulk_data() -> None:
    model = {
        "00080016": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.88.11"]},
        "00080018": {"vr": "UI", "Value": ["1.2.3"]},
    }
    made = put_together(model)
    assert (made.file_meta.TransferSyntaxUID, made.SOPInstanceUID) == (EXPLICIT, "1.2.3")


@pytest.mark.parametrize(
    ("vr", "size"),
    [
        *(("AT", 4), ("OW", 2), ("OF", 4), ("OL", 4), ("OD", 8), ("OV", 8), ("US", 2), ("SS", 2)),
        *(("UL", 4), ("SL", 4), ("UV", 8), ("SV", 8), ("FL", 4), ("FD", 8)),
    ],
)
def test_bulk_data_are_whole_values_of_their_vr(vr: str, size: int) -> None:
    model, _ = described("CT_small.dcm", **{"00091010": {"vr": vr, "BulkDataURI": "x"}})
    made = put_together(model, pixels=PIXELS, x=octets(bytes(3 * size)))
    assert len(made.get_item(0x00091010).value) == 3 * size
    for wrong in (2 * size + 1, 3 * size - 1):
        with pytest.raises(Invalid, match=f"{wrong} bytes .* no values of VR {vr}"):
            put_together(model, pixels=PIXELS, x=octets(bytes(wrong)))


@pytest.mark.parametrize(
    ("more", "bulk", "why"),
    [
        ({"00280010": {"vr": "US"}}, PIXELS, "do not say how .*: Rows"),
        ({}, BulkData("image/jpeg", "", memoryview(b"12")), "image/jpeg, of no transfer syntax"),
        ({}, BulkData("image/png", JPEG_2000_LOSSLESS, memoryview(b"12")), "which is not 1.2"),
        ({}, octets(bytes(32_768), "1.2.3"), "cannot be kept in transfer syntax 1.2.3"),
        ({}, octets(bytes(32_768), "1.2.840.10008.1.2.2"), "cannot be kept"),
        (
            {"00280008": {"vr": "IS", "Value": [2]}},
            octets(bytes(32_768), JPEG_2000_LOSSLESS),
            "several compressed frames",
        ),
        ({}, octets(bytes(32_767)), "have 32767 bytes, and 32768 are described"),
        ({"00280010": {"vr": "US", "Value": [1, 2]}}, PIXELS, "no single numbers"),
        (
            {tag: {"vr": "US", "Value": [10**4000]} for tag in ("00280010", "00280011")},
            PIXELS,
            "no single numbers",
        ),
        ({"7FE00010": {"vr": "US", "Value": [1]}}, PIXELS, "VR US"),
        ({"00080000": {"vr": "OB", "BulkDataURI": "x"}}, PIXELS, "where no value can be"),
        ({"00080000": "text"}, PIXELS, "where no value can be"),
        ({"00283000": {"vr": "SQ", "BulkDataURI": "x"}}, PIXELS, "in place of a sequence"),
        ({"00080005": {"vr": "CS", "BulkDataURI": "x"}}, PIXELS, "of the character set"),
        ({"00280010": {"vr": "US", "BulkDataURI": "x"}}, PIXELS, "do not say how .*: Rows"),
        ({"7fe00010": {"vr": "OW", "BulkDataURI": "x"}}, PIXELS, "belong to one attribute"),
        ({"0040A160": {"vr": "UT", "BulkDataURI": "x"}}, octets(b"\xf6" * 32_768), "not in UTF-8"),
        (
            {"00080018": {"vr": "UI", "Value": ["1" * 70_000]}},
            PIXELS,
            "has 70000 characters",
        ),
        ({"00080005": {"vr": "US", "Value": [5]}}, PIXELS, "cannot be written"),
        (
            {"00280000": {"vr": "SQ", "Value": [{"00283006": {"vr": "US", "BulkDataURI": "x"}}]}},
            PIXELS,
            "where no value can be",
        ),
        (
            {"00283000": {"Value": [{"00283006": {"vr": "US", "BulkDataURI": "x"}}]}},
            PIXELS,
            "in a sequence without VR",
        ),
        ({"00280101": {"vr": "US", "Value": [1 << 40]}}, PIXELS, "cannot be written"),
        ({"not a tag": {}}, PIXELS, ""),
    ],
)
def test_what_is_not_certain_is_refused(more: dict[str, Any], bulk: BulkData, why: str) -> None:
    model, _ = described("CT_small.dcm", **more)
    with pytest.raises(Invalid) as said:
        put_together(model, pixels=bulk, x=bulk)
    assert re.search(why, said.value.why)


def test_bulk_data_that_must_fit_into_memory_are_bounded_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "HEADER_MAX", 6)
    more = {f"600{n}3000": {"vr": "OW", "BulkDataURI": f"overlay{n}"} for n in (0, 2)}
    model, _ = described("CT_small.dcm", **more)
    with pytest.raises(Invalid, match="may have 6 bytes of bulk data"):
        put_together(model, pixels=PIXELS, overlay0=octets(b"1234"), overlay2=octets(b"1234"))
