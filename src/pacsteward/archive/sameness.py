"""Whether two encodings hold the same object.

Machines send an object again, and not always byte for byte: another transfer syntax, the ends of
sequences counted instead of delimited, group lengths dropped. What counts is whether every
attribute and every pixel is the same. When in doubt the answer is no: then both are kept, and a
human looks.

Encodings that differ in more than their element heads (compressed pixels, big endian, deflated)
are first brought to Explicit VR Little Endian, frames being decoded by the given coder: in the
server that is a child process.

References
----------
PS3.5 7.2 (group length), 7.5 (nested data sets), A.4; PS3.10 7.2 (data set trailing padding).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import Final

from pacsteward.base.errors import Exhausted, PacstewardError
from pacsteward.dicom.elements import (
    UNDEFINED_LENGTH,
    DataSetReader,
    Element,
    Encoding,
    RangeReader,
    item_encoding,
)
from pacsteward.dicom.fragments import Fragments
from pacsteward.dicom.media import encoding_of
from pacsteward.dicom.tags import DATA_SET_TRAILING_PADDING, PIXEL_DATA
from pacsteward.dicom.transcode import FrameCoder, transcode_chunks, transcode_frame
from pacsteward.dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, transfer_syntax

COMPARED_MAX: Final = 256 << 20
"""Larger objects are compared byte for byte only."""

_CHUNK: Final = 1 << 20


def is_same_bytes(first: Fragments, second: Fragments) -> bool:
    """Whether two data sets are equal byte for byte."""
    if first.size != second.size:
        return False
    return all(
        bytes(first.read(offset, length)) == bytes(second.read(offset, length))
        for offset in range(0, first.size, _CHUNK)
        for length in (min(_CHUNK, first.size - offset),)
    )


def is_same_object(
    first: Fragments,
    first_uid: str,
    second: Fragments,
    second_uid: str,
    *,
    code_frame: FrameCoder = transcode_frame,
) -> bool:
    """Whether two data sets hold the same attributes and pixels.

    Parameters
    ----------
    first_uid, second_uid
        Their transfer syntaxes.
    code_frame
        Decodes frames where the encodings differ.
    """
    if max(first.size, second.size) > COMPARED_MAX:
        return False
    try:
        if _is_comparable(first_uid, second_uid) and _is_same(
            _reader(first), encoding_of(first_uid), _reader(second), encoding_of(second_uid)
        ):
            return True
        if _is_plain(first_uid) and _is_plain(second_uid):
            return False
        plain = encoding_of(EXPLICIT_VR_LITTLE_ENDIAN)
        return _is_same(
            _transcoded(first, first_uid, code_frame),
            plain,
            _transcoded(second, second_uid, code_frame),
            plain,
        )
    except PacstewardError:
        # What cannot be decoded cannot be shown to be the same.
        return False


def _is_plain(uid: str) -> bool:
    syntax = transfer_syntax(uid)
    return syntax.is_little_endian and not (syntax.is_deflated or syntax.is_encapsulated)


def _is_comparable(first_uid: str, second_uid: str) -> bool:
    """Whether values of the one read like values of the other."""
    if _is_plain(first_uid) and _is_plain(second_uid):
        return True
    return first_uid == second_uid and not transfer_syntax(first_uid).is_deflated


def _range_reader(data: Fragments) -> RangeReader:
    def read(offset: int, length: int) -> bytes:
        return bytes(data.read(offset, max(0, min(length, data.size - offset))))

    return read


def _reader(data: Fragments) -> DataSetReader:
    return DataSetReader(_range_reader(data), data.size)


def _transcoded(data: Fragments, uid: str, code_frame: FrameCoder) -> DataSetReader:
    chunks: list[bytes] = []
    size = 0
    for chunk in transcode_chunks(
        _range_reader(data), data.size, uid, EXPLICIT_VR_LITTLE_ENDIAN, code_frame=code_frame
    ):
        chunks.append(chunk)
        size += len(chunk)
        if size > COMPARED_MAX:
            raise Exhausted("The object is too large to be compared.")
    return DataSetReader.over(b"".join(chunks))


def _is_same(
    first: DataSetReader,
    first_encoding: Encoding,
    second: DataSetReader,
    second_encoding: Encoding,
    first_span: tuple[int, int] | None = None,
    second_span: tuple[int, int] | None = None,
    depth: int = 0,
) -> bool:
    """Compare one level, element by element."""
    ours = _elements(first, first_encoding, first_span, depth)
    theirs = _elements(second, second_encoding, second_span, depth)
    for one, other in zip_longest(ours, theirs):
        if one is None or other is None or one.tag != other.tag:
            return False
        if _is_sequence(one) or _is_sequence(other):
            inner = item_encoding(one, first_encoding), item_encoding(other, second_encoding)
            pairs = zip_longest(
                first.items(one, first_encoding, depth=depth),
                second.items(other, second_encoding, depth=depth),
            )
            for item, other_item in pairs:
                if item is None or other_item is None:
                    return False
                if not _is_same(
                    first,
                    inner[0],
                    second,
                    inner[1],
                    (item.start, item.end),
                    (other_item.start, other_item.end),
                    depth + 1,
                ):
                    return False
        elif not _is_same_value(first, one, second, other):
            return False
    return True


def _elements(
    reader: DataSetReader, encoding: Encoding, span: tuple[int, int] | None, depth: int
) -> Iterator[Element]:
    start, end = span or (0, reader.size)
    for element in reader.elements(start, end, encoding, depth=depth):
        if element.tag & 0xFFFF and element.tag != DATA_SET_TRAILING_PADDING:
            yield element


def _is_sequence(element: Element) -> bool:
    if element.tag == PIXEL_DATA:
        return False
    return element.vr == "SQ" or element.length == UNDEFINED_LENGTH


def _is_same_value(
    first: DataSetReader, one: Element, second: DataSetReader, other: Element
) -> bool:
    length = one.end - one.value
    if length != other.end - other.value:
        return False
    return all(
        bytes(first.value(one.value + offset, size))
        == bytes(second.value(other.value + offset, size))
        for offset in range(0, length, _CHUNK)
        for size in (min(_CHUNK, length - offset),)
    )
