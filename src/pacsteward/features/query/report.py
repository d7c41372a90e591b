"""A structured report as people read it: what it says, item by item, with the images it speaks of.

What enters is a data set as DICOM JSON; what leaves are lines, indented as the content tree is. The
viewer draws measurements over their images alone and stops at content by reference, so that the
whole of a report can be read here only.

References
----------
PS3.3 C.17.3 (SR Document Content: value types, relationships); PS3.18 F (DICOM JSON).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType
from typing import Any, Final

from pacsteward.dicom.names import display

Item = Mapping[str, Any]

LINES_MAX: Final = 2_000
DEPTH_MAX: Final = 16
MORE: Final = "There is more. The JSON has all of it."

_CONTENT: Final = "0040A730"
_VALUE_TYPE: Final = "0040A040"
_CONCEPT_NAME: Final = "0040A043"
_MEANING: Final = "00080104"
_CODE: Final = "00080100"
_CODING_SCHEME: Final = "00080102"
_BY_REFERENCE: Final = "0040DB73"


@dataclass(frozen=True, slots=True)
class ReportLine:
    """One content item.

    Parameters
    ----------
    depth
        0 for the items of the document itself.
    name
        What is said of; empty when the item has no concept name.
    is_heading
        Whether it is a container, whose items follow.
    sop_instance_uid
        Of the image or other object that it points at; "" for none.
    """

    depth: int
    name: str
    value: str
    is_heading: bool = False
    sop_instance_uid: str = ""


def read_report(data_set: Item) -> tuple[ReportLine, ...]:
    """Return the lines of a report; none for an object that has no content tree."""
    lines = tuple(islice(_lines(data_set, 0), LINES_MAX + 1))
    if len(lines) > LINES_MAX:
        return (*lines[:LINES_MAX], ReportLine(0, "", MORE))
    return lines


def title_of(data_set: Item) -> str:
    """Return what the document calls itself."""
    return _code(data_set, _CONCEPT_NAME)


def _lines(item: Item, depth: int) -> Iterator[ReportLine]:
    if apart := _apart(item, _CONTENT):
        yield ReportLine(depth, "", apart)
    for child in _items(item, _CONTENT):
        if depth > DEPTH_MAX:
            yield ReportLine(depth, "", MORE)
            return
        yield _line(child, depth)
        yield from _lines(child, depth + 1)


def _line(item: Item, depth: int) -> ReportLine:
    value_type = _text(item, _VALUE_TYPE)
    name = _code(item, _CONCEPT_NAME)
    if value_type == "CONTAINER":
        return ReportLine(depth, name, "", is_heading=True)
    if _BY_REFERENCE in item:
        # PS3.3 C.17.3.2.4: another item of the same document, by the numbers on the way to it.
        path = ".".join(str(number) for number in item[_BY_REFERENCE].get("Value", []))
        return ReportLine(depth, name, f"see item {path}")
    if value_type not in _READERS:
        return ReportLine(depth, name, f"({value_type or 'content of no type'})")
    key, reader = _READERS[value_type]
    if apart := _apart(item, key):
        return ReportLine(depth, name, apart)
    objects = _items(item, "00081199")
    uid = _text(objects[0], "00081155") if objects else ""
    return ReportLine(depth, name, reader(item), sop_instance_uid=uid)


def _number(item: Item) -> str:
    measured = _items(item, "0040A300")
    if not measured:
        # PS3.3 C.18.1: no value, and perhaps the reason.
        return _code(item, "0040A301") or "no value"
    number = _apart(measured[0], "0040A30A") or _text(measured[0], "0040A30A")
    return f"{number} {_unit(measured[0])}".strip()


def _unit(measured: Item) -> str:
    """Return the unit: in UCUM's own letters, "mm", of which "1" is none; else by its meaning."""
    codes = _items(measured, "004008EA")
    if not codes:
        return ""
    if _text(codes[0], _CODING_SCHEME) != "UCUM":
        # A private code may be any number, and would stand behind the value as part of it.
        return _code(measured, "004008EA")
    unit = _text(codes[0], _CODE)
    return "" if unit == "1" else unit


def _person(item: Item) -> str:
    names = _items(item, "0040A123")
    if not names:
        return _text(item, "0040A123")
    groups = (names[0].get(group, "") for group in ("Alphabetic", "Ideographic", "Phonetic"))
    return display("=".join(groups).rstrip("="))


def _object(item: Item) -> str:
    objects = _items(item, "00081199")
    if not objects:
        return "no object"
    frames = [str(number) for number in objects[0].get("00081160", {}).get("Value", [])]
    shown = f", frame {', '.join(frames[:20])}" if frames else ""
    return _text(objects[0], "00081155") + shown


def _shape(item: Item) -> str:
    """Return the kind of a shape and how many points it has, not the points."""
    values = len(item.get("00700022", {}).get("Value", []))
    sides = 3 if _text(item, _VALUE_TYPE) == "SCOORD3D" else 2
    points = values // sides
    return f"{_text(item, '00700023').lower()}, {points} point{'' if points == 1 else 's'}"


def _reader_of_text(key: str) -> tuple[str, Callable[[Item], str]]:
    return key, lambda item: _text(item, key)


_READERS: Final[Mapping[str, tuple[str, Callable[[Item], str]]]] = MappingProxyType(
    {
        "TEXT": _reader_of_text("0040A160"),
        "CODE": ("0040A168", lambda item: _code(item, "0040A168")),
        "NUM": ("0040A300", _number),
        "PNAME": ("0040A123", _person),
        "DATETIME": _reader_of_text("0040A120"),
        "DATE": _reader_of_text("0040A121"),
        "TIME": _reader_of_text("0040A122"),
        "UIDREF": _reader_of_text("0040A124"),
        "IMAGE": ("00081199", _object),
        "COMPOSITE": ("00081199", _object),
        "WAVEFORM": ("00081199", _object),
        "SCOORD": ("00700022", _shape),
        "SCOORD3D": ("00700022", _shape),
        "TCOORD": ("0040A130", lambda item: _text(item, "0040A130").lower()),
    }
)
"""Where the value of each type stands and how it is written, PS3.3 Table C.17.3-7."""


def _apart(item: Item, key: str) -> str:
    """Return what is said of a value that the JSON does not spell out; "" when it does.

    A long text is given by its address. So is what is too long for a VR with a length of 16 bits
    and is therefore of VR UN, such as the points of a long outline (PS3.5 6.2.2).
    """
    attribute = item.get(key, {})
    if "BulkDataURI" in attribute:
        return "(kept apart; the JSON has its address)"
    return "(kept as bytes; the JSON has them)" if "InlineBinary" in attribute else ""


def _items(item: Item, key: str) -> list[Item]:
    """Return the items of a sequence.

    Devices have sent these attributes with other VRs, and any object may hold them: what is no item
    is none, and stands among the attributes of the instance.
    """
    return [one for one in item.get(key, {}).get("Value", []) if isinstance(one, Mapping)]


def _text(item: Item, key: str) -> str:
    values = item.get(key, {}).get("Value", [])
    return "" if not values or isinstance(values[0], Mapping | None) else str(values[0])


def _code(item: Item, key: str) -> str:
    """Return what a code means, or the code when that is not said."""
    codes = _items(item, key)
    return (_text(codes[0], _MEANING) or _text(codes[0], _CODE)) if codes else ""
