"""Identifiers of C-FIND, C-MOVE and C-GET: read from the wire, and written for an answer.

What enters is the encoded data set of a request; what leaves is an `Identifier` with the text of
each key, decoded by the request's own character set. The other way, `write_identifier` encodes
one answer. A query of a thousand studies makes a thousand answers, so the writer goes straight
from text to bytes, without a data set in between.

References
----------
PS3.4 C.4.1.1.3, C.2.2.2 (identifiers, character set); PS3.5 chapter 7, 6.2 (padding).
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, TypeAlias

from pacsteward.base.errors import Invalid
from pacsteward.dicom import charset, vrs
from pacsteward.dicom.attributes import format_tag, is_private, keyword_of, name_of, tag_of, vr_of
from pacsteward.dicom.elements import (
    DataSetReader,
    Element,
    Encoding,
    item_encoding,
)
from pacsteward.dicom.fragments import Fragments
from pacsteward.dicom.inflate import inflate
from pacsteward.dicom.tags import QUERY_RETRIEVE_LEVEL, SPECIFIC_CHARACTER_SET
from pacsteward.dicom.uids import transfer_syntax

Key: TypeAlias = "str | tuple[Mapping[int, Key], ...]"
"""A key's text, or the items of a sequence of keys."""

Value: TypeAlias = "str | Sequence[Mapping[int, Value]] | Typed"
"""An answer's text with several values separated by backslashes, items of a sequence, or either
of them with its representation."""


@dataclass(frozen=True, slots=True)
class Typed:
    """A value with the representation that its object gives it.

    Our dictionary knows that of standard attributes only; a private one means nothing without it
    (PS3.5 7.8). Bytes are of a representation without text, in little endian, and written as
    they are.
    """

    vr: str
    value: str | bytes | Sequence[Mapping[int, Value]]


@dataclass(frozen=True, slots=True)
class Identifier:
    """What a request asks for.

    Parameters
    ----------
    level
        Query/Retrieve Level (0008,0052), "" where absent.
    keys
        Decoded text without padding, or items, by tag. Level, character set and group lengths
        are not among them; private and unknown attributes are.
    character_set
        Specific Character Set (0008,0005) of the request, as encoded.
    private
        Tags of private keys; they are answered empty and never filter.
    unknown
        Tags of standard keys that our dictionary lacks.
    """

    level: str
    keys: Mapping[int, Key]
    character_set: str = ""
    private: tuple[int, ...] = field(default=())
    unknown: tuple[int, ...] = field(default=())


def read_identifier(data: bytes | memoryview, transfer_syntax_uid: str) -> Identifier:
    """Return the keys of a request.

    Raises
    ------
    Invalid
        When the data set cannot be read, or is far larger than a question can be.
    Unsupported
        When the transfer syntax is none of the standard.
    """
    syntax = transfer_syntax(transfer_syntax_uid)
    if syntax.is_deflated:
        data = b"".join(inflate(Fragments([data]), size_max=SIZE_MAX))
    if len(data) > SIZE_MAX:
        raise Invalid(
            "The identifier was not read.",
            why=f"It has {len(data)} bytes and may have {SIZE_MAX}.",
            remedy="Ask in several steps.",
        )
    # Bytes, since a memoryview has no text methods and the copy is small.
    reader = DataSetReader.over(bytes(data))
    encoding = Encoding(syntax.is_implicit_vr, syntax.is_little_endian)
    elements = list(reader.elements(0, reader.size, encoding))
    character_set = ""
    for element in elements:
        if element.tag == SPECIFIC_CHARACTER_SET:
            character_set = _plain(reader, element)
    keys = _keys(reader, elements, encoding, character_set, depth=0)
    keys.pop(SPECIFIC_CHARACTER_SET, None)
    level = keys.pop(QUERY_RETRIEVE_LEVEL, "")
    return Identifier(
        level=level if isinstance(level, str) else "",
        keys=keys,
        character_set=character_set,
        private=tuple(tag for tag in keys if is_private(tag)),
        unknown=tuple(tag for tag in keys if not is_private(tag) and not keyword_of(tag)),
    )


