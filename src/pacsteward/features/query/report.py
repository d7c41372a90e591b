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

_CONTENT: Final = "0040A730"
_VALUE_TYPE: Final = "0040A040"
_CONCEPT_NAME: Final = "0040A043"
_MEANING: Final = "00080104"
_CODE: Final = "00080100"
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
        return (*lines[:LINES_MAX], ReportLine(0, "", "There is more. The JSON has all of it."))
    return lines


def title_of(data_set: Item) -> str:
    """Return what the document calls itself."""
    return _code(data_set, _CONCEPT_NAME)


def _lines(item: Item, depth: int) -> Iterator[ReportLine]:
    for child in _items(item, _CONTENT):
        yield _line(child, depth)
        if depth < DEPTH_MAX:
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
    reader = _READERS.get(value_type)
    if reader is None:
        return ReportLine(depth, name, f"({value_type or 'content of no type'})")
    objects = _items(item, "00081199")
    uid = _text(objects[0], "00081155") if objects else ""
    return ReportLine(depth, name, reader(item), sop_instance_uid=uid)


def _number(item: Item) -> str:
    measured = _items(item, "0040A300")
    if not measured:
        # PS3.3 C.18.1: no value, and perhaps the reason.
        return _code(item, "0040A301") or "no value"
    unit = _unit(measured[0])
    return f"{_text(measured[0], '0040A30A')} {unit}".strip()


def _unit(measured: Item) -> str:
    """Return the unit in UCUM's own letters: "mm"; "1" is none."""
    codes = _items(measured, "004008EA")
    unit = _text(codes[0], _CODE) if codes else ""
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


_READERS: Final[Mapping[str, Callable[[Item], str]]] = MappingProxyType(
    {
        "TEXT": lambda item: _text(item, "0040A160"),
        "CODE": lambda item: _code(item, "0040A168"),
        "NUM": _number,
        "PNAME": _person,
        "DATETIME": lambda item: _text(item, "0040A120"),
        "DATE": lambda item: _text(item, "0040A121"),
        "TIME": lambda item: _text(item, "0040A122"),
        "UIDREF": lambda item: _text(item, "0040A124"),
        "IMAGE": _object,
        "COMPOSITE": _object,
        "WAVEFORM": _object,
        "SCOORD": _shape,
        "SCOORD3D": _shape,
        "TCOORD": lambda item: _text(item, "0040A130").lower(),
    }
)
"""How the value of each type is written, PS3.3 Table C.17.3-7."""


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
