"""What differs between the two contents of a conflict, attribute by attribute.

Items of sequences are compared place by place. Values that stand apart from the header, such as
pixel data, are compared byte by byte; of those that cannot be, it is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from pacsteward.archive import Archive, Instance
from pacsteward.base.errors import Broken, Exhausted, Invalid, NotFound, Unsupported
from pacsteward.dicom.attributes import format_tag, keyword_of
from pacsteward.dicom.names import display

SHOWN_MAX: Final = 1000
"""Differences beyond which two objects have nothing in common and a longer list says no more."""

_SHOWN_CHARACTERS: Final = 500
_COMPARED_MAX: Final = 256 << 20
_CHUNK_BYTES: Final = 1 << 20
_KNOWN_OF_ANY: Final = 5
"""Attributes that the header of a wholly damaged object has: the UIDs that the index knows."""

Path = tuple[int, ...]
"""Tags and numbers of items in turn, as a BulkDataURI has them."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One attribute that is not the same in both; None where it is missing."""

    place: str
    keyword: str
    stored: str | None
    other: str | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came of comparing two contents."""

    differences: tuple[Difference, ...]
    is_cut: bool
    """Whether there are more differences than are shown."""
    is_readable: bool
    """Whether both headers could be read; of a damaged one nothing but its UIDs is known."""


def compare(archive: Archive, stored: Instance, other: Instance) -> Comparison:
    """Compare what readers get with the other content under its UID. Blocks."""
    headers = archive.header(stored), archive.header(other)
    first, second = (dict(_flat(header, ())) for header in headers)
    found = _differences(archive, (stored, other), first, second)
    shown = tuple(islice(found, SHOWN_MAX + 1))
    return Comparison(
        shown[:SHOWN_MAX],
        is_cut=len(shown) > SHOWN_MAX,
        is_readable=all(len(header) > _KNOWN_OF_ANY for header in headers),
    )


def _differences(
    archive: Archive,
    instances: tuple[Instance, Instance],
    first: Mapping[Path, Mapping[str, Any]],
    second: Mapping[Path, Mapping[str, Any]],
) -> Iterator[Difference]:
    for path in sorted(first.keys() | second.keys()):
        one, two = first.get(path), second.get(path)
        if one is not None and two is not None and "BulkDataURI" in one and "BulkDataURI" in two:
            words = _compare_apart(archive, instances, one["BulkDataURI"], two["BulkDataURI"])
            if words is not None:
                yield Difference(_place(path), _keywords(path), *words)
        elif one != two:
            yield Difference(_place(path), _keywords(path), _text(one), _text(two))


def _flat(data_set: Mapping[str, Any], above: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    for key, attribute in data_set.items():
        path = (*above, int(key, 16))
        if attribute.get("vr") != "SQ":
            yield path, attribute
            continue
        items = attribute.get("Value", [])
        yield path, {"vr": "SQ", "items": len(items)}
        for number, item in enumerate(items):
            yield from _flat(item or {}, (*path, number))


def _compare_apart(
    archive: Archive, instances: tuple[Instance, Instance], *paths: str
) -> tuple[str, str] | None:
    """Describe two values that stand apart from their headers; None when they are the same."""
    try:
        found = [
            archive.locate_bulk_data(instance, path)
            for instance, path in zip(instances, paths, strict=True)
        ]
        lengths = [one.length for one in found]
        if lengths[0] != lengths[1]:
            return _bytes(lengths[0]), _bytes(lengths[1])
        if lengths[0] > _COMPARED_MAX:
            words = f"{_bytes(lengths[0])}, too long to be compared"
            return words, words
        with archive.open(instances[0]) as first, archive.open(instances[1]) as second:
            for offset in range(0, lengths[0], _CHUNK_BYTES):
                if found[0].read(first.read, offset, _CHUNK_BYTES) != found[1].read(
                    second.read, offset, _CHUNK_BYTES
                ):
                    return _bytes(lengths[0]), f"{_bytes(lengths[1])}, not the same ones"
    except (Broken, Exhausted, Invalid, NotFound, Unsupported):
        # Compressed pictures of several frames are no single value, and damaged ones are none.
        return "not compared", "not compared"
    return None


def _place(path: Path) -> str:
    """Write tags, and items counted from one as people do: ``(0040,0275)[1] (0040,1001)``."""
    return "".join(
        f"[{number + 1}] " if place % 2 else format_tag(number) for place, number in enumerate(path)
    )


def _keywords(path: Path) -> str:
    tags = path[::2]
    return " › ".join(keyword_of(tag) or ("private" if tag & 0x10000 else "") for tag in tags)


def _text(attribute: Mapping[str, Any] | None) -> str | None:
    if attribute is None:
        return None
    if "items" in attribute:
        count = attribute["items"]
        return f"{count} item{'' if count == 1 else 's'}"
    if "BulkDataURI" in attribute:
        return "kept apart from the header"
    if "InlineBinary" in attribute:
        return f"{_bytes(len(attribute['InlineBinary']) * 3 // 4)}: {attribute['InlineBinary']}"[
            :80
        ]
    text = "\\".join(_one(value) for value in attribute.get("Value", []))
    if len(text) > _SHOWN_CHARACTERS:
        return f"{text[:_SHOWN_CHARACTERS]} …"
    return text


def _one(value: Any) -> str:
    if isinstance(value, dict):
        groups = (value.get(name, "") for name in ("Alphabetic", "Ideographic", "Phonetic"))
        return display("=".join(groups).rstrip("="))
    return "" if value is None else str(value)


def _bytes(count: int) -> str:
    return f"{count:,} bytes".replace(",", "\u202f")
