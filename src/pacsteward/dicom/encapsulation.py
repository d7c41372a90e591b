"""Fragments of encapsulated pixel data, and which of them make a frame.

What enters is a stored data set whose pixel data are encapsulated; what leaves is where its
fragments lie and where each frame begins among them, from the Extended Offset Table, the Basic
Offset Table, or the fragments themselves.

A table that disagrees with the fragments is not believed, because serving the wrong frame is worse
than serving none: writers have left the offsets of the uncompressed image behind.

References
----------
PS3.5 A.4 and Table A.4-1 (fragments, Basic Offset Table); PS3.3 C.7.6.3.1.8 (Extended Offset
Table).
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final, NamedTuple

from pacsteward.base.errors import Exhausted, Invalid
from pacsteward.dicom.elements import (
    HEADER_MAX,
    UNDEFINED_LENGTH,
    Attributes,
    DataSetReader,
    Element,
    Encoding,
)
from pacsteward.dicom.media import Codec
from pacsteward.dicom.tags import EXTENDED_OFFSET_TABLE, EXTENDED_OFFSET_TABLE_LENGTHS

Span = tuple[int, int]
"""Offset within the data set, and length."""

FRAGMENTS_MAX: Final = 1_000_000
"""The slides of pathology have a few hundred thousand."""

FRAGMENT: Final = struct.Struct("<QI")
FIRST: Final = struct.Struct("<I")

# What a frame of each codec begins with, for fragments that no table groups into frames.
_FRAME_STARTS: Final[dict[Codec, tuple[bytes, ...]]] = {
    Codec.JPEG: (b"\xff\xd8",),
    Codec.JPEG_LS: (b"\xff\xd8",),
    Codec.JPEG_2000: (b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP"),
    Codec.JPEG_XL: (b"\xff\x0a", b"\x00\x00\x00\x0cJXL"),
}
# What it ends with, where writers split frames so that starts alone do not tell (PS3.5 A.4).
_FRAME_ENDS: Final[dict[Codec, bytes]] = {
    Codec.JPEG: b"\xff\xd9",
    Codec.JPEG_LS: b"\xff\xd9",
    Codec.JPEG_2000: b"\xff\xd9",
}


class Fragments(NamedTuple):
    """Where fragments lie, packed for a cache.

    Attributes
    ----------
    spans
        Offset (64 bits) and length (32 bits) of each fragment, little endian.
    first
        Index (32 bits) of the first fragment of each frame; empty where each fragment is a frame.
    """

    spans: bytes
    first: bytes


def find_fragments(
    reader: DataSetReader,
    attributes: Attributes,
    encoding: Encoding,
    pixel_data: Element,
    number_of_frames: int,
    codec: Codec,
) -> Fragments:
    """Return the fragments of encapsulated pixel data, grouped into frames.

    Parameters
    ----------
    reader, encoding
        The stored data set.
    attributes
        Those before the pixel data, the Extended Offset Table among them.
    pixel_data
        The element, its end not looked for.
    number_of_frames
        As the data set says.
    codec
        Whose marks tell where frames begin, when no table does.

    Raises
    ------
    Exhausted
        When there are more than `FRAGMENTS_MAX`.
    Invalid
        When there are no fragments, or no telling which frame they belong to.
    """
    basic_offsets, first = _basic_offset_table(reader, pixel_data, encoding)
    spans = _extended_fragments(reader, attributes, encoding, first, number_of_frames)
    if spans is None:
        spans = _walk_fragments(reader, encoding, first)
    if not spans:
        raise Invalid(
            "The image was not read.",
            why="Its encapsulated pixel data are empty.",
            remedy="Have it corrected where it was made.",
        )
    packed = b"".join([FRAGMENT.pack(*span) for span in spans])
    if codec is Codec.VIDEO:
        return Fragments(packed, FIRST.pack(0))
    starts = _frame_starts(reader, spans, basic_offsets, first, number_of_frames, codec)
    if len(starts) == len(spans):
        return Fragments(packed, b"")
    return Fragments(packed, b"".join([FIRST.pack(index) for index in starts]))


def _basic_offset_table(
    reader: DataSetReader, pixel_data: Element, encoding: Encoding
) -> tuple[tuple[int, ...], int]:
    """Return the offsets of the Basic Offset Table, and where the first fragment item begins."""
    item = next(reader.items(pixel_data, encoding), None)
    if item is None:
        raise Invalid(
            "The image was not read.",
            why="Its encapsulated pixel data are empty.",
            remedy="Have it corrected where it was made.",
        )
    length = item.end - item.start
    offsets: tuple[int, ...] = ()
    if length % 4 == 0 and length <= HEADER_MAX:
        offsets = struct.unpack(f"<{length // 4}I", reader.value(item.start, length))
    return offsets, item.end


def _extended_fragments(
    reader: DataSetReader,
    attributes: Attributes,
    encoding: Encoding,
    first: int,
    count: int,
) -> list[Span] | None:
    """Return the fragments that the Extended Offset Table names, None where it cannot be trusted.

    It is believed when its offsets and lengths chain without a gap from the first fragment to the
    sequence delimiter, one for each frame; then no fragment needs to be visited.
    """
    raw_offsets = attributes.raw(EXTENDED_OFFSET_TABLE)
    raw_lengths = attributes.raw(EXTENDED_OFFSET_TABLE_LENGTHS)
    if raw_offsets is None or raw_lengths is None:
        return None
    if not len(raw_offsets) == len(raw_lengths) == 8 * count:
        return None
    spans: list[Span] = []
    expected = 0
    for (offset,), (length,) in zip(
        struct.iter_unpack("<Q", raw_offsets), struct.iter_unpack("<Q", raw_lengths), strict=True
    ):
        if offset != expected or length >= UNDEFINED_LENGTH:
            return None
        spans.append((first + offset + 8, length + length % 2))
        expected = offset + 8 + length + length % 2
    if first + expected + 8 > reader.size:
        return None
    end = reader.item_at(first + expected, encoding)
    return spans if end is None else None


def _walk_fragments(reader: DataSetReader, encoding: Encoding, first: int) -> list[Span]:
    """Return the fragments as their item headers give them."""
    spans: list[Span] = []
    position = first
    # Some writers leave the sequence delimiter out when nothing follows.
    while position < reader.size and (item := reader.item_at(position, encoding)) is not None:
        start, length = item
        spans.append((start, length))
        if len(spans) > FRAGMENTS_MAX:
            raise Exhausted(
                "The image was not read.",
                why=f"It has more than {FRAGMENTS_MAX} fragments.",
                remedy="Retrieve the object as it is stored.",
            )
        position = start + length
    return spans


def _frame_starts(
    reader: DataSetReader,
    fragments: list[Span],
    basic_offsets: tuple[int, ...],
    first: int,
    number_of_frames: int,
    codec: Codec,
) -> Sequence[int]:
    """Return the index of the first fragment of each frame."""
    if number_of_frames == 1:
        return (0,)
    if len(fragments) == number_of_frames:
        return range(number_of_frames)
    by_table = _starts_by_table(fragments, basic_offsets, first, number_of_frames)
    if by_table is not None:
        return by_table
    by_marker = _starts_by_marker(reader, fragments, codec)
    if len(by_marker) == number_of_frames:
        return by_marker
    by_end = _starts_by_end(reader, fragments, codec)
    if len(by_end) == number_of_frames:
        return by_end
    if len(fragments) < number_of_frames and len(by_marker) in (0, len(fragments)):
        # Fewer fragments than frames, each a frame of its own: the rest is missing.
        return range(len(fragments))
    raise Invalid(
        "The image was not read.",
        why=f"It says it has {number_of_frames} frames, and its {len(fragments)} fragments cannot "
        "be told apart: there is no usable offset table.",
        remedy="Ask the sender for the object with a Basic or Extended Offset Table.",
    )


def _starts_by_table(
    fragments: list[Span], offsets: tuple[int, ...], first: int, number_of_frames: int
) -> list[int] | None:
    """Return the starts a Basic Offset Table names, None where they are not fragments."""
    if len(offsets) != number_of_frames or (offsets and offsets[0] != 0):
        return None
    item_offsets = [offset - 8 - first for offset, _ in fragments]
    starts: list[int] = []
    for offset in offsets:
        index = bisect_left(item_offsets, offset)
        if index == len(item_offsets) or item_offsets[index] != offset:
            return None
        if starts and index <= starts[-1]:
            return None
        starts.append(index)
    return starts


def _starts_by_marker(reader: DataSetReader, fragments: list[Span], codec: Codec) -> list[int]:
    starts = _FRAME_STARTS.get(codec, ())
    return [
        index
        for index, (offset, length) in enumerate(fragments)
        if reader.value(offset, min(length, 6)).startswith(starts)
    ]


def _starts_by_end(reader: DataSetReader, fragments: list[Span], codec: Codec) -> list[int]:
    mark = _FRAME_ENDS.get(codec)
    if mark is None:
        return []
    starts = [0]
    for index, (offset, length) in enumerate(fragments[:-1]):
        tail = min(length, 10)
        if mark in reader.value(offset + length - tail, tail):
            starts.append(index + 1)
    return starts
