"""DICOM JSON objects as Native DICOM Model XML, for clients that ask for ``application/dicom+xml``.

What enters is an object of the DICOM JSON model; what leaves is one XML document in UTF-8. Both
models say the same (PS3.18 F.2 maps one onto the other), so nothing else is looked at.

References
----------
PS3.19 A.1 (Native DICOM Model), A.1.6 (schema); PS3.18 8.7.3.1, F.2.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from xml.sax.saxutils import escape, quoteattr

from pacsteward.dicom.attributes import is_private, keyword_of

_HEAD: Final = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<NativeDicomModel xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM" '
    'xml:space="preserve">'
)
_TAIL: Final = "</NativeDicomModel>\n"

# What XML 1.0 section 2.2 does not allow, not even as a reference.
_NOT_XML: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")

_NAME_PARTS: Final = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")
_NAME_GROUPS: Final = ("Alphabetic", "Ideographic", "Phonetic")


def to_xml(model: Mapping[str, Any]) -> bytes:
    """Return a DICOM JSON object as an XML document."""
    return "".join((_HEAD, *_attributes(model), _TAIL)).encode("utf-8")


def _attributes(model: Mapping[str, Any]) -> Iterator[str]:
    for key, attribute in sorted(model.items()):
        vr = str(attribute.get("vr", "UN"))
        keyword = keyword_of(int(key, 16))
        named = f" keyword={quoteattr(keyword)}" if keyword else ""
        if creator := _private_creator(model, int(key, 16)):
            named = f" privateCreator={quoteattr(creator)}"
        yield f'<DicomAttribute tag="{key}" vr="{vr}"{named}>'
        yield from _content(attribute, vr)
        yield "</DicomAttribute>"


def _private_creator(model: Mapping[str, Any], tag: int) -> str:
    """Return who reserved the block of a private attribute, which each names (PS3.19 A.1.5)."""
    block = tag >> 8 & 0xFF
    if not is_private(tag) or block < 0x10:
        return ""
    said = model.get(f"{tag & 0xFFFF0000 | block:08X}", {}).get("Value") or [""]
    return _text(said[0] or "")


def _content(attribute: Mapping[str, Any], vr: str) -> Iterator[str]:
    if "BulkDataURI" in attribute:
        yield f"<BulkData uri={quoteattr(_text(attribute['BulkDataURI']))}/>"
    elif "InlineBinary" in attribute:
        yield f"<InlineBinary>{attribute['InlineBinary']}</InlineBinary>"
    else:
        for number, value in enumerate(attribute.get("Value", ()), 1):
            yield from _value(value, number, vr)


def _value(value: Any, number: int, vr: str) -> Iterable[str]:
    if vr == "SQ":
        return (f'<Item number="{number}">', *_attributes(value or {}), "</Item>")
    if vr == "PN" and isinstance(value, Mapping):
        return (f'<PersonName number="{number}">', *_name(value), "</PersonName>")
    if value is None:
        return (f'<Value number="{number}"/>',)
    return (f'<Value number="{number}">{escape(_text(value))}</Value>',)


def _name(groups: Mapping[str, str]) -> Iterator[str]:
    for group in _NAME_GROUPS:
        if not groups.get(group):
            continue
        parts = zip(_NAME_PARTS, groups[group].split("^"), strict=False)
        inner = "".join(f"<{name}>{escape(_text(part))}</{name}>" for name, part in parts if part)
        yield f"<{group}>{inner}</{group}>"


def _text(value: Any) -> str:
    return _NOT_XML.sub("", str(value))
