"""The DICOM file format: preamble, file meta information, data set (PS3.10 chapter 7).

On the wire an object has no file meta; in a file, in a STOW-RS part and on a CD it has. This
module takes the one apart and makes the other, touching only the few hundred bytes in front.

References
----------
PS3.10 7.1, table 7.1-1; PS3.5 7.1.2 (group 2 is always Explicit VR Little Endian).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from pacsteward.base.errors import Invalid
from pacsteward.base.ids import Uid
from pacsteward.dicom.uids import IMPLICIT_VR_LITTLE_ENDIAN

IMPLEMENTATION_CLASS_UID: Final = Uid("2.25.306858705611567095574967448828116036277")
"""Names this implementation in file meta and in associations (PS3.7 D.3.3.2)."""

IMPLEMENTATION_VERSION_NAME: Final = "PACSTEWARD_0_1"
"""At most 16 characters (PS3.7 D.3.3.2.4)."""


@dataclass(frozen=True, slots=True)
class FileMeta:
    """File meta information; "" where an element is absent."""

    media_storage_sop_class_uid: str
    media_storage_sop_instance_uid: str
    transfer_syntax_uid: str
    implementation_class_uid: str = IMPLEMENTATION_CLASS_UID
    implementation_version_name: str = IMPLEMENTATION_VERSION_NAME
    source_application_entity_title: str = ""


def split_part10(data: bytes | memoryview) -> tuple[FileMeta, int]:
    """Return the file meta information, and the offset at which the data set begins.

    Files without preamble are met: some archives cut it off and left "DICM", or began with group
    2 at once. A file without any file meta is not; what it is encoded in would be a guess.

    Raises
    ------
    Invalid
        When it is no DICOM file, or its meta information is damaged or names no transfer syntax.
    """
    view = memoryview(data)
    return _split_usual(view) or _split(view)


def _split(view: memoryview) -> tuple[FileMeta, int]:
    offset = _begin_of_meta(view)
    values: dict[int, str] = {}
    while bytes(view[offset : offset + 2]) == b"\2\0":
        element, value, offset = _read_element(view, offset)
        if element in _FIELDS:
            values[element] = bytes(value).decode("latin-1").strip(" \0")
    if not values:
        raise _not_a_file("It has no file meta information.")
    # A file from before Part 10 was complete may lack it; DICOM's default holds on the wire
    # (PS3.5 10.1), and the header reader finds out when it is wrong.
    values.setdefault(_TRANSFER_SYNTAX_UID, IMPLICIT_VR_LITTLE_ENDIAN)
    return FileMeta(*(values.get(element, "") for element in _FIELDS)), offset


def _split_usual(view: memoryview) -> tuple[FileMeta, int] | None:
    """Do the same for a file whose elements but for the instance's UID were met before.

    So are those of a series. None for every file about which anything is unusual.
    """
    head = bytes(view[:_USUAL_BYTES])
    if head[128:140] != b"DICM\2\0\0\0UL\4\0":
        return None
    end = 144 + int.from_bytes(head[140:144], "little")
    at = head.find(b"\2\0\3\0UI", 144, end)
    start = at + 8
    stop = start + int.from_bytes(head[at + 6 : start], "little")
    # What follows the group must be here, to see that it has no more elements than it says.
    if at < 0 or not stop <= end <= len(head) - 2 or head[end : end + 2] == b"\2\0":
        return None
    around = _around_instance(head[132:at], head[stop:end])
    if around is None:
        return None
    return around(head[start:stop].decode("latin-1").strip(" \0")), end


@lru_cache(maxsize=256)
def _around_instance(before: bytes, after: bytes) -> Callable[[str], FileMeta] | None:
    """Return what makes the file meta information of an instance; None where this is no part of it.

    Parameters
    ----------
    before, after
        All elements that stand before its UID, and all that follow.
    """
    values: dict[int, str] = {}
    try:
        for part in (before, after):
            view, offset = memoryview(part), 0
            while offset < len(part):
                is_meta = part[offset : offset + 2] == b"\2\0"
                element, value, offset = _read_element(view, offset)
                if not is_meta or element == _INSTANCE_UID:
                    return None
                if element in _FIELDS:
                    values[element] = bytes(value).decode("latin-1").strip(" \0")
    except Invalid:
        return None
    values.setdefault(_TRANSFER_SYNTAX_UID, IMPLICIT_VR_LITTLE_ENDIAN)
    sop_class_uid, _, *rest = (values.get(element, "") for element in _FIELDS)
    return lambda sop_instance_uid: FileMeta(sop_class_uid, sop_instance_uid, *rest)


def encode_part10_head(meta: FileMeta) -> bytes:
    """Return preamble, prefix and file meta information; the data set follows it as it is."""
    return _PREAMBLE + encode_file_meta(meta)


def encode_file_meta(meta: FileMeta) -> bytes:
    """Return the elements of group 2 alone, as they stand in a file behind the prefix."""
    before, after = _frame(
        meta.media_storage_sop_class_uid,
        meta.transfer_syntax_uid,
        meta.implementation_class_uid,
        meta.implementation_version_name,
        meta.source_application_entity_title,
    )
    instance = _text_element(0x0003, meta.media_storage_sop_instance_uid)
    length = struct.pack("<I", len(before) + len(instance) + len(after))
    return b"".join((_element(0x0000, b"UL", length), before, instance, after))


@lru_cache(maxsize=4096)
def _frame(
    sop_class_uid: str, transfer_syntax_uid: str, class_uid: str, version_name: str, title: str
) -> tuple[bytes, bytes]:
    """Return what stands before and after the instance's UID: the same for a whole series."""
    before = _element(0x0001, b"OB", b"\0\1") + _text_element(0x0002, sop_class_uid)
    after = (
        _text_element(_TRANSFER_SYNTAX_UID, transfer_syntax_uid)
        + _text_element(0x0012, class_uid)
        + _text_element(0x0013, version_name)
        + _text_element(0x0016, title)
    )
    return before, after


