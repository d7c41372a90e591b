"""The header of a stored object, read without its pixel data and other long values.

The elements of the first level are walked by range reads. Pixel data and long binary values are
noted, everything else is read and decoded by pydicom.

References
----------
PS3.5 7.1 (data elements); PS3.18 F.2.6 (BulkDataURI).
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Final

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
        Tag and VR of those on the first level that were not: pixel data, long binary values.
    """

    dataset: Dataset
    left_out: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class Walked:
    """A header whose elements are known by their places; nothing is decoded yet.

    Parameters
    ----------
    data
        The elements that were read, one behind the other.
    elements
        Tag, VR (empty where none is written), begin and end in `data` of each.
    left_out
        Tag and VR of those that were not read.
    """

    data: bytes
    encoding: Encoding
    elements: tuple[tuple[int, str, int, int], ...]
    left_out: tuple[tuple[int, str], ...]


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


def walk_header(stored: StoredObject) -> Walked:
    """Find the elements of a header; the errors are those of `read_header`."""
    encoding = encoding_of(stored.transfer_syntax_uid)
    if transfer_syntax(stored.transfer_syntax_uid).is_deflated:
        reader = DataSetReader(_Inflated(stored).read, SIZE_MAX)
    else:
        reader = DataSetReader(stored.read, stored.size)
    runs: list[tuple[int, int]] = []
    elements: list[tuple[int, str, int, int]] = []
    left_out: list[tuple[int, str]] = []
    position = total = 0
    while position < reader.size:
        try:
            element = reader.element_at(position, encoding, open_ended=PIXEL_TAGS)
        except Invalid:
            break  # the end, or damage: what stands before is still true
        tag, end = element.tag, element.end
        if tag >> 16 == _DELIMITERS or tag == DATA_SET_TRAILING_PADDING:
            break  # an item's head where no sequence is: damage, too; padding says nothing
        if _is_left_out(element):
            left_out.append((tag, _vr(element)))
            if element.length == UNDEFINED_LENGTH:
                end = end_of_fragments(reader, element.value)
        else:
            size = end - position
            elements.append((tag, element.vr, total, total + size))
            total += size
            if runs and runs[-1][1] == position:
                runs[-1] = (runs[-1][0], end)
            else:
                runs.append((position, end))
        position = end
        if total > HEADER_MAX or len(elements) + len(left_out) > FIRST_LEVEL_MAX:
            raise Exhausted(
                f"The header of instance {stored.instance.sop_instance_uid} was not read.",
                why=f"It has more than {HEADER_MAX} bytes, or {FIRST_LEVEL_MAX} elements.",
                remedy="Retrieve the object as it is stored.",
            )
    data = b"".join([reader.value(start, end - start) for start, end in runs])
    if len(data) > _COUNTED_FROM_BYTES:
        _check_count(data, encoding)
    return Walked(data, encoding, tuple(elements), tuple(left_out))


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
