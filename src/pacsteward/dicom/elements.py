"""Walk the data elements of a stored data set by range reads, without holding it in memory.

What enters is a function that reads a range of the stored data set (a part of a file, or bytes in
memory) and its encoding; what leaves is where each element begins and where its value lies. Values
are read only when somebody asks for them, so a multi-frame object of two gigabytes costs a few
kilobytes. `Attributes` puts one level of a data set into a small table with readers for the few
kinds of value that pixel work needs.

Nothing here trusts a length: every offset is checked against the size of the data set before it
is used, and nesting is bounded.

References
----------
PS3.5 7.1 (data elements), 7.5 (nested data sets), A.4 (encapsulated pixel data).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Collection, Iterator
from typing import Final, NamedTuple

from pacsteward.base.errors import Exhausted, Invalid
from pacsteward.dicom.attributes import format_tag
from pacsteward.dicom.tags import ITEM, ITEM_DELIMITATION_ITEM, SEQUENCE_DELIMITATION_ITEM

RangeReader = Callable[[int, int], bytes]
"""Reads ``length`` bytes at ``offset`` of the stored data set; shorter only at its end."""

UNDEFINED_LENGTH: Final = 0xFFFFFFFF
DEPTH_MAX: Final = 64
"""Nesting of sequences beyond this is refused; real objects stay below ten."""

HEADER_MAX: Final = 64 * 1024 * 1024
"""Bytes before the pixel data beyond which an object is not looked into."""

FIRST_LEVEL_MAX: Final = 20_000
"""Elements beside each other on the first level; the dictionary does not have 6,000."""

VISITS_MAX: Final = 1_000_000
"""Elements and items that one reader visits. The functional groups of ten thousand frames have
half a million; one visit takes some five microseconds."""


_WINDOW: Final = 65536
_ELEMENT_HEADER_MAX: Final = 12

# PS3.5 7.1.2: these have a 16-bit length in explicit VR; all others, those still to be
# invented included, have two reserved bytes and a 32-bit length.
SHORT_VRS: Final = frozenset(
    b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split()
)

# Placeholders that devices have written where they did not know better, with a 16-bit length.
_SHORT_NAMES: Final = {code: code.decode("ascii") for code in SHORT_VRS}
_BLANK_VRS: Final = (b"  ", b"??")


class Encoding(NamedTuple):
    """How elements are written down: the half of a transfer syntax that is not about pixels."""

    is_implicit: bool
    is_little_endian: bool


EXPLICIT_LITTLE: Final = Encoding(is_implicit=False, is_little_endian=True)
IMPLICIT_LITTLE: Final = Encoding(is_implicit=True, is_little_endian=True)
EXPLICIT_BIG: Final = Encoding(is_implicit=False, is_little_endian=False)


class Element(NamedTuple):
    """Where one data element lies; offsets count from the start of the data set.

    ``vr`` is empty in implicit VR. ``length`` is that of the value, `UNDEFINED_LENGTH` where it
    is delimited; ``end`` is where the next element begins.
    """

    tag: int
    vr: str
    start: int
    value: int
    length: int
    end: int


class Item(NamedTuple):
    """Where the content of one item of a sequence, or one fragment, lies."""

    start: int
    end: int
    is_delimited: bool


class _Codes(NamedTuple):
    """The struct codes of one byte order."""

    tag: struct.Struct
    long: struct.Struct
    short: struct.Struct
    explicit: struct.Struct
    """Tag, VR and length of two bytes."""


_CODES: Final = {
    is_little: _Codes(*[struct.Struct(order + code) for code in ("HH", "I", "H", "HH2sH")])
    for is_little, order in ((True, "<"), (False, ">"))
}


class DataSetReader:
    """Range reads over one stored data set, with a window that makes small reads cheap.

    Parameters
    ----------
    read
        Reads a range of the data set.
    size
        Length of the data set in bytes.
    visits_max
        How many elements and items may be visited before `Exhausted` is raised: a few bytes make
        an element, and millions of them keep a processor busy for minutes.
    """

    __slots__ = ("_base", "_limit", "_read", "_visits_left", "_window", "size")

    def __init__(self, read: RangeReader, size: int, visits_max: int = VISITS_MAX) -> None:
        self._read = read
        self.size = size
        self._visits_left = visits_max
        self._window: bytes | memoryview = b""
        self._base = 0
        self._limit = 0

    @classmethod
    def over(cls, data_set: bytes | memoryview) -> DataSetReader:
        """Return a reader over a data set that is already in memory."""
        reader = cls(
            lambda offset, length: bytes(data_set[offset : offset + length]), len(data_set)
        )
        reader._window = data_set
        reader._limit = len(data_set)
        return reader

    def is_over_at(self, offset: int) -> bool:
        """Say whether nothing lies at an offset any more."""
        return offset >= self.size

    def value(self, offset: int, length: int) -> bytes:
        """Return a range of the data set, or say that it ends too early."""
        if offset + length > self.size:
            raise _ends_early(offset + length, self.size)
        if self._base <= offset and offset + length <= self._limit:
            return bytes(self._window[offset - self._base : offset - self._base + length])
        data = self._read(offset, length)
        if len(data) != length:
            raise _ends_early(offset + length, offset + len(data))
        return data

    def stands_at(self, offset: int, data: bytes) -> bool:
        """Whether these bytes stand there, as far as it is known without reading."""
        at = offset - self._base
        return at >= 0 and self._window[at : at + len(data)] == data

    def elements(
        self, start: int, end: int, encoding: Encoding, *, depth: int = 0
    ) -> Iterator[Element]:
        """Yield the elements between two offsets, in stored order.

        An item delimiter ends the walk, so ``end`` may be the end of the data set where the
        length of an item is undefined. Group lengths and paddings are yielded like the rest.

        Raises
        ------
        Exhausted
            Sequences are nested too deep, or there are too many elements.
        Invalid
            A length leads beyond the end.
        """
        if depth > DEPTH_MAX:
            raise Exhausted(
                "A data set was not read.",
                why=f"Its sequences are nested more than {DEPTH_MAX} deep.",
                remedy="Have it corrected where it was made.",
            )
        position = start
        while position < end:
            element = self._element(position, end, encoding, depth)
            if element.tag == ITEM_DELIMITATION_ITEM:
                return
            yield element
            position = element.end

    def items(self, element: Element, encoding: Encoding, *, depth: int = 0) -> Iterator[Item]:
        """Yield the items of a sequence, or the fragments of encapsulated pixel data.

        Raises
        ------
        Invalid
            Something else lies where an item should begin, or the end is missing.
        """
        inner = item_encoding(element, encoding)
        position = element.value
        end = self.size if element.length == UNDEFINED_LENGTH else element.end
        while position < end:
            self._visit()
            tag, length = self._item_header(position, inner)
            position += 8
            if tag == SEQUENCE_DELIMITATION_ITEM:
                return
            if tag != ITEM:
                raise Invalid(
                    "A sequence was not read.",
                    why=f"{format_tag(element.tag)} holds {format_tag(tag)} where an item should "
                    f"begin, at offset {position - 8}.",
                    remedy="Have it corrected where it was made.",
                )
            if length == UNDEFINED_LENGTH:
                content_end = self._end_of_item(position, end, inner, depth)
                yield Item(position, content_end, is_delimited=True)
                position = content_end + 8
            else:
                if position + length > end:
                    raise _ends_early(position + length, end)
                yield Item(position, position + length, is_delimited=False)
                position += length
        if element.length == UNDEFINED_LENGTH:
            raise Invalid(
                "A sequence was not read.",
                why=f"{format_tag(element.tag)} has no sequence delimiter.",
                remedy="Have it corrected where it was made.",
            )

    def element_at(
        self, position: int, encoding: Encoding, *, open_ended: Collection[int] = ()
    ) -> Element:
        """Return the element that begins at an offset.

        Elements named in ``open_ended`` may lack their end: where it is delimited it is not looked
        for and given as the beginning of the value, and a value that was cut off is given as far
        as it goes.
        """
        return self._element(position, self.size, encoding, 0, open_ended)

    def item_at(self, position: int, encoding: Encoding) -> tuple[int, int] | None:
        """Return where the content of a fragment item lies, None at the sequence delimiter.

        Raises
        ------
        Invalid
            No fragment begins there, or it leads beyond the end.
        """
        tag, length = self._item_header(position, encoding)
        if tag == SEQUENCE_DELIMITATION_ITEM:
            return None
        if tag != ITEM or length == UNDEFINED_LENGTH:
            raise Invalid(
                "The image was not read.",
                why=f"Its encapsulated pixel data hold {format_tag(tag)} where a fragment should "
                f"begin, at offset {position}.",
                remedy="Have it corrected where it was made.",
            )
        if position + 8 + length > self.size:
            raise _ends_early(position + 8 + length, self.size)
        return position + 8, length

    def _element(
        self,
        position: int,
        end: int,
        encoding: Encoding,
        depth: int,
        open_ended: Collection[int] = (),
    ) -> Element:
        # Every header of every picture is walked here, so what it calls it calls seldom.
        self._visits_left -= 1
        if self._visits_left < 0:
            raise _too_many()
        at = position - self._base
        if at < 0 or (position + _ELEMENT_HEADER_MAX > self._limit != self.size):
            at = self._at(position)[1]
        window = self._window
        codes = _CODES[encoding.is_little_endian]
        if end - position < 8 or len(window) - at < 8:
            raise _ends_early(position + 8, min(end, self.size))
        group, number, code, length = codes.explicit.unpack_from(window, at)
        tag = group << 16 | number
        header = 8
        vr = "" if encoding.is_implicit or group == 0xFFFE else _SHORT_NAMES.get(code, "")
        if not vr:
            vr, header, length = self._long_header(position, at, group, code, encoding)
        value = position + header
        if length == UNDEFINED_LENGTH:
            if tag in (ITEM_DELIMITATION_ITEM, SEQUENCE_DELIMITATION_ITEM):
                return Element(tag, vr, position, value, 0, value)
            open_element = Element(tag, vr, position, value, length, value)
            if tag in open_ended:
                return open_element
            return open_element._replace(end=self._end_of_sequence(open_element, encoding, depth))
        if value + length > end and tag in open_ended:
            length = max(end - value, 0)
        if value + length > end:
            raise Invalid(
                "A data set was not read.",
                why=f"{format_tag(tag)} at offset {position} says {length} bytes, and "
                f"{max(end - value, 0)} are left.",
                remedy="Have it corrected where it was made.",
            )
        return Element(tag, vr, position, value, length, value + length)

    def _long_header(
        self, position: int, at: int, group: int, code: bytes, encoding: Encoding
    ) -> tuple[str, int, int]:
        """Return VR, length of the header and of the value, where it is not one of two bytes."""
        window, codes = self._window, _CODES[encoding.is_little_endian]
        if group != 0xFFFE and not encoding.is_implicit:
            if code.isalpha() and code.isupper():
                if len(window) - at < _ELEMENT_HEADER_MAX:
                    raise _ends_early(position + _ELEMENT_HEADER_MAX, self.size)
                length = codes.long.unpack_from(window, at + 8)[0]
                return code.decode("ascii"), _ELEMENT_HEADER_MAX, length
            if code in _BLANK_VRS:
                return "", 8, codes.short.unpack_from(window, at + 6)[0]
            # Some archives wrote single elements in implicit VR into explicit data sets; a length
            # there is never read as two capital letters.
        return "", 8, codes.long.unpack_from(window, at + 4)[0]

    def _visit(self) -> None:
        self._visits_left -= 1
        if self._visits_left < 0:
            raise _too_many()

    def _end_of_sequence(self, element: Element, encoding: Encoding, depth: int) -> int:
        """Return the offset after the sequence delimiter of an element of undefined length."""
        end = element.value
        for item in self.items(element, encoding, depth=depth):
            end = item.end + 8 if item.is_delimited else item.end
        return end + 8

    def _end_of_item(self, start: int, end: int, encoding: Encoding, depth: int) -> int:
        """Return the offset of the item delimiter that ends an item of undefined length."""
        position = start
        for element in self.elements(start, end, encoding, depth=depth + 1):
            position = element.end
        if position + 8 > end:
            raise _ends_early(position + 8, end)
        return position

    def _item_header(self, position: int, encoding: Encoding) -> tuple[int, int]:
        window, at = self._at(position)
        if len(window) - at < 8:
            raise _ends_early(position + 8, self.size)
        codes = _CODES[encoding.is_little_endian]
        group, number = codes.tag.unpack_from(window, at)
        return group << 16 | number, codes.long.unpack_from(window, at + 4)[0]

    def _at(self, position: int) -> tuple[bytes | memoryview, int]:
        """Return a window that holds the header at ``position``, and where in it."""
        if not (self._base <= position and position + _ELEMENT_HEADER_MAX <= self._limit) and not (
            self._limit == self.size and position >= self._base
        ):
            self._window = self._read(position, min(_WINDOW, self.size - position))
            self._base = position
            self._limit = position + len(self._window)
        return self._window, position - self._base


def item_encoding(element: Element, encoding: Encoding) -> Encoding:
    """Return how the items of an element are encoded.

    A sequence that was unknown to its writer is UN, and its items are in Implicit VR Little Endian
    whatever the transfer syntax (PS3.5 6.2.2).
    """
    if element.vr == "UN":
        return IMPLICIT_LITTLE
    return encoding


def _too_many() -> Exhausted:
    return Exhausted(
        "A data set was not read.",
        why="It has too many elements and items.",
        remedy="Retrieve the object as it is stored.",
    )


def _ends_early(needed: int, size: int) -> Invalid:
    return Invalid(
        "A data set was not read.",
        why=f"It ends at offset {size}, and its lengths reach to {needed}.",
        remedy="Ask the sender for the complete object.",
    )


class Attributes:
    """One level of a data set as a table, with readers for the values pixel work needs.

    A value that cannot be understood reads as absent: wrong optional attributes must not keep an
    image from being seen, and those that are necessary are checked by who needs them.
    """

    __slots__ = ("_encoding", "_reader", "elements")

    def __init__(
        self, reader: DataSetReader, encoding: Encoding, elements: dict[int, Element]
    ) -> None:
        self._reader = reader
        self._encoding = encoding
        self.elements = elements

    @classmethod
    def of(
        cls, reader: DataSetReader, encoding: Encoding, start: int = 0, end: int | None = None
    ) -> Attributes:
        """Return the elements between two offsets, the last one where a tag comes twice."""
        until = reader.size if end is None else end
        return cls(reader, encoding, {e.tag: e for e in reader.elements(start, until, encoding)})

    def raw(self, tag: int, *, length_max: int = 1 << 26) -> bytes | None:
        """Return the value as it is stored, None where absent, delimited or beyond the limit."""
        element = self.elements.get(tag)
        if element is None or element.length > length_max:
            return None
        return self._reader.value(element.value, element.length)

    def texts(self, tag: int) -> list[str]:
        """Return the values of a string attribute of the default repertoire, without padding."""
        raw = self.raw(tag, length_max=1 << 20)
        if not raw:
            return []
        return [part.strip(" \0") for part in raw.decode("latin-1").split("\\")]

    def text(self, tag: int) -> str:
        """Return the first value of a string attribute, "" where absent."""
        values = self.texts(tag)
        return values[0] if values else ""

    def decimals(self, tag: int) -> list[float]:
        """Return the finite values of a DS, IS, FL or FD attribute; empty when one is not."""
        element = self.elements.get(tag)
        if element is not None and element.vr in ("FD", "FL"):
            return self._floats(tag, "d" if element.vr == "FD" else "f")
        try:
            values = [float(text) for text in self.texts(tag) if text]
        except ValueError:
            return []
        return values if all(map(math.isfinite, values)) else []

    def decimal(self, tag: int) -> float | None:
        """Return the first value of a numeric attribute, None where absent."""
        values = self.decimals(tag)
        return values[0] if values else None

    def integer_string(self, tag: int) -> int | None:
        """Return the first value of an IS attribute, None where absent or not a number."""
        value = self.decimal(tag)
        return None if value is None else int(value)

    def words(self, tag: int, *, is_signed: bool = False) -> tuple[int, ...]:
        """Return the 16-bit values of a US, SS or OW attribute.

        ``is_signed`` decides where the VR does not: in implicit VR, and for OW.
        """
        raw = self.raw(tag)
        if raw is None:
            return ()
        signed = {"SS": True, "US": False}.get(self.elements[tag].vr, is_signed)
        order = "<" if self._encoding.is_little_endian else ">"
        count = len(raw) // 2
        return struct.unpack_from(f"{order}{count}{'h' if signed else 'H'}", raw)

    def word(self, tag: int, *, is_signed: bool = False) -> int | None:
        """Return the first 16-bit value, None where absent."""
        values = self.words(tag, is_signed=is_signed)
        return values[0] if values else None

    def joined_fragments(self, tag: int) -> bytes:
        """Return the single frame of encapsulated pixel data, its fragments joined."""
        element = self.elements[tag]
        fragments = list(self._reader.items(element, self._encoding))[1:]
        return b"".join([self._reader.value(f.start, f.end - f.start) for f in fragments])

    def places(self, tag: int) -> tuple[Item, ...]:
        """Return where the items of a sequence lie; none where it is absent."""
        element = self.elements.get(tag)
        if element is None:
            return ()
        return tuple(self._reader.items(element, self._encoding))

    def inside(self, tag: int, place: Item) -> Attributes:
        """Return one item of a sequence as a table, from its place."""
        encoding = item_encoding(self.elements[tag], self._encoding)
        return Attributes.of(self._reader, encoding, place.start, place.end)

    def items(self, tag: int) -> Iterator[Attributes]:
        """Yield the items of a sequence, each as a table; none where it is absent."""
        for place in self.places(tag):
            yield self.inside(tag, place)

    def item(self, tag: int, index: int = 0) -> Attributes | None:
        """Return one item of a sequence, None where absent."""
        places = self.places(tag)
        return self.inside(tag, places[index]) if index < len(places) else None

    def _floats(self, tag: int, code: str) -> list[float]:
        raw = self.raw(tag, length_max=1 << 20)
        if not raw:
            return []
        order = "<" if self._encoding.is_little_endian else ">"
        count = len(raw) // struct.calcsize(code)
        values = struct.unpack_from(f"{order}{count}{code}", raw)
        return list(values) if all(map(math.isfinite, values)) else []
