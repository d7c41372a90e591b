"""The query parameters of a search, QIDO-RS, as a `Query` of `dicom.matching`.

What enters are names and values as the URL had them, decoded; what leaves is the question to the
archive and a list of sentences for the Warning header. A value that cannot be meant is the
client's fault (400). A parameter that we do not know is not: PS3.18 8.3.4 lets a server ignore
what it does not support as long as it says so.

References
----------
PS3.18 8.3.4 (match, includefield, fuzzymatching, limit, offset), 8.3.4.1.1 (attribute names and
paths), 10.6.1.2 (search).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pacsteward.base.errors import Invalid
from pacsteward.dicom.attributes import Level, tag_of, vr_of
from pacsteward.dicom.matching import (
    UNIVERSAL,
    Criterion,
    Query,
    parse_criterion,
    sequence_criterion,
)

ALL: Final = "all"

_NEVER_A_FILTER: Final = frozenset(
    {
        0x00080005,  # Specific Character Set: the answer is always UTF-8
        0x00080056,  # Instance Availability: everything here is online
        0x00080201,  # Timezone Offset From UTC: adjusts other keys, is none itself (PS3.4 C.2.1)
        0x00081190,  # Retrieve URL
    }
)

_NOT_MATCHED: Final = frozenset({"UN", "OB", "OW", "OF", "OD", "OL", "OV"})
"""Representations for which no matching exists; private attributes come as UN."""

_SILENT: Final = frozenset({"accept", "charset", "emptyvaluematching", "multiplevaluematching"})
"""Parameters of the standard that say nothing to us here, or that have been looked at before."""

_PATH_MAX: Final = 8
"""Sequences within sequences that a key may name."""


@dataclass(frozen=True, slots=True)
class Search:
    """What a search asks for.

    Parameters
    ----------
    query
        For the archive; its `returns` holds what the resource gives by default, what includefield
        adds and every key of the request.
    wants_all
        Whether ``includefield=all`` was given.
    warnings
        Sentences for the Warning header.
    """

    query: Query
    wants_all: bool = False
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class _Reading:
    """What was understood so far."""

    keys: dict[tuple[int, ...], list[str]] = field(default_factory=dict)
    fields: list[int] = field(default_factory=list)
    order: list[tuple[int, bool]] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    limit: int | None = None
    offset: int = 0
    fuzzy: bool = False
    wants_all: bool = False


def read_search(
    level: Level,
    parameters: Iterable[tuple[str, str]],
    *,
    returns: Sequence[int],
    fixed: Mapping[int, Criterion] | None = None,
    max_results: int | None = None,
) -> Search:
    """Read the query parameters of one search.

    Parameters
    ----------
    level
        What one result stands for.
    parameters
        Name and value, percent-decoded, in the order of the URL. Names repeat.
    returns
        What the resource returns by default.
    fixed
        What the path has settled: the study, the series.
    max_results
        Most results that are given at once; None for no limit of ours.

    Raises
    ------
    Invalid
        A value that cannot be meant: no number for limit, a word for a date.
    """
    reading = _Reading()
    for name, value in parameters:
        _read_parameter(reading, name.strip(), value)
    criteria = _criteria(reading)
    tags = [*returns, *reading.fields, *criteria]
    query = Query(
        level=level,
        criteria={**criteria, **(fixed or {})},
        returns=tuple(dict.fromkeys(tags)),
        fuzzy=reading.fuzzy,
        # Not a choice of the client's here, as it is in C-FIND (PS3.18 8.3.4.1.2).
        combined_datetime=True,
        limit=_limit(reading.limit, max_results),
        offset=reading.offset,
        order_by=tuple(reading.order),
    )
    return Search(query, reading.wants_all, tuple(_warnings(reading)))


def _read_parameter(reading: _Reading, name: str, value: str) -> None:
    key = name.lower()
    if key in _SILENT:
        return
    if key == "includefield":
        _read_fields(reading, value)
    elif key == "orderby":
        reading.order += _order(value)
    elif key == "limit":
        reading.limit = _number(value, "limit", minimum=1)
    elif key == "offset":
        reading.offset = _number(value, "offset", minimum=0)
    elif key == "fuzzymatching":
        reading.fuzzy = _switch(value, "fuzzymatching")
    else:
        path = _path(name)
        if path is None:
            reading.unknown.append(name)
        else:
            reading.keys.setdefault(path, []).append(value)


def _path(name: str) -> tuple[int, ...] | None:
    """Read ``00400275.00400009`` or ``RequestAttributesSequence.ScheduledProcedureStepID``."""
    parts = name.split(".")
    if len(parts) > _PATH_MAX:
        return None
    try:
        return tuple(tag_of(part) for part in parts)
    except Invalid:
        return None


def _read_fields(reading: _Reading, value: str) -> None:
    for name in value.split(","):
        name = name.strip()
        if not name:
            continue
        if name.lower() == ALL:
            reading.wants_all = True
        elif (path := _path(name)) is not None:
            # A path into a sequence returns the sequence as a whole.
            reading.fields.append(path[0])
        else:
            reading.unknown.append(name)


def _order(value: str) -> list[tuple[int, bool]]:
    """Read ``orderby=-StudyDate,PatientName``; a minus begins with the highest."""
    order = []
    for name in value.split(","):
        name = name.strip()
        if name:
            order.append((tag_of(name.lstrip("+- ")), name.startswith("-")))
    return order


def _number(value: str, name: str, *, minimum: int) -> int:
    text = value.strip()
    if text.isascii() and text.isdigit() and len(text) <= 15 and int(text) >= minimum:
        return int(text)
    raise Invalid(
        f"The parameter {name} was not understood.",
        why=f"It must be a whole number from {minimum} on (PS3.18 8.3.4.4).",
        remedy=f"Correct it, or leave {name} out.",
    )


def _switch(value: str, name: str) -> bool:
    text = value.strip().lower()
    if text in ("true", "false", ""):
        return text == "true"
    raise Invalid(
        f"The parameter {name} was not understood.",
        why="It must be true or false (PS3.18 8.3.4.2).",
        remedy=f"Correct it, or leave {name} out.",
    )


def _limit(asked: int | None, maximum: int | None) -> int | None:
    if asked is None or maximum is None:
        return maximum if asked is None else asked
    return min(asked, maximum)


def _criteria(reading: _Reading) -> dict[int, Criterion]:
    criteria: dict[int, Criterion] = {}
    items: dict[int, list[tuple[tuple[int, ...], list[str]]]] = {}
    for path, values in reading.keys.items():
        if len(path) > 1:
            items.setdefault(path[0], []).append((path[1:], values))
        else:
            criteria[path[0]] = _criterion(reading, path[0], values)
    for tag, keys in items.items():
        criteria[tag] = _sequence(reading, tag, keys)
    return criteria


def _criterion(reading: _Reading, tag: int, values: Sequence[str]) -> Criterion:
    if tag in _NEVER_A_FILTER:
        return UNIVERSAL
    vr = vr_of(tag)
    # A key that comes twice asks for either value, as its list form with a backslash does.
    text = "\\".join(value for value in values if value)
    if vr == "CS":
        # A code holds no comma, and viewers list modalities as they list UIDs: CT,MR.
        text = text.replace(",", "\\")
    if vr in _NOT_MATCHED and text.strip("* "):
        reading.ignored.append(f"{tag:08X}")
        return UNIVERSAL
    return parse_criterion(tag, vr, text)


def _sequence(
    reading: _Reading, tag: int, keys: Iterable[tuple[tuple[int, ...], list[str]]]
) -> Criterion:
    if vr_of(tag) != "SQ":
        raise Invalid(
            f"The query key {tag:08X} was not understood.",
            why="It is followed by a dot and another attribute, and it is no sequence.",
            remedy="Name a sequence before the dot (PS3.18 8.3.4.1.1).",
        )
    direct: dict[int, Criterion] = {}
    deeper: dict[int, list[tuple[tuple[int, ...], list[str]]]] = {}
    for path, values in keys:
        if len(path) == 1:
            direct[path[0]] = _criterion(reading, path[0], values)
        else:
            deeper.setdefault(path[0], []).append((path[1:], values))
    for inner, rest in deeper.items():
        direct[inner] = _sequence(reading, inner, rest)
    return sequence_criterion(direct)


def _warnings(reading: _Reading) -> Iterable[str]:
    if reading.unknown:
        names = ", ".join(dict.fromkeys(reading.unknown))
        yield f"The following parameters are not known and were ignored: {names}"
    if reading.ignored:
        names = ", ".join(dict.fromkeys(reading.ignored))
        yield f"The following attributes cannot be matched and were ignored: {names}"
