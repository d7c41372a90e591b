"""From stored values to the grey that a screen shows: modality, values of interest, presentation.

What enters are the attributes of one frame; what leaves is a `GrayscaleTransform` that turns an
array of stored values into bytes, 0 for black. Samples of up to 16 bits go through one table
that holds all three steps, so drawing an image costs one look-up for each pixel.

References
----------
PS3.3 C.11.1 (Modality LUT), C.11.2 (VOI LUT, window functions), C.7.6.16.2.9 and 2.10 (the same
as functional groups), C.7.5.1.1.2 (Pixel Padding Value); PS3.4 N.2 (order of the transformations).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pacsteward.base.late import late
from pacsteward.dicom.elements import Attributes
from pacsteward.dicom.pixels import ImagePixel
from pacsteward.dicom.samples import stored_values
from pacsteward.dicom.tags import (
    FRAME_VOI_LUT_SEQUENCE,
    LUT_DATA,
    LUT_DESCRIPTOR,
    MODALITY_LUT_SEQUENCE,
    PIXEL_PADDING_RANGE_LIMIT,
    PIXEL_PADDING_VALUE,
    PIXEL_VALUE_TRANSFORMATION_SEQUENCE,
    RESCALE_INTERCEPT,
    RESCALE_SLOPE,
    VOI_LUT_FUNCTION,
    VOI_LUT_SEQUENCE,
    WINDOW_CENTER,
    WINDOW_WIDTH,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
else:
    np = late("numpy")

Values: TypeAlias = "npt.NDArray[Any]"
Bytes: TypeAlias = "npt.NDArray[np.uint8]"


_TABLE_BITS_MAX: Final = 16
_LUT_ENTRIES_MAX: Final = 65536

# Without any window an image is stretched between these parts of its values: a few hot or dead
# pixels must not decide how all the others look.
_DARKEST: Final = 0.005
_BRIGHTEST: Final = 0.995

# Eight-bit values that stay below this are numbers of segments, not shades.
_LABELS_MAX: Final = 16


class VoiFunction(StrEnum):
    """How values of interest become grey (PS3.3 C.11.2.1.2 and C.11.2.1.3)."""

    LINEAR = "LINEAR"
    LINEAR_EXACT = "LINEAR_EXACT"
    SIGMOID = "SIGMOID"


@dataclass(frozen=True, slots=True)
class Window:
    """A range of modality values that is spread over all greys."""

    center: float
    width: float
    function: VoiFunction = VoiFunction.LINEAR

    def grey(self, values: Values) -> Values:
        """Return values between 0 and 1."""
        if self.function is VoiFunction.SIGMOID:
            with np.errstate(over="ignore"):
                return 1.0 / (1.0 + np.exp(-4.0 * (values - self.center) / self.width))
        if self.function is VoiFunction.LINEAR_EXACT:
            return np.clip((values - self.center) / self.width + 0.5, 0.0, 1.0)
        if self.width <= 1:
            return (values > self.center - 0.5).astype(np.float32)
        return np.clip((values - (self.center - 0.5)) / (self.width - 1.0) + 0.5, 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class LookupTable:
    """A table of PS3.3 C.11.1.1 or C.11.2.1.1: entries for values from ``first`` on."""

    first: int
    bits: int
    entries: Values

    def look_up(self, values: Values) -> Values:
        """Return the entries of values; those outside get the first or last entry."""
        index = np.clip(np.floor(values) - self.first, 0, len(self.entries) - 1)
        found: Values = self.entries[index.astype(np.int64)]
        return found

    def grey(self, values: Values) -> Values:
        """Return entries between 0 and 1."""
        # Descriptors that promise 16 bits over tables of 12 are common and would draw black.
        top = float(self.entries.max(initial=1))
        full = float((1 << self.bits) - 1)
        while full > 255 and top <= full / 2:
            full = (full - 1) / 2
        return np.minimum(self.look_up(values) / full, 1.0)


@dataclass(frozen=True, slots=True)
class GrayscaleTransform:
    """All that lies between the stored values of one frame and its greys.

    Attributes
    ----------
    slope, intercept
        The linear modality transformation, where ``modality_lut`` is None.
    voi
        Window or table; None spreads the values that there are.
    padding
        First and last stored value that stand for no image at all.
    is_inverse
        Low values are white (MONOCHROME1).
    """

    image: ImagePixel
    slope: float = 1.0
    intercept: float = 0.0
    modality_lut: LookupTable | None = None
    voi: Window | LookupTable | None = None
    padding: tuple[int, int] | None = None
    is_inverse: bool = False

    def apply(self, samples: Values) -> Bytes:
        """Return the greys of decoded samples, an array of the same shape."""
        chosen = self
        if self.voi is None:
            chosen = replace(self, voi=self._spread(stored_values(samples, self.image)))
        if self.image.is_float or self.image.bits_stored > _TABLE_BITS_MAX:
            return chosen._greys(stored_values(samples, self.image).astype(np.float64))
        table = _cached_table(chosen) if chosen._is_plain() else chosen._table()
        # `take` with a mode is twice as fast as indexing; no value is outside of the table.
        return table.take(self._patterns(samples), mode="clip")

    def _patterns(self, samples: Values) -> Values:
        """Return the stored bits of samples, and nothing else that is in their containers."""
        patterns = samples.view(f"u{samples.dtype.itemsize}")
        bits = self.image.bits_stored
        if below := self.image.high_bit + 1 - bits:
            patterns = patterns >> below
        if bits < samples.dtype.itemsize * 8:
            patterns = patterns & patterns.dtype.type((1 << bits) - 1)
        return patterns

    def _is_plain(self) -> bool:
        """Whether the transformation is numbers only, so that it can be a key."""
        return self.modality_lut is None and not isinstance(self.voi, LookupTable)

    def _table(self) -> Bytes:
        """Return the grey of each pattern of bits; those of negative values come last."""
        bits = self.image.bits_stored
        domain = np.arange(1 << bits, dtype=np.float64)
        if self.image.is_signed:
            domain[1 << (bits - 1) :] -= 1 << bits
        return self._greys(domain)

    def _modality(self, values: Values) -> Values:
        if self.modality_lut is not None:
            return self.modality_lut.look_up(values).astype(np.float64)
        if self.slope == 1.0 and self.intercept == 0.0:
            return values
        return values * self.slope + self.intercept

    def _greys(self, values: Values) -> Bytes:
        assert self.voi is not None
        grey = self.voi.grey(self._modality(values))
        if self.is_inverse:
            grey = 1.0 - grey
        greys: Bytes = (np.nan_to_num(grey) * 255.0 + 0.5).astype(np.uint8)
        if self.padding is not None:
            # Black whatever the polarity: padding is no tissue (PS3.3 C.7.5.1.1.2).
            low, high = self.padding
            greys[(values >= low) & (values <= high)] = 0
        return greys

    def _spread(self, stored: Values) -> Window:
        """Return the window for an image that has none.

        Eight bits are shown whole: they come from devices that made the picture themselves.
        Deeper images are spread between the values that nearly all pixels have.
        """
        if self.image.bits_stored <= 8 and not self.image.is_float:
            ends = self._whole(stored)
        else:
            ends = self._ends(stored)
        first, last = sorted(self._modality(ends).tolist())
        if first == last:
            last = first + 1.0
        return Window((first + last) / 2, last - first, VoiFunction.LINEAR_EXACT)

    def _whole(self, stored: Values) -> Values:
        """Return the range of the samples, for label maps that of the labels."""
        half = 1 << (self.image.bits_stored - 1)
        if self.image.is_signed:
            return np.array([-half, half - 1], np.float64)
        highest = int(stored.max(initial=0))
        is_label_map = half > 1 and 0 < highest < _LABELS_MAX
        return np.array([0, highest if is_label_map else 2 * half - 1], np.float64)

    def _ends(self, stored: Values) -> Values:
        shown = stored.reshape(-1)
        if self.image.is_float:
            shown = shown[np.isfinite(shown)]
        if self.padding is not None:
            low, high = self.padding
            shown = shown[(shown < low) | (shown > high)]
        if not shown.size:
            return np.zeros(2)
        ends = np.quantile(shown[:: max(shown.size // 65536, 1)], (_DARKEST, _BRIGHTEST))
        if ends[0] == ends[1]:
            ends = np.array([shown.min(), shown.max()])
        return ends.astype(np.float64)


@lru_cache(maxsize=16)
def _cached_table(transform: GrayscaleTransform) -> Bytes:
    """Return a table once for all images of a series that share their numbers."""
    return transform._table()


def grayscale_transform(
    levels: Sequence[Attributes], image: ImagePixel, window: Window | None = None
) -> GrayscaleTransform:
    """Return the transformation of one frame.

    Parameters
    ----------
    levels
        Where its attributes may be, the most specific first: the functional groups of the frame,
        those shared by all frames, the data set.
    image
        The Image Pixel module.
    window
        Asked for in place of what the object proposes.
    """
    modality = _first_with(
        levels, PIXEL_VALUE_TRANSFORMATION_SEQUENCE, (RESCALE_SLOPE, MODALITY_LUT_SEQUENCE)
    )
    slope, intercept, table = 1.0, 0.0, None
    if modality is not None:
        table = _lookup_table(modality, MODALITY_LUT_SEQUENCE, image.is_signed)
        slope = modality.decimal(RESCALE_SLOPE) or 1.0
        intercept = modality.decimal(RESCALE_INTERCEPT) or 0.0
    return GrayscaleTransform(
        # Only what the greys depend on, so that the frames of a series share one table.
        image=replace(image, rows=1, columns=1, number_of_frames=1),
        slope=slope,
        intercept=intercept,
        modality_lut=table,
        voi=_exact_for_floats(
            window or _proposed(levels, image, intercept < 0 or image.is_signed), image
        ),
        padding=_padding(levels[-1], image),
        is_inverse=image.photometric_interpretation == "MONOCHROME1",
    )


def _first_with(levels: Sequence[Attributes], group: int, tags: Sequence[int]) -> Attributes | None:
    """Return the attributes that hold any of ``tags``, inside a functional group or plainly."""
    for level in levels:
        for place in (level.item(group), level):
            if place is not None and any(tag in place.elements for tag in tags):
                return place
    return None


def _proposed(
    levels: Sequence[Attributes], image: ImagePixel, has_negative: bool
) -> Window | LookupTable | None:
    """Return what the object itself proposes; the table where it has both.

    Both are alternatives to the standard (PS3.3 C.11.2.1.1); makers of projection X-ray put their
    processing into the table, and a window beside it for displays without tables.
    """
    place = _first_with(levels, FRAME_VOI_LUT_SEQUENCE, (VOI_LUT_SEQUENCE, WINDOW_CENTER))
    if place is None:
        return None
    table = _lookup_table(place, VOI_LUT_SEQUENCE, has_negative)
    if table is not None:
        return table
    center, width = place.decimal(WINDOW_CENTER), place.decimal(WINDOW_WIDTH)
    if center is None or width is None or width <= 0:
        return None
    return Window(center, width, _voi_function(place.text(VOI_LUT_FUNCTION)))


def _exact_for_floats(
    voi: Window | LookupTable | None, image: ImagePixel
) -> Window | LookupTable | None:
    """Return the window without the half steps of LINEAR, which are those of integers.

    A parametric map between 0 and 1 would be drawn in black and white only.
    """
    if image.is_float and isinstance(voi, Window) and voi.function is VoiFunction.LINEAR:
        return Window(voi.center, voi.width, VoiFunction.LINEAR_EXACT)
    return voi


def _voi_function(name: str) -> VoiFunction:
    try:
        return VoiFunction(name.upper())
    except ValueError:
        return VoiFunction.LINEAR  # the default where absent (PS3.3 C.11.2.1.3)


def _lookup_table(place: Attributes, sequence: int, is_signed: bool) -> LookupTable | None:
    item = place.item(sequence)
    if item is None:
        return None
    descriptor = item.words(LUT_DESCRIPTOR)
    if len(descriptor) != 3:
        return None
    count = descriptor[0] or _LUT_ENTRIES_MAX
    # Only the first value mapped may be negative (PS3.3 C.11.1.1); the others never are.
    first = descriptor[1] - 65536 if is_signed and descriptor[1] > 32767 else descriptor[1]
    bits = min(max(descriptor[2], 8), 16)
    entries = item.words(LUT_DATA)
    raw = item.raw(LUT_DATA) or b""
    if len(entries) < count <= len(raw):
        entries = tuple(raw[:count])  # eight bits each, packed
    if not entries:
        return None
    unsigned = np.array(entries[:count], np.int64) & 0xFFFF
    return LookupTable(first, bits, unsigned)


def _padding(attributes: Attributes, image: ImagePixel) -> tuple[int, int] | None:
    if image.is_float:
        return None
    value = attributes.word(PIXEL_PADDING_VALUE, is_signed=image.is_signed)
    if value is None:
        return None
    limit = attributes.word(PIXEL_PADDING_RANGE_LIMIT, is_signed=image.is_signed)
    low, high = sorted((value, value if limit is None else limit))
    return low, high
