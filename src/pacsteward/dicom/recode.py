"""Write a data set down again in another encoding: implicit or explicit, little or big endian.

What enters is a stored data set and two encodings; what leaves are the bytes of the same data set
in the second. Values are carried over as they are, with their bytes swapped where the byte order
changes. Nothing is parsed into numbers or names and printed again, so the spelling of a decimal,
an unknown character set and private elements survive.

An element whose representation nobody knows becomes UN in explicit VR, as the standard wants it.

References
----------
PS3.5 6.2.2 (UN), 7.1 (elements), 7.2 (group length), 7.3 (byte order), 7.5 (sequences), Annex A.1
(implicit VR).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

from pacsteward.base.errors import Exhausted
from pacsteward.dicom.attributes import format_tag, is_private, vr_of
from pacsteward.dicom.elements import (
    HEADER_MAX,
    SHORT_VRS,
    UNDEFINED_LENGTH,
    Attributes,
    DataSetReader,
    Element,
    Encoding,
    item_encoding,
)
from pacsteward.dicom.frames import pixel_vr, swap_bytes, swap_unit
from pacsteward.dicom.tags import (
    BITS_ALLOCATED,
    ICON_IMAGE_SEQUENCE,
    ITEM,
    ITEM_DELIMITATION_ITEM,
    PIXEL_DATA,
    PIXEL_REPRESENTATION,
    SEQUENCE_DELIMITATION_ITEM,
)

_COPY_BYTES: Final = 1 << 20

# Sizes of what is swapped, for the representations that are not strings or bytes (PS3.5 7.3).
_UNITS: Final = {
    "US": 2, "SS": 2, "OW": 2, "AT": 2,
    "UL": 4, "SL": 4, "FL": 4, "OF": 4, "OL": 4,
    "FD": 8, "OD": 8, "SV": 8, "UV": 8, "OV": 8,
}  # fmt: skip

# PS3.6 gives "US or SS" to these; Pixel Representation decides (PS3.5 A.1, PS3.3 C.7.6.3).
SIGNED_WITH_PIXELS: Final = frozenset(
    {
        0x00189810,  # Zero Velocity Pixel Value
        0x00221452,  # Mapped Pixel Value
        0x00280071,  # Perimeter Value (retired)
        0x00280104,  # Smallest Valid Pixel Value (retired)
        0x00280105,  # Largest Valid Pixel Value (retired)
        0x00280106,  # Smallest Image Pixel Value
        0x00280107,  # Largest Image Pixel Value
        0x00280108,  # Smallest Pixel Value in Series
        0x00280109,  # Largest Pixel Value in Series
        0x00280110,  # Smallest Image Pixel Value in Plane (retired)
        0x00280111,  # Largest Image Pixel Value in Plane (retired)
        0x00280120,  # Pixel Padding Value
        0x00280121,  # Pixel Padding Range Limit
        0x00281100,  # Gray Lookup Table Descriptor (retired)
        0x00281101,  # Red Palette Color Lookup Table Descriptor
        0x00281102,  # Green Palette Color Lookup Table Descriptor
        0x00281103,  # Blue Palette Color Lookup Table Descriptor
        0x00281111,  # Large Red Palette Color Lookup Table Descriptor (retired)
        0x00281112,  # Large Green Palette Color Lookup Table Descriptor (retired)
        0x00281113,  # Large Blue Palette Color Lookup Table Descriptor (retired)
        0x00283002,  # LUT Descriptor
        0x00409211,  # Real World Value Last Value Mapped
        0x00409216,  # Real World Value First Value Mapped
        0x00603004,  # Histogram First Bin Value
        0x00603006,  # Histogram Last Bin Value
    }
)


class Value(NamedTuple):
    """A value to be written in place of a stored one, already in the target's byte order."""

    vr: str
    data: bytes


Edits = Mapping[int, Value | None]
"""Elements of one level to be set, or left out where the value is None."""