_PREAMBLE: Final = bytes(128) + b"DICM"
_INSTANCE_UID: Final = 0x0003
_TRANSFER_SYNTAX_UID: Final = 0x0010
_USUAL_BYTES: Final = 1024
"""Preamble and file meta information seldom take more."""
_FIELDS: Final = {
    0x0002: (b"UI", b"\0"),
    0x0003: (b"UI", b"\0"),
    _TRANSFER_SYNTAX_UID: (b"UI", b"\0"),
    0x0012: (b"UI", b"\0"),
    0x0013: (b"SH", b" "),
    0x0016: (b"AE", b" "),
}
"""Elements of group 2 in the order of `FileMeta`: VR and padding."""
_LONG_VRS: Final = frozenset((b"OB", b"OW", b"UN", b"UT", b"SQ", b"OF"))
_META_MAX: Final = 1 << 20
"""File meta is some hundred bytes; private information (0002,0102) may be a few thousand."""


def _begin_of_meta(view: memoryview) -> int:
    if bytes(view[128:132]) == b"DICM":
        return 132
    if bytes(view[:4]) == b"DICM":
        return 4
    if bytes(view[:2]) == b"\2\0" and bytes(view[4:6]).isalpha():
        return 0
    raise _not_a_file("It does not begin as PS3.10 7.1 says.")


def _read_element(view: memoryview, offset: int) -> tuple[int, memoryview, int]:
    """Return the element number, the value and the offset after it."""
    head = bytes(view[offset : offset + 12])
    if len(head) < 8:
        raise _not_a_file(f"It is cut short at offset {offset}.")
    _, element, vr, length = struct.unpack_from("<HH2sH", head)
    value = offset + 8
    if vr in _LONG_VRS:
        if len(head) < 12:
            raise _not_a_file(f"It is cut short at offset {offset}.")
        length = struct.unpack_from("<I", head, 8)[0]
        value = offset + 12
    elif not vr.isalpha():
        # Group 2 in implicit VR; two makers of film scanners did so.
        length = struct.unpack_from("<I", head, 4)[0]
    end = value + length
    if end > len(view) or length > _META_MAX:
        raise _not_a_file(f"Its file meta information is damaged at offset {offset}.")
    return element, view[value:end], end


def _element(element: int, vr: bytes, value: bytes) -> bytes:
    if vr in _LONG_VRS:
        return struct.pack("<HH2sHI", 2, element, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", 2, element, vr, len(value)) + value


def _text_element(element: int, value: str) -> bytes:
    if not value:
        return b""
    vr, padding = _FIELDS[element]
    raw = value.encode("ascii", "replace")
    return _element(element, vr, raw + padding * (len(raw) % 2))


def _not_a_file(why: str) -> Invalid:
    return Invalid("This is not a readable DICOM file.", why=why, remedy="Export it again.")
