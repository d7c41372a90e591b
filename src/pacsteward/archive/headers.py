"""The header of a stored object, read without its pixel data and other long values.

The elements of the first level are walked by range reads. Pixel data and long binary values are
noted, everything else is read and decoded by pydicom.

References
----------
PS3.5 7.1 (data elements); PS3.18 F.2.6 (BulkDataURI).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Final, NamedTuple

from pacsteward.archive.bulk import PIXEL_TAGS, end_of_fragments
from pacsteward.archive.read import StoredObject
from pacsteward.base.errors import Exhausted, Invalid
from pacsteward.dicom.attributes import vr_of
from pacsteward.dicom.deflated import inflated_pieces
from pacsteward.dicom.elements import (
    FIRST_LEVEL_MAX,
    UNDEFINED_LENGTH,
    DataSetReader,
    Element,
    Encoding,
    item_encoding,
)
from pacsteward.dicom.inflate import SIZE_MAX
from pacsteward.dicom.media import encoding_of
from pacsteward.dicom.tags import DATA_SET_TRAILING_PADDING, SPECIFIC_CHARACTER_SET
from pacsteward.dicom.uids import transfer_syntax

if TYPE_CHECKING:
    from pydicom import Dataset

HEADER_MAX: Final = 64 * 1024 * 1024
"""Bytes besides pixel data and other long values beyond which a header is not read."""

ELEMENTS_MAX: Final = 300_000
"""Elements and items of a header that is read as a whole: pydicom takes half a kilobyte and ten
microseconds for each."""

_COUNTED_FROM_BYTES: Final = 1 << 20
"""A shorter header cannot have too many to be worth counting."""

INFLATED_MAX: Final = 64 * 1024 * 1024
"""Bytes of a deflated data set that are looked at."""

LEFT_OUT_BYTES: Final = 64 * 1024
"""Binary values longer than this are not read at all."""

LONG_TEXT_BYTES: Final = 1 << 20
"""Nor are unlimited texts longer than this."""

_DELIMITERS: Final = 0xFFFE
_BINARY: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_LONG_TEXTS: Final = frozenset({"LT", "ST", "UC", "UT"})


@dataclass(frozen=True, slots=True)
class Header:
    """A header as it was read.

    Parameters
    ----------
    dataset
        All elements that were read.
    left_out
        Those on the first level that were not: pixel data, long binary values.
    """

    dataset: Dataset
    left_out: tuple[LeftOut, ...]


class Written(NamedTuple):
    """An element of the first level as it is written, head and all; `vr` is "" if none is."""

    tag: int
    vr: str
    raw: bytes


class LeftOut(NamedTuple):
    """An element of the first level that is not read: pixel data, a long binary value."""

    tag: int
    vr: str


@dataclass(frozen=True, slots=True)
class Walked:
    """A header whose elements are told apart; nothing is decoded yet."""

    encoding: Encoding
    elements: tuple[Written, ...]
    left_out: tuple[LeftOut, ...]
    size_bytes: int
    """Of the elements."""

    @property
    def data(self) -> bytes:
        """The elements one behind the other."""
        return b"".join([element.raw for element in self.elements])


def read_header(stored: StoredObject) -> Header:
    """Read the header of a stored object, of a damaged one as far as it can be read.

    Raises
    ------
    Invalid
        Nothing of it can be read.
    Exhausted
        It is larger than any header is.
    """
    walked = walk_header(stored)
    return Header(parse(walked.data, walked.encoding), walked.left_out)


def walk_header(stored: StoredObject, before: Walked | None = None) -> Walked:
    """Tell the elements of a header apart; the errors are those of `read_header`.

    Parameters
    ----------
    before
        The header of an object like this one: what stands in both is not looked at again.
    """
    encoding = encoding_of(stored.transfer_syntax_uid)
    if transfer_syntax(stored.transfer_syntax_uid).is_deflated:
        reader = DataSetReader(_Inflated(stored).read, SIZE_MAX)
    else:
        reader = DataSetReader(stored.read, stored.size)
    likely = before.elements if before and before.encoding == encoding else ()
    uid = stored.instance.sop_instance_uid
    elements: list[Written] = []
    left_out: list[LeftOut] = []
    total = 0
    for part in _parts(reader, encoding, likely, uid):
        if isinstance(part, Written):
            elements.append(part)
            total += len(part.raw)
        else:
            left_out.append(part)
        if total > HEADER_MAX or len(elements) + len(left_out) > FIRST_LEVEL_MAX:
            raise _too_large(uid)
    walked = Walked(encoding, tuple(elements), tuple(left_out), total)
    if total > _COUNTED_FROM_BYTES:
        _check_count(walked.data, encoding)
    return walked


def _parts(
    reader: DataSetReader, encoding: Encoding, likely: Sequence[Written], uid: str
) -> Iterator[Written | LeftOut]:
    """Yield the elements of the first level, as far as it is sound."""
    position = following = 0
    while position < reader.size:
        if following < len(likely) and reader.stands_at(position, likely[following].raw):
            yield likely[following]
            position += len(likely[following].raw)
            following += 1
            continue
        try:
            element = reader.element_at(position, encoding, open_ended=PIXEL_TAGS)
        except Invalid:
            return  # the end, or damage: what stands before is still true
        tag, end = element.tag, element.end
        if tag >> 16 == _DELIMITERS or tag == DATA_SET_TRAILING_PADDING:
            return  # an item's head where no sequence is: damage, too; padding says nothing
        if _is_left_out(element):
            yield LeftOut(tag, _vr(element))
            if element.length == UNDEFINED_LENGTH:
                end = end_of_fragments(reader, element.value)
        elif end - position > HEADER_MAX:
            raise _too_large(uid)
        else:
            yield Written(tag, element.vr, reader.value(position, end - position))
        position = end
        while following < len(likely) and likely[following].tag <= tag:
            following += 1


def _too_large(uid: str) -> Exhausted:
    return Exhausted(
        f"The header of instance {uid} was not read.",
        why=f"It has more than {HEADER_MAX} bytes, or {FIRST_LEVEL_MAX} elements.",
        remedy="Retrieve the object as it is stored.",
    )


def _check_count(data: bytes, encoding: Encoding) -> None:
    """Refuse a header of more elements than pydicom should be given; damage is for it to meet."""
    reader = DataSetReader(DataSetReader.over(data).value, len(data), ELEMENTS_MAX)
    with suppress(Invalid):
        _visit_all(reader, 0, len(data), encoding, 0)


def _visit_all(reader: DataSetReader, start: int, end: int, encoding: Encoding, depth: int) -> None:
    for element in reader.elements(start, end, encoding, depth=depth):
        if element.length != UNDEFINED_LENGTH and _vr(element) == "SQ":
            inner = item_encoding(element, encoding)
            for item in reader.items(element, encoding, depth=depth):
                _visit_all(reader, item.start, item.end, inner, depth + 1)


class _Inflated:
    """Range reads over the beginning of a deflated data set."""

    def __init__(self, stored: StoredObject) -> None:
        self._pieces = inflated_pieces(stored.read, stored.size)
        self._data = bytearray()

    def read(self, offset: int, length: int) -> bytes:
        """Return a range, shorter at the end of what is inflated at all."""
        while len(self._data) < min(offset + length, INFLATED_MAX):
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._data += piece
        return bytes(self._data[offset : offset + length])


def _is_left_out(element: Element) -> bool:
    if element.tag in PIXEL_TAGS:
        return True
    if not LEFT_OUT_BYTES < element.length < UNDEFINED_LENGTH:
        return False
    vr = _vr(element)
    return vr in _BINARY or (vr in _LONG_TEXTS and element.length > LONG_TEXT_BYTES)


def _vr(element: Element) -> str:
    if element.tag in PIXEL_TAGS and element.length == UNDEFINED_LENGTH:
        return "OB"
    return element.vr or vr_of(element.tag)


def parse(data: bytes, encoding: Encoding) -> Dataset:
    """Have pydicom read elements that stand one behind the other.

    Raises
    ------
    Invalid
        They cannot be read.
    """
    # A quarter of a second, and a process that only receives never needs it.
    from pacsteward.dicom.pydicom_parts import config, read_dataset

    # Its warnings quote the value, which may be a patient's and has no place in a log.
    config.settings.reading_validation_mode = config.IGNORE
    try:
        return read_dataset(BytesIO(data), encoding.is_implicit, encoding.is_little_endian)
    except Exception as error:
        # pydicom meets damage with whatever its innermost line raises.
        raise Invalid(
            "The header was not read.",
            why=f"{type(error).__name__} while it was decoded.",
            remedy="Have it corrected where it was made.",
        ) from error


def selected(header: Header, tags: Iterable[int]) -> Dataset | None:
    """Return the attributes of a header that were asked for, None when it has none of them.

    Private ones bring the creator of their block along, without which they mean nothing
    (PS3.5 7.8.1); all bring Specific Character Set, without which texts cannot be read. One that
    cannot be decoded is left out.
    """
    from pacsteward.dicom.pydicom_parts import Dataset

    dataset = header.dataset
    wanted: set[int] = set()
    for tag in tags:
        if tag in dataset and _is_readable(dataset, tag):
            wanted.add(tag)
            creator = tag & 0xFFFF0000 | (tag & 0xFFFF) >> 8
            if tag & 0x00010000 and tag & 0xFFFF > 0xFF and creator in dataset:
                wanted.add(creator)
    if not wanted:
        return None
    if SPECIFIC_CHARACTER_SET in dataset:
        wanted.add(SPECIFIC_CHARACTER_SET)
    found = Dataset()
    # What is not decoded yet would be read as if every script were Latin.
    is_implicit_vr, is_little_endian = dataset.original_encoding
    found.set_original_encoding(is_implicit_vr, is_little_endian, dataset.original_character_set)
    for tag in sorted(wanted):
        found[tag] = dataset.get_item(tag)
    return found


def _is_readable(dataset: Dataset, tag: int) -> bool:
    """Whether pydicom can decode an attribute, items of a sequence and all."""
    try:
        element = dataset[tag]
        if element.VR == "SQ":
            for item in element.value:
                for _ in item.iterall():
                    pass
    except Exception:  # noqa: BLE001
        # It meets damage with whatever its innermost line raises.
        return False
    return True
