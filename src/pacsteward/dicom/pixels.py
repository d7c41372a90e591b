"""What the Image Pixel module says about the pixels of an instance, as one plain value.

What enters is one level of a data set; what leaves is an `ImagePixel` that a codec, the frame
table and the renderer can rely on: its numbers have been checked against each other and against
the limits, so arithmetic with them cannot surprise. Nothing is decoded here.

References
----------
PS3.3 C.7.6.3 (Image Pixel), C.7.6.24 and C.7.6.25 (floating point); PS3.5 8.1.1 (pixel encoding).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from pacsteward.base.errors import Exhausted, Invalid
from pacsteward.dicom.elements import Attributes
from pacsteward.dicom.tags import (
    BITS_ALLOCATED,
    BITS_STORED,
    COLUMNS,
    FLOAT_PIXEL_DATA,
    HIGH_BIT,
    NUMBER_OF_FRAMES,
    PHOTOMETRIC_INTERPRETATION,
    PIXEL_DATA,
    PIXEL_REPRESENTATION,
    PLANAR_CONFIGURATION,
    ROWS,
    SAMPLES_PER_PIXEL,
)

PIXELS_MAX: Final = 100_000_000
"""Pixels of one frame that we are willing to decode or to draw."""


# PS3.3 C.7.6.3.1.2: which interpretations have three samples. Some writers leave
# SamplesPerPixel out of single-sample images, so it is derived where it is absent.
_ONE_SAMPLE: Final = frozenset({"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", ""})


@dataclass(frozen=True, slots=True)
class ImagePixel:
    """How the pixels of one instance are laid out.

    Attributes
    ----------
    is_float
        Samples are IEEE 754 numbers of ``bits_allocated`` bits (Float or Double Float Pixel
        Data), else integers.
    """

    rows: int
    columns: int
    samples_per_pixel: int = 1
    bits_allocated: int = 8
    bits_stored: int = 8
    high_bit: int = 7
    is_signed: bool = False
    planar_configuration: int = 0
    photometric_interpretation: str = "MONOCHROME2"
    number_of_frames: int = 1
    is_float: bool = False

    @property
    def samples(self) -> int:
        """Samples of one frame, as if no chrominance were sub-sampled."""
        return self.rows * self.columns * self.samples_per_pixel

    @property
    def frame_bits(self) -> int:
        """Bits of one native frame: bit-packed for one bit, sub-sampled for YBR 422.

        PS3.5 8.1.1 (no padding between frames of one bit) and PS3.3 C.7.6.3.1.2.
        """
        bits = self.samples * self.bits_allocated
        if self.is_sub_sampled:
            return bits // 3 * 2
        return bits

    @property
    def frame_length(self) -> int:
        """Bytes of one native frame when it stands alone."""
        return (self.frame_bits + 7) // 8

    @property
    def is_sub_sampled(self) -> bool:
        """Whether native chrominance is shared by two neighbours (YBR_FULL_422)."""
        return self.samples_per_pixel == 3 and self.photometric_interpretation in (
            "YBR_FULL_422",
            "YBR_PARTIAL_422",
        )

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON knows them."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> ImagePixel:
        """Return the value that `to_json` described."""
        return cls(**fields)

    def check_drawable(self, pixels_max: int = PIXELS_MAX) -> None:
        """Raise `Exhausted` when one frame is larger than we are willing to decode."""
        if self.rows * self.columns > pixels_max:
            raise Exhausted(
                "The image was not decoded.",
                why=f"It has {self.rows} rows of {self.columns} pixels, and "
                f"{pixels_max} pixels are the limit.",
                remedy="Retrieve the object as it is stored.",
            )


def image_pixel(attributes: Attributes, pixel_tag: int = PIXEL_DATA) -> ImagePixel:
    """Return the Image Pixel module of one level of a data set.

    Parameters
    ----------
    attributes
        The level that holds the pixel data.
    pixel_tag
        The pixel data element that was found there.

    Raises
    ------
    Invalid
        When an attribute without which no pixel has a place is missing or impossible. The sender
        must correct the object.
    """
    rows = attributes.word(ROWS) or 0
    columns = attributes.word(COLUMNS) or 0
    if not rows or not columns:
        raise _impossible(f"Rows is {rows} and Columns is {columns}")
    photometric = attributes.text(PHOTOMETRIC_INTERPRETATION).upper()
    samples = attributes.word(SAMPLES_PER_PIXEL) or (1 if photometric in _ONE_SAMPLE else 3)
    if samples not in (1, 3, 4):
        raise _impossible(f"SamplesPerPixel is {samples}")
    is_float = pixel_tag != PIXEL_DATA
    bits_allocated = attributes.word(BITS_ALLOCATED) or 0
    if is_float:
        bits_allocated = 32 if pixel_tag == FLOAT_PIXEL_DATA else 64
    if bits_allocated not in (1, 8, 12, 16, 24, 32, 64):
        raise _impossible(f"BitsAllocated is {bits_allocated}")
    bits_stored = min(attributes.word(BITS_STORED) or bits_allocated, bits_allocated)
    high_bit = attributes.word(HIGH_BIT)
    if high_bit is None or not bits_stored - 1 <= high_bit < bits_allocated:
        high_bit = bits_stored - 1
    return ImagePixel(
        rows=rows,
        columns=columns,
        samples_per_pixel=samples,
        bits_allocated=bits_allocated,
        bits_stored=bits_stored,
        high_bit=high_bit,
        is_signed=attributes.word(PIXEL_REPRESENTATION) == 1,
        planar_configuration=1 if samples > 1 and attributes.word(PLANAR_CONFIGURATION) else 0,
        photometric_interpretation=photometric or "MONOCHROME2",
        number_of_frames=max(attributes.integer_string(NUMBER_OF_FRAMES) or 1, 1),
        is_float=is_float,
    )


def _impossible(found: str) -> Invalid:
    return Invalid(
        "The image was not read.",
        why=f"{found}, so its pixels have no place.",
        remedy="Ask the sender for a corrected object.",
    )
