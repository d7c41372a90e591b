"""What a BulkDataURI names: one value of a stored object, found without reading the rest.

A path is made of tags, and of item numbers (from 0) after each sequence: ``00281201``,
``52009229/0/00209116/2/00189087``. What leaves is the value as Explicit VR Little Endian would have
it (PS3.18 8.7.3.3.1), whatever the object is stored in, with its media type: documents and videos
bear their own, everything else is ``application/octet-stream``.

A value is given as spans of the stored data set where it leaves as it lies, so that a film of two
gigabytes can be sent in ranges.

References
----------
PS3.18 8.7.3 (media types), 10.4.1.1.5 (bulk data), F.2.6 (BulkDataURI).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pacsteward.base.errors import Exhausted, Invalid, NotFound, Unsupported
from pacsteward.dicom.attributes import vr_of
from pacsteward.dicom.deflated import InflatedFile
from pacsteward.dicom.elements import (
    FIRST_LEVEL_MAX,
    UNDEFINED_LENGTH,
    Attributes,
    DataSetReader,
    Element,
    Encoding,
    RangeReader,
    item_encoding,
)
from pacsteward.dicom.frames import swap_bytes, swap_unit
from pacsteward.dicom.media import encoding_of, media_type
from pacsteward.dicom.tags import (
    BITS_ALLOCATED,
    DOUBLE_FLOAT_PIXEL_DATA,
    ENCAPSULATED_DOCUMENT,
    ENCAPSULATED_DOCUMENT_LENGTH,
    FLOAT_PIXEL_DATA,
    MIME_TYPE_OF_ENCAPSULATED_DOCUMENT,
    NUMBER_OF_FRAMES,
    PIXEL_DATA,
)
from pacsteward.dicom.uids import transfer_syntax

OCTETS: Final = "application/octet-stream"
PIXEL_TAGS: Final = frozenset({PIXEL_DATA, FLOAT_PIXEL_DATA, DOUBLE_FLOAT_PIXEL_DATA})

_TAG: Final = re.compile(r"[0-9A-Fa-f]{8}")
_ITEM_NUMBER: Final = re.compile(r"[0-9]{1,9}")
_MEDIA_TYPE: Final = re.compile(r"[a-z]+/[a-z0-9][a-z0-9.+-]{0,100}")


_ITEM_HEAD: Final = struct.Struct("<HHI")
IN_MEMORY_MAX: Final = 64 << 20
"""Values up to so many bytes are converted: inflated, or turned from big endian."""

_ITEM: Final = (0xFFFE, 0xE000)
_SEQUENCE_END: Final = (0xFFFE, 0xE0DD)

# Bytes of one number, for values that are stored in big endian.
_UNITS: Final = {
    **dict.fromkeys(("OW", "US", "SS", "AT"), 2),
    **dict.fromkeys(("OF", "FL", "UL", "SL", "OL"), 4),
    **dict.fromkeys(("OD", "FD", "OV", "SV", "UV"), 8),
}


@dataclass(frozen=True, slots=True)
class BulkData:
    """One value, and how it leaves.

    Parameters
    ----------
    spans
        Offset and length of each part in the stored data set, to be read and joined; empty when
        `value` holds it.
    value
        The value itself, where it does not leave as it lies.
    """

    media_type: str
    length: int
    spans: tuple[tuple[int, int], ...] = ()
    value: bytes | None = None

    def read(self, read: RangeReader, offset: int = 0, length: int | None = None) -> bytes:
        """Return a range of the value, all of it by default.

        Parameters
        ----------
        read
            Reads the stored data set.
        """
        end = self.length if length is None else min(offset + length, self.length)
        if self.value is not None:
            return self.value[offset:end]
        return b"".join(self._pieces(read, offset, end))

    def _pieces(self, read: RangeReader, offset: int, end: int) -> Iterator[bytes]:
        position = 0
        for start, size in self.spans:
            first, last = max(offset - position, 0), min(end - position, size)
            if first < last:
                yield read(start + first, last - first)
            position += size


def parse_path(path: str) -> tuple[int, ...]:
    """Return tags and item numbers in turn.

    Raises
    ------
    NotFound
        It is no path of ours.
    """
    numbers = []
    for place, part in enumerate(path.strip("/").split("/")):
        is_tag = place % 2 == 0
        if not (_TAG if is_tag else _ITEM_NUMBER).fullmatch(part):
            raise _no_such_value("It is not made of tags and item numbers in turn.")
        numbers.append(int(part, 16 if is_tag else 10))
    if len(numbers) % 2 == 0:
        raise _no_such_value("It ends with an item number.")
    return tuple(numbers)


def format_path(numbers: tuple[int, ...]) -> str:
    """Return the path of tags and item numbers in turn."""
    return "/".join(
        f"{number:08X}" if place % 2 == 0 else str(number) for place, number in enumerate(numbers)
    )


def locate(
    read: RangeReader,
    size: int,
    transfer_syntax_uid: str,
    path: str,
    *,
    scratch: Path | None = None,
) -> BulkData:
    """Find one value of a stored data set.

    Parameters
    ----------
    read
        Reads a range of the stored data set.
    size
        Its length in bytes.
    scratch
        Where a large deflated object is inflated to; None for the system's temporary folder.

    Raises
    ------
    NotFound
        There is no such value.
    Exhausted
        It has to be converted, and is too large for that.
    Unsupported
        It is the pixel data of several compressed frames, which only make sense one by one.
    Invalid
        The data set is damaged.
    """
    numbers = parse_path(path)
    encoding = encoding_of(transfer_syntax_uid)
    if transfer_syntax(transfer_syntax_uid).is_deflated:
        plain = InflatedFile(read, size, scratch)
        try:
            found = _located(
                DataSetReader(plain.read, plain.size), encoding, transfer_syntax_uid, numbers
            )
            return BulkData(found.media_type, found.length, value=_whole(found, plain.read))
        finally:
            plain.close()
    return _located(DataSetReader(read, size), encoding, transfer_syntax_uid, numbers)


def _located(
    reader: DataSetReader, encoding: Encoding, transfer_syntax_uid: str, numbers: tuple[int, ...]
) -> BulkData:
    level, element, inner = _find(reader, encoding, numbers)
    if element.length == UNDEFINED_LENGTH:
        if element.tag not in PIXEL_TAGS:
            raise _no_such_value("It is a sequence.")
        return _encapsulated(reader, element, encoding, transfer_syntax_uid, level)
    return _plain(reader, element, inner, level)


def _whole(found: BulkData, read: RangeReader) -> bytes:
    """Return a value that does not leave as it lies, unless it is too large for memory."""
    if found.length > IN_MEMORY_MAX:
        raise Exhausted(
            "The bulk data were not read.",
            why=f"They have {found.length} bytes, and must be converted, which "
            f"{IN_MEMORY_MAX} may be.",
            remedy="Retrieve the object as it is stored.",
        )
    return found.read(read)


def _find(
    reader: DataSetReader, encoding: Encoding, numbers: tuple[int, ...]
) -> tuple[Attributes, Element, Encoding]:
    """Walk down a path; return the level that holds the element, the element, its encoding."""
    level = Attributes(reader, encoding, _top_level(reader, encoding, numbers[0]))
    for tag, item_number in zip(numbers[:-1:2], numbers[1::2], strict=True):
        sequence = level.elements.get(tag)
        item = None
        # A plain value is not walked as if it were items.
        if sequence is not None and (sequence.vr or vr_of(tag)) in ("SQ", "UN"):
            item = level.item(tag, item_number)
            encoding = item_encoding(sequence, encoding)
        if item is None:
            raise _no_such_value("There is no such item.")
        level = item
    element = level.elements.get(numbers[-1])
    if element is None:
        raise _no_such_value("The object has no such attribute.")
    return level, element, encoding


def _top_level(reader: DataSetReader, encoding: Encoding, last_tag: int) -> dict[int, Element]:
    """Return the elements up to a tag; what comes behind, gigabytes perhaps, is not looked at."""
    elements: dict[int, Element] = {}
    position = 0
    while position < reader.size:
        element = reader.element_at(position, encoding, open_ended=PIXEL_TAGS)
        elements[element.tag] = element
        if len(elements) > FIRST_LEVEL_MAX:
            raise Exhausted(
                "The bulk data were not looked for.",
                why=f"The object has more than {FIRST_LEVEL_MAX} elements beside each other.",
                remedy="Retrieve the object as it is stored.",
            )
        # What describes a document may stand behind it; what describes pixels stands before.
        if element.tag >= last_tag and element.tag > ENCAPSULATED_DOCUMENT_LENGTH:
            break
        is_endless = element.tag in PIXEL_TAGS and element.length == UNDEFINED_LENGTH
        position = end_of_fragments(reader, element.value) if is_endless else element.end
    return elements


def end_of_fragments(reader: DataSetReader, position: int) -> int:
    """Return where encapsulated pixel data end, reading only the heads of their items.

    Little may follow (a signature, a maker's own attributes), but what does belongs to the header.
    """
    while position + 8 <= reader.size:
        group, number, length = _ITEM_HEAD.unpack(reader.value(position, 8))
        position += 8
        if (group, number) != _ITEM or length == UNDEFINED_LENGTH:
            return position if (group, number) == _SEQUENCE_END else reader.size
        position += length
    return reader.size


def _plain(
    reader: DataSetReader, element: Element, encoding: Encoding, level: Attributes
) -> BulkData:
    vr = element.vr or vr_of(element.tag)
    if vr == "SQ":
        raise _no_such_value("It is a sequence.")
    length, kind = element.length, OCTETS
    if element.tag == ENCAPSULATED_DOCUMENT:
        length, kind = _document(element, level)
    unit = _UNITS.get(vr, 1)
    if element.tag in PIXEL_TAGS:
        unit = swap_unit(element.tag, vr, level.word(BITS_ALLOCATED) or 8)
    if not encoding.is_little_endian and unit > 1:
        lying = BulkData(kind, length, spans=((element.value, length),))
        return BulkData(kind, length, value=swap_bytes(_whole(lying, reader.value), unit))
    return BulkData(kind, length, spans=((element.value, length),))


def _document(element: Element, level: Attributes) -> tuple[int, str]:
    """Return length and media type of an encapsulated document (PS3.3 C.24.2).

    The length leaves the padding away where the object says so.
    """
    kind = level.text(MIME_TYPE_OF_ENCAPSULATED_DOCUMENT).lower()
    stated = level.raw(ENCAPSULATED_DOCUMENT_LENGTH) or b""
    length = int.from_bytes(stated, "little") if len(stated) == 4 else element.length
    if not element.length - 1 <= length <= element.length:
        length = element.length
    return length, kind if _MEDIA_TYPE.fullmatch(kind) else OCTETS


def _encapsulated(
    reader: DataSetReader,
    element: Element,
    encoding: Encoding,
    transfer_syntax_uid: str,
    level: Attributes,
) -> BulkData:
    """Join the fragments of a film or of a single frame (PS3.5 A.4)."""
    syntax = transfer_syntax(transfer_syntax_uid)
    frames = level.integer_string(NUMBER_OF_FRAMES) or 1
    if frames > 1 and not syntax.is_video:
        raise Unsupported(
            "The pixel data were not read.",
            why=f"They are {frames} compressed frames, which cannot be joined into one value.",
            remedy="Retrieve the frames: …/frames/1,2,3.",
        )
    spans = []
    items = reader.items(element, encoding)
    next(items, None)  # the Basic Offset Table
    for item in items:
        spans.append((item.start, item.end - item.start))
    if not spans:
        raise Invalid(
            "The pixel data were not read.",
            why="They hold no fragment.",
            remedy="Have it corrected where it was made.",
        )
    return BulkData(media_type(transfer_syntax_uid), sum(size for _, size in spans), tuple(spans))


def _no_such_value(why: str) -> NotFound:
    return NotFound(
        "There are no such bulk data.",
        why=why,
        remedy="Take the address from the metadata of the instance.",
    )
