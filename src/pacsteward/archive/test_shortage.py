"""Images that lack pixels are noticed, and those that are whole are left in peace."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pacsteward.archive.shortage import pixel_shortage
from pacsteward.dicom.header import Header, PixelData
from pacsteward.dicom.tags import ROWS

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"


def header(pixels: PixelData | None, *, sop_class: str = CT, syntax: str = EXPLICIT) -> Header:
    return Header(
        sop_class, "1.2.3", "1.2.1", "1.2.2", "", {ROWS: "4"}, (), pixels, 100, syntax, False
    )


def pixels(
    length: int | None,
    *,
    samples: int = 1,
    bits: int = 16,
    frames: int = 1,
    photometric: str = "MONOCHROME2",
    fragments: int = 0,
) -> PixelData:
    return PixelData(
        0x7FE00010, "OW", 0, length, 0, fragments, 4, 5, samples, bits, frames, photometric
    )


@pytest.mark.parametrize(
    "whole",
    [
        pixels(40),
        pixels(41),
        pixels(80, frames=2),
        pixels(60, samples=3, bits=8, photometric="RGB"),
        pixels(40, samples=3, bits=8, photometric="YBR_FULL_422"),
        pixels(30, samples=3, bits=8, photometric="YBR_PARTIAL_420"),
        pixels(3, bits=1),
        pixels(0, bits=0),
        pixels(None, fragments=1),
        pixels(None, fragments=3, frames=2),
    ],
)
def test_r12_images_with_all_their_pixels_raise_no_doubt(whole: PixelData) -> None:
    assert pixel_shortage(header(whole)) == ""


@pytest.mark.parametrize(
    "short",
    [
        pixels(39),
        pixels(0),
        pixels(40, frames=2),
        pixels(40, samples=3, bits=8, photometric="RGB"),
        pixels(2, bits=1),
        pixels(None),
        pixels(None, fragments=1, frames=2),
        None,
    ],
)
def test_r12_images_that_lack_pixels_are_noticed(short: PixelData | None) -> None:
    assert pixel_shortage(header(short)).startswith("It")


@pytest.mark.parametrize(
    ("sop_class", "syntax"),
    [
        ("1.2.840.10008.5.1.4.1.1.4.2", EXPLICIT),  # spectra have rows and no pixels
        ("1.3.12.2.1107.5.9.1", EXPLICIT),  # private
        (CT, "1.2.840.10008.1.2.4.94"),  # pixels behind a URL
    ],
)
def test_objects_that_need_no_pixels_raise_no_doubt(sop_class: str, syntax: str) -> None:
    assert pixel_shortage(header(None, sop_class=sop_class, syntax=syntax)) == ""


def test_r12_an_image_that_was_cut_before_its_rows_is_noticed() -> None:
    begun = replace(header(None), values={0x00080008: "ORIGINAL\\PRIMARY"})
    assert pixel_shortage(begun)
    dose = replace(begun, sop_class_uid="1.2.840.10008.5.1.4.1.1.481.2")
    assert pixel_shortage(dose) == ""


def test_a_header_alone_raises_no_doubt() -> None:
    assert pixel_shortage(replace(header(None), values={})) == ""


def test_a_video_is_one_stream_whatever_its_number_of_frames() -> None:
    video = header(pixels(None, fragments=1, frames=500), syntax="1.2.840.10008.1.2.4.102")
    assert pixel_shortage(video) == ""
