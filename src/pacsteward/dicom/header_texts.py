"""From raw values of a header to text, for the header reader.

References
----------
PS3.5 6.2 (value representations, padding), 6.4 (several values).
"""

from __future__ import annotations

import struct

from pacsteward.dicom import charset, vrs
from pacsteward.dicom import header_tables as tables
from pacsteward.dicom.attributes import vr_of
from pacsteward.dicom.header_walk import Found

_DICTIONARY_VR = {tag: vr_of(tag) for tag in tables.WANTED}
_BINARY_TAGS = frozenset(tag for tag, vr in _DICTIONARY_VR.items() if vr in vrs.NUMBER_CODES)
_PLAIN = bytes(range(0x20, 0x7F)) + b"\0"
_SEPARATOR = b"\x1e"


def are_plain(found: Found) -> bool:
    """Whether all texts are ASCII without control characters; then they are decoded together."""
    texts = [raw for tag, (_, raw) in found.items() if tag not in _BINARY_TAGS]
    return not b"".join(texts).translate(None, _PLAIN)


def texts_of(found: Found, character_set: str, order: tables.Order) -> dict[int, str]:
    """Return raw values as text without padding, several values separated by backslashes.

    Most headers hold plain ASCII only. Then all texts are decoded at once. Takes the binary
    numbers out of ``found``.
    """
    numbers = {tag: found.pop(tag) for tag in _BINARY_TAGS if tag in found}
    tags = list(found)
    joined = _SEPARATOR.join([raw for _, raw in found.values()])
    if tags and joined.translate(None, _PLAIN) == _SEPARATOR * (len(tags) - 1):
        values = joined.decode("ascii").split("\x1e")
        texts = {tag: value.strip(" \0") for tag, value in zip(tags, values, strict=True)}
    else:
        texts = {tag: _text(tag, *found[tag], character_set, order) for tag in tags}
    for tag, text in texts.items():
        if "\0" in text and _DICTIONARY_VR[tag] != "UI":
            # Some writers leave the rest of a buffer behind the end of a text. Databases refuse
            # the character. In a UID it would make another UID of two: that is left as it is, and
            # whoever checks the UID refuses it.
            text = texts[tag] = text.replace("\0", "")
        if "\\" in text and _DICTIONARY_VR[tag] not in vrs.SINGLE_VALUED:
            texts[tag] = "\\".join([part.strip(" \0") for part in text.split("\\")])
    for tag, number in numbers.items():
        texts[tag] = _text(tag, *number, character_set, order)
    return texts


def _text(tag: int, letters: int, raw: bytes, character_set: str, order: tables.Order) -> str:
    vr = order.vrs[letters]
    if not vr or vr == "UN":
        vr = _DICTIONARY_VR[tag]
    if vr == "US" and len(raw) == 2:
        return str(int.from_bytes(raw, order.name))
    if vr in vrs.NUMBER_CODES:
        return _decimal(raw, order.prefix, vrs.NUMBER_CODES[vr])
    return charset.decode(raw, character_set, is_person_name=vr == "PN").strip(" \0")


def _decimal(raw: bytes, prefix: str, code: str) -> str:
    count = len(raw) // struct.calcsize(code)
    numbers = struct.unpack_from(f"{prefix}{count}{code}", raw)
    return "\\".join(map(str, numbers))