IconEdits = Callable[[Attributes], Edits]
"""Says what changes in an icon: its pixel data have the transfer syntax of the image around it."""


def no_icon_edits(_icon: Attributes) -> Edits:
    """Leave icons as they are."""
    return {}


def recode(
    reader: DataSetReader,
    span: tuple[int, int],
    source: Encoding,
    target: Encoding,
    *,
    edits: Edits | None = None,
    icon_edits: IconEdits = no_icon_edits,
    is_signed: bool = False,
) -> Iterator[bytes]:
    """Yield a run of elements in another encoding.

    Parameters
    ----------
    reader
        The stored data set.
    span
        Offsets of the first element and after the last.
    source, target
        How it is encoded, and how it is wanted.
    edits
        Elements to be set or left out at this level.
    icon_edits
        Asked for each item of an Icon Image Sequence (0088,0200).
    is_signed
        Pixel Representation, where it lies before the run.

    Notes
    -----
    Group lengths are left out: they are retired, and would be wrong (PS3.5 7.2).
    """
    return _Recoder(reader, source, target, icon_edits).level(
        span, source, edits or {}, is_signed, 0
    )


class _Recoder:
    """One change of encoding, walked level by level."""

    def __init__(
        self, reader: DataSetReader, source: Encoding, target: Encoding, icon_edits: IconEdits
    ) -> None:
        self._reader = reader
        self._target = target
        self._icon_edits = icon_edits
        self._keeps_bytes = source == target

    def level(
        self,
        span: tuple[int, int],
        source: Encoding,
        edits: Edits,
        is_signed: bool,
        depth: int,
    ) -> Iterator[bytes]:
        """Yield the elements of one data set or item."""
        pending = sorted(edits)
        bits_allocated = 16
        for element in self._reader.elements(*span, source, depth=depth):
            tag = element.tag
            while pending and pending[0] <= tag:
                yield from self._edited(pending[0], edits[pending.pop(0)])
            if tag in edits or tag & 0xFFFF == 0:
                continue
            if tag in (PIXEL_REPRESENTATION, BITS_ALLOCATED):
                word = self._word(element, source)
                is_signed = word == 1 if tag == PIXEL_REPRESENTATION else is_signed
                bits_allocated = word if tag == BITS_ALLOCATED else bits_allocated
            yield from self._element(element, source, is_signed, bits_allocated, depth)
        for tag in pending:
            yield from self._edited(tag, edits[tag])

    def _edited(self, tag: int, value: Value | None) -> Iterator[bytes]:
        if value is not None:
            yield header(tag, value.vr, len(value.data), self._target)
            yield value.data

    def _element(
        self, element: Element, source: Encoding, is_signed: bool, bits: int, depth: int
    ) -> Iterator[bytes]:
        # An element in implicit VR, strayed into an explicit data set, is put right as well.
        is_regular = bool(element.vr) or self._target.is_implicit
        if self._keeps_bytes and is_regular and element.tag != ICON_IMAGE_SEQUENCE:
            yield from self._copied(element.start, element.end)
            return
        swaps = source.is_little_endian != self._target.is_little_endian
        vr = element.vr
        if not vr or (vr == "UN" and swaps):
            vr = _implied_vr(element, is_signed, bits)
        if element.tag == PIXEL_DATA and element.length == UNDEFINED_LENGTH:
            yield header(element.tag, vr, element.length, self._target)
            yield from self._fragments(element)
        elif vr == "SQ" or element.length == UNDEFINED_LENGTH:
            yield from self._sequence(element, source, is_signed, depth)
        else:
            unit = _swap_unit(element.tag, vr, bits) if swaps else 1
            yield header(element.tag, vr, element.length, self._target)
            for piece in self._copied(element.value, element.end):
                yield swap_bytes(piece, unit)

    def _sequence(
        self, element: Element, source: Encoding, is_signed: bool, depth: int
    ) -> Iterator[bytes]:
        """Yield a sequence. Items keep whether their end is counted or delimited.

        It is held as a whole, since its new length stands before it.
        """
        if element.end - element.value > HEADER_MAX:
            raise Exhausted(
                "The object was not converted.",
                why=f"{format_tag(element.tag)} takes more than {HEADER_MAX} bytes.",
                remedy="Retrieve the object as it is stored.",
            )
        inner = item_encoding(element, source)
        parts: list[bytes] = []
        for item in self._reader.items(element, source, depth=depth):
            edits: Edits = {}
            if element.tag == ICON_IMAGE_SEQUENCE:
                edits = self._icon_edits(Attributes.of(self._reader, inner, item.start, item.end))
            span = (item.start, item.end)
            content = b"".join(self.level(span, inner, edits, is_signed, depth + 1))
            if item.is_delimited:
                parts += (
                    header(ITEM, "", UNDEFINED_LENGTH, self._target),
                    content,
                    header(ITEM_DELIMITATION_ITEM, "", 0, self._target),
                )
            else:
                parts += (header(ITEM, "", len(content), self._target), content)
        if element.length == UNDEFINED_LENGTH:
            yield header(element.tag, "SQ", UNDEFINED_LENGTH, self._target)
            yield from parts
            yield header(SEQUENCE_DELIMITATION_ITEM, "", 0, self._target)
        else:
            yield header(element.tag, "SQ", sum(map(len, parts)), self._target)
            yield from parts

    def _fragments(self, element: Element) -> Iterator[bytes]:
        """Yield the fragments of encapsulated pixel data, which are the same in all encodings."""
        yield from self._copied(element.value, element.end)

    def _copied(self, start: int, end: int) -> Iterator[bytes]:
        """Yield a range in pieces, none of which cuts a number in two."""
        for position in range(start, end, _COPY_BYTES):
            yield self._reader.value(position, min(_COPY_BYTES, end - position))

    def _word(self, element: Element, source: Encoding) -> int:
        raw = self._reader.value(element.value, min(element.length, 2))
        return int.from_bytes(raw, "little" if source.is_little_endian else "big")