def write_identifier(
    values: Mapping[int, Value], *, character_set: str, transfer_syntax_uid: str
) -> bytes:
    """Encode one answer; a number or a tag that is none is written as empty.

    Parameters
    ----------
    values
        By tag, in any order. Numbers and tags are written in text, as the index has them; private
        and binary attributes are `Typed`.
    character_set
        One that can represent all texts (`charset.character_set_for`). It is put into the answer
        unless it is "".
    transfer_syntax_uid
        Implicit or Explicit VR Little Endian, or Explicit VR Big Endian.

    Raises
    ------
    Invalid
        When a text does not fit the character set, or a text is given for a sequence or bytes.
    """
    syntax = transfer_syntax(transfer_syntax_uid)
    if syntax.is_deflated or syntax.is_encapsulated:
        raise Invalid("An identifier is not written in a compressed transfer syntax.")
    if character_set:
        values = {**values, SPECIFIC_CHARACTER_SET: character_set}
    codes = _CODES[syntax.is_little_endian]
    return _encode(values, character_set, syntax.is_implicit_vr, codes)


SIZE_MAX: Final = 4 << 20
"""A list of 60,000 UIDs fits; nobody asks more in one question."""
KEYS_MAX: Final = 4096
DEPTH_MAX: Final = 8
"""Keys of a worklist query, the deepest of all, are three levels deep."""


# --- reading -------------------------------------------------------------------------------------


def _keys(
    reader: DataSetReader,
    elements: Sequence[Element],
    encoding: Encoding,
    character_set: str,
    *,
    depth: int,
) -> dict[int, Key]:
    keys: dict[int, Key] = {}
    if len(elements) > KEYS_MAX or depth > DEPTH_MAX:
        raise Invalid(
            "The identifier was not read.",
            why=f"It has more than {KEYS_MAX} keys, or keys deeper than {DEPTH_MAX} levels.",
            remedy="Ask with fewer keys, or in several questions.",
        )
    for element in elements:
        if element.tag & 0xFFFF == 0:
            continue  # group lengths, retired and still sent
        vr = element.vr if element.vr not in ("", "UN") else vr_of(element.tag)
        if vr == "SQ" or element.length == 0xFFFFFFFF:
            inner = item_encoding(element, encoding)
            keys[element.tag] = tuple(
                _keys(
                    reader,
                    list(reader.elements(item.start, item.end, inner, depth=depth + 1)),
                    inner,
                    character_set,
                    depth=depth + 1,
                )
                for item in reader.items(element, encoding, depth=depth)
            )
        else:
            raw = reader.value(element.value, element.length)
            keys[element.tag] = _text(raw, vr, character_set, encoding)
    return keys


def _plain(reader: DataSetReader, element: Element) -> str:
    return reader.value(element.value, element.length).decode("latin-1").strip(" \0")


