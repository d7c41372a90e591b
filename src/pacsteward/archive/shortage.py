"""Whether an image has all the pixels that its header speaks of.

An object that was cut at the border of two elements, or whose writer put the pixels in short, is
whole as far as its structure goes. It is kept, since what is there may be all that is left of it;
but its sender must not hear that all is well.

References
----------
PS3.4 B.2.3 (B007: Data Set does not match SOP Class); PS3.3 C.7.6.3.1.2 (sub-sampled colour);
PS3.5 8.2 and A.4 (a frame has at least one fragment).
"""

from __future__ import annotations

from typing import Final

from pacsteward.dicom.header import Header, PixelData
from pacsteward.dicom.sop_classes import STORAGE_SOP_CLASSES
from pacsteward.dicom.tags import IMAGE_TYPE, ROWS
from pacsteward.dicom.uids import transfer_syntax

_PIXELS_ARE_NOT_REQUIRED: Final = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.4.2",  # MR Spectroscopy: its rows are of spectra
        "1.2.840.10008.5.1.4.1.1.66",  # Raw Data: whatever the vendor likes
    }
)
_HAS_PIXELS_ELSEWHERE: Final = frozenset(
    # JPIP: behind a URL (PS3.5 A.6, A.7, A.12).
    f"1.2.840.10008.1.2.4.{number}"
    for number in (94, 95, 204, 205)
)
_SAMPLES_SHARED: Final = {
    # Samples that a pixel has of its own, where neighbours share their colour.
    "YBR_FULL_422": 2.0,
    "YBR_PARTIAL_422": 2.0,
    "YBR_PARTIAL_420": 1.5,
}


def pixel_shortage(header: Header) -> str:
    """Say what pixels an object lacks; "" when it has them all, or need not have any."""
    pixels = header.pixel_data
    if pixels is None:
        return "It is an image and has no pixel data." if _needs_pixels(header) else ""
    if pixels.value_length is None:
        return _missing_frames(pixels, header.transfer_syntax_uid)
    wanted = _native_size_bytes(pixels)
    if pixels.value_length < wanted:
        return f"Its pixel data have {pixels.value_length} bytes; the header needs {wanted}."
    return ""


def _needs_pixels(header: Header) -> bool:
    """Whether a header speaks of an image.

    Image Type stands near its beginning, so images that were cut before their Rows are noticed,
    too. Objects of an image class with neither are headers only, and meant so.
    """
    # What private classes hold is their vendor's business.
    name = STORAGE_SOP_CLASSES.get(header.sop_class_uid, "")
    if not name or header.sop_class_uid in _PIXELS_ARE_NOT_REQUIRED:
        return False
    if header.transfer_syntax_uid in _HAS_PIXELS_ELSEWHERE:
        return False
    has_rows = header.values.get(ROWS, "0") not in ("", "0")
    return has_rows or ("Image Storage" in name and bool(header.values.get(IMAGE_TYPE)))


def _missing_frames(pixels: PixelData, transfer_syntax_uid: str) -> str:
    is_stream = transfer_syntax(transfer_syntax_uid).is_video
    wanted = 1 if is_stream else pixels.number_of_frames
    if pixels.fragment_count < wanted:
        return f"Its pixel data have {pixels.fragment_count} fragments for {wanted} frames."
    return ""


def _native_size_bytes(pixels: PixelData) -> int:
    """Return how long native pixel data must be; 0 where the header does not say."""
    samples = float(pixels.samples_per_pixel or 1)
    if samples == 3:
        samples = _SAMPLES_SHARED.get(pixels.photometric_interpretation.upper(), samples)
    values = pixels.rows * pixels.columns * pixels.number_of_frames * samples
    return int(values * pixels.bits_allocated + 7) // 8