def header(tag: int, vr: str, length: int, encoding: Encoding) -> bytes:
    """Return the bytes before a value: tag, representation and length (PS3.5 7.1.2, 7.1.3).

    An empty ``vr`` is for items and delimiters, which have none. A value too long for its
    representation's 16-bit length is written as UN (PS3.5 6.2.2, note 3).
    """
    order = "<" if encoding.is_little_endian else ">"
    group, element = tag >> 16, tag & 0xFFFF
    if encoding.is_implicit or not vr:
        return struct.pack(f"{order}HHI", group, element, length)
    if vr.encode() in SHORT_VRS:
        if length <= 0xFFFF:
            return struct.pack(f"{order}HH2sH", group, element, vr.encode(), length)
        vr = "UN"
    return struct.pack(f"{order}HH2s2xI", group, element, vr.encode(), length)


def _implied_vr(element: Element, is_signed: bool, bits_allocated: int) -> str:
    """Return the representation of an element that was stored without one (PS3.5 A.1)."""
    if element.length == UNDEFINED_LENGTH and element.tag != PIXEL_DATA:
        return "SQ"
    if element.tag in SIGNED_WITH_PIXELS:
        return "SS" if is_signed else "US"
    if element.tag == PIXEL_DATA:
        return pixel_vr(element.tag, bits_allocated)
    vr = vr_of(element.tag)
    if vr == "SQ" and is_private(element.tag):
        return "UN"
    return vr


def _swap_unit(tag: int, vr: str, bits_allocated: int) -> int:
    """Return the size of the units that are reversed when the byte order changes."""
    if tag == PIXEL_DATA:
        return swap_unit(tag, vr, bits_allocated)
    return _UNITS.get(vr, 1)