def _text(raw: bytes, vr: str, character_set: str, encoding: Encoding) -> str:
    codes = _CODES[encoding.is_little_endian]
    if vr in vrs.NUMBER_CODES:
        code = vrs.NUMBER_CODES[vr]
        size = struct.calcsize(code)
        numbers = struct.unpack(
            f"{codes.prefix}{len(raw) // size}{code}", raw[: len(raw) // size * size]
        )
        return "\\".join(map(str, numbers))
    if vr == "AT":
        halves = struct.unpack(f"{codes.prefix}{len(raw) // 4 * 2}H", raw[: len(raw) // 4 * 4])
        return "\\".join(
            f"{group:04X}{number:04X}"
            for group, number in zip(halves[::2], halves[1::2], strict=True)
        )
    text = charset.decode(raw, character_set, is_person_name=vr == "PN")
    if vr in vrs.SINGLE_VALUED:
        return text.rstrip(" \0")
    return "\\".join(part.strip(" \0") for part in text.split("\\"))


# --- writing -------------------------------------------------------------------------------------


class _Codes:
    """Packers of one byte order."""

    __slots__ = ("explicit", "explicit_long", "implicit", "item", "prefix")

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.implicit = struct.Struct(f"{prefix}HHI").pack
        self.explicit = struct.Struct(f"{prefix}HH2sH").pack
        self.explicit_long = struct.Struct(f"{prefix}HH2sHI").pack
        self.item = struct.Struct(f"{prefix}HHI").pack


_CODES: Final = {True: _Codes("<"), False: _Codes(">")}


@lru_cache(maxsize=4096)
def _vr(tag: int) -> tuple[str, bytes, bool]:
    """VR of a tag, its letters, and whether its length has 16 bits."""
    return _written(vr_of(tag))


def _written(vr: str) -> tuple[str, bytes, bool]:
    return vr, vr.encode("ascii"), vr in vrs.SHORT_LENGTH


def _encode(
    values: Mapping[int, Value], character_set: str, is_implicit: bool, codes: _Codes
) -> bytes:
    parts: list[bytes] = []
    for tag in sorted(values):
        given = values[tag]
        if isinstance(given, Typed):
            vr, letters, is_short = _written(given.vr)
            value = given.value
        else:
            vr, letters, is_short = _vr(tag)
            value = given
        if isinstance(value, str):
            raw = _raw(tag, vr, value, character_set, codes) if value else b""
        elif isinstance(value, bytes):
            raw = _plain_bytes(vr, value, codes)
        else:
            raw = _items(tag, vr, value, character_set, is_implicit, codes)
        group, number = tag >> 16, tag & 0xFFFF
        if is_implicit:
            parts.append(codes.implicit(group, number, len(raw)))
        elif not is_short:
            parts.append(codes.explicit_long(group, number, letters, 0, len(raw)))
        elif len(raw) <= 0xFFFE:
            parts.append(codes.explicit(group, number, letters, len(raw)))
        else:
            # PS3.5 6.2.2 note 6: a value too long for its VR goes as UN with a 32-bit length.
            parts.append(codes.explicit_long(group, number, b"UN", 0, len(raw)))
        parts.append(raw)
    return b"".join(parts)


def _raw(tag: int, vr: str, text: str, character_set: str, codes: _Codes) -> bytes:
    """Encode a value that is not empty, padded to even length (PS3.5 6.2)."""
    if vr in vrs.CHARACTER_SET:
        raw = charset.encode(text, character_set)
        return raw if len(raw) % 2 == 0 else raw + b" "
    if vr in vrs.NUMBER_CODES or vr == "AT":
        try:
            return _numbers(vr, text, codes)
        except (Invalid, ValueError, struct.error, OverflowError):
            # The index has what the object had. One object with a word for a number must not
            # take the answer away from those who ask for all of them.
            return b""
    if vr == "SQ" or vr in vrs.BINARY:
        raise Invalid("An answer was not encoded.", why=f"{name_of(tag)} of VR {vr} has no text.")
    try:
        raw = text.encode("ascii")
    except UnicodeEncodeError:
        # Only in objects that broke the rule themselves; their value is not to stop an answer.
        raw = text.encode("ascii", "replace")
    if len(raw) % 2:
        raw += b"\0" if vr == "UI" else b" "
    return raw


def _plain_bytes(vr: str, value: bytes, codes: _Codes) -> bytes:
    """Put bytes into the byte order of the answer, padded to even length."""
    unit = vrs.WORD_SIZES.get(vr, 1)
    if unit > 1 and codes.prefix == ">" and len(value) % unit == 0:
        swapped = array(_ARRAY_CODES[unit], value)
        swapped.byteswap()
        value = swapped.tobytes()
    return value + b"\0" * (len(value) % 2)


_ARRAY_CODES: Final = {2: "H", 4: "I", 8: "Q"}


def _numbers(vr: str, text: str, codes: _Codes) -> bytes:
    words = text.split("\\")
    if vr == "AT":
        tags = [tag_of(word) for word in words]
        halves = [half for tag in tags for half in (tag >> 16, tag & 0xFFFF)]
        return struct.pack(f"{codes.prefix}{len(halves)}H", *halves)
    code = vrs.NUMBER_CODES[vr]
    number = float if code in "fd" else int
    return struct.pack(f"{codes.prefix}{len(words)}{code}", *map(number, words))


def _items(
    tag: int,
    vr: str,
    items: Sequence[Mapping[int, Value]],
    character_set: str,
    is_implicit: bool,
    codes: _Codes,
) -> bytes:
    if vr != "SQ":
        raise Invalid("An answer was not encoded.", why=f"{format_tag(tag)} is not a sequence.")
    parts: list[bytes] = []
    for item in items:
        content = _encode(item, character_set, is_implicit, codes)
        parts += (codes.item(0xFFFE, 0xE000, len(content)), content)
    return b"".join(parts)
