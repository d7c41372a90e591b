"""From a C-FIND identifier to the archive's question, and from its answer to an identifier.

References
----------
PS3.4 C.2.2.1 — keys: what holds a value is matched, what is empty is only returned; C.4.1.1.3 —
what an answer contains; C.2.2.2 — Specific Character Set of request and answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from pydicom import DataElement, Dataset

from pacsteward.archive import Match
from pacsteward.dicom.attributes import Level, is_private, vr_of
from pacsteward.dicom.charset import character_set_for
from pacsteward.dicom.identifier import Identifier, Key, Value
from pacsteward.dicom.information_models import UNIQUE_KEYS, Model
from pacsteward.dicom.matching import (
    Criterion,
    Query,
    Universal,
    parse_criterion,
    sequence_criterion,
)

SPECIFIC_CHARACTER_SET: Final = 0x00080005
QUERY_RETRIEVE_LEVEL: Final = 0x00080052
RETRIEVE_AE_TITLE: Final = 0x00080054
INSTANCE_AVAILABILITY: Final = 0x00080056
TIMEZONE_OFFSET_FROM_UTC: Final = 0x00080201

NOT_MATCHED: Final = frozenset(
    {
        # Said about the answer or the question, never a property that an object is searched by.
        SPECIFIC_CHARACTER_SET,
        QUERY_RETRIEVE_LEVEL,
        RETRIEVE_AE_TITLE,
        INSTANCE_AVAILABILITY,
        TIMEZONE_OFFSET_FROM_UTC,
    }
)


def query_from(
    identifier: Identifier,
    model: Model,
    *,
    is_relational: bool,
    combined_datetime: bool,
    fuzzy: bool,
) -> Query:
    """Read what `identifier` asks for.

    Raises
    ------
    Invalid
        No or a wrong level, a key of a higher level that is missing, a value that cannot be meant.
    """
    level = model.level(identifier.level)
    if not is_relational:
        texts = {tag: key for tag, key in identifier.keys.items() if isinstance(key, str)}
        model.check_unique_keys(level, texts)
    criteria = {
        tag: criterion
        for tag, key in identifier.keys.items()
        if tag not in NOT_MATCHED and not is_private(tag)
        if not isinstance(criterion := _criterion(tag, key), Universal)
    }
    wanted = {*identifier.keys, UNIQUE_KEYS[level], SPECIFIC_CHARACTER_SET}
    wanted |= {UNIQUE_KEYS[upper] for upper in model.above(level)}
    return Query(
        level=level,
        criteria=criteria,
        returns=tuple(sorted(wanted)),
        fuzzy=fuzzy,
        combined_datetime=combined_datetime,
    )


def _criterion(tag: int, key: Key) -> Criterion:
    if isinstance(key, str):
        return parse_criterion(tag, vr_of(tag), key)
    if not key:
        return Universal()
    # A request has one item of keys (PS3.4 C.2.2.2.6); more would be a question nobody defined.
    return sequence_criterion({inner: _criterion(inner, value) for inner, value in key[0].items()})


def answer_values(
    match: Match, identifier: Identifier, level: Level, *, retrieve_ae_title: str
) -> tuple[dict[int, Value], str]:
    """Put one answer together.

    Returns
    -------
    values
        Value by tag, everything that was asked for; what is not known is empty.
    character_set
        One that every value can be written in: the asker's where that is possible, else the
        object's own, else one that can.
    """
    values: dict[int, Value] = {tag: "" for tag in identifier.keys if not is_private(tag)}
    values |= {UNIQUE_KEYS[level]: match.values.get(UNIQUE_KEYS[level], "")}
    if match.more is not None:
        values |= dict(_outside_the_index(match.more))
    values |= {tag: text for tag, text in match.values.items() if tag in values}
    values[QUERY_RETRIEVE_LEVEL] = level.value
    values[RETRIEVE_AE_TITLE] = retrieve_ae_title
    values[INSTANCE_AVAILABILITY] = "ONLINE"
    values.pop(SPECIFIC_CHARACTER_SET, None)
    values = {tag: _sequence_or_text(tag, value) for tag, value in values.items()}
    wanted = identifier.character_set or match.values.get(SPECIFIC_CHARACTER_SET, "")
    return values, character_set_for(_texts(values), wanted)


def _sequence_or_text(tag: int, value: Value) -> Value:
    return () if value == "" and vr_of(tag) == "SQ" else value


def _outside_the_index(data: Dataset) -> Iterator[tuple[int, Value]]:
    for element in data:
        value = _value(element)
        if value is not None:
            yield int(element.tag), value


def _value(element: DataElement) -> Value | None:
    """Write an element of a stored object as an answer has it; None for bytes without text."""
    if element.VR == "SQ":
        return [dict(_outside_the_index(item)) for item in element.value]
    if isinstance(element.value, bytes):
        return None
    if element.is_empty:
        return ""
    several = element.value if element.VM > 1 else [element.value]
    return "\\".join(str(one) for one in several)


def _texts(values: Mapping[int, Value]) -> Iterator[str]:
    for value in values.values():
        if isinstance(value, str):
            yield value
        else:
            for item in value:
                yield from _texts(item)
