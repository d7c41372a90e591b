"""From a C-FIND identifier to the archive's question, and from its answer to an identifier.

Attributes of the index come as text. Those that only a stored object has, among them private ones
and sequences, come as pydicom read them and keep the representation that the object gives them.

References
----------
PS3.4 C.2.2.1 — keys: what holds a value is matched, what is empty is only returned; C.4.1.1.3 —
what an answer contains; C.2.2.2 — Specific Character Set of request and answer; C.2.2.2.6 —
sequences. PS3.5 7.8 — private attributes and their creators.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from pacsteward.archive import Match
from pacsteward.dicom import vrs
from pacsteward.dicom.answer_form import AnswerForm
from pacsteward.dicom.attributes import (
    Level,
    format_tag,
    is_private,
    is_private_creator,
    name_of,
    vr_of,
)
from pacsteward.dicom.charset import character_set_for
from pacsteward.dicom.identifier import Identifier, Key, Typed, Value, write_identifier
from pacsteward.dicom.information_models import UNIQUE_KEYS, Model
from pacsteward.dicom.matching import (
    Criterion,
    Query,
    Universal,
    parse_criterion,
    sequence_criterion,
)
from pacsteward.dicom.tags import (
    INSTANCE_AVAILABILITY,
    QUERY_RETRIEVE_LEVEL,
    RETRIEVE_AE_TITLE,
    SPECIFIC_CHARACTER_SET,
    TIMEZONE_OFFSET_FROM_UTC,
)

if TYPE_CHECKING:
    from pydicom import DataElement, Dataset

log = logging.getLogger(__name__)


_SAID_OF_ALL: Final = frozenset({QUERY_RETRIEVE_LEVEL, RETRIEVE_AE_TITLE, INSTANCE_AVAILABILITY})

NOT_MATCHED: Final = frozenset(
    {
        # Said about the answer or the question, never a property that an object is searched by.
        SPECIFIC_CHARACTER_SET,
        QUERY_RETRIEVE_LEVEL,
        RETRIEVE_AE_TITLE,
        TIMEZONE_OFFSET_FROM_UTC,
    }
)


# --- the question --------------------------------------------------------------------------------


def query_from(
    identifier: Identifier,
    model: Model,
    *,
    is_relational: bool,
    combined_datetime: bool,
    fuzzy: bool,
    limit: int | None = None,
) -> Query:
    """Read what `identifier` asks for.

    Parameters
    ----------
    is_relational
        Whether unique keys of higher levels may be missing (PS3.4 C.4.1.2.2, C.4.1.3.2).
    limit
        Answers after which there is no need to look further.

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
        limit=limit,
    )


def named(query: Query) -> list[str]:
    """Name the keys that restrict a query, for the audit book; without their values."""
    return [name_of(tag) for tag in sorted(query.criteria)]


def restricts_by_private(identifier: Identifier) -> bool:
    """Say whether a private key holds a value that ought to restrict the answers, and does not."""
    return any(
        bool(identifier.keys[tag]) for tag in identifier.private if not is_private_creator(tag)
    )


def _criterion(tag: int, key: Key) -> Criterion:
    if isinstance(key, str):
        return parse_criterion(tag, vr_of(tag), key)
    if not key:
        return Universal()
    # A request has one item of keys (PS3.4 C.2.2.2.6); more would be a question nobody defined.
    return sequence_criterion(
        {
            inner: _criterion(inner, value)
            for inner, value in key[0].items()
            if not is_private(inner)
        }
    )


# --- the answer ----------------------------------------------------------------------------------


class AnswerWriter:
    """Encodes the answers to one question.

    Parameters
    ----------
    transfer_syntax_uid
        Of the context on which it was asked.
    """

    def __init__(
        self,
        identifier: Identifier,
        level: Level,
        *,
        retrieve_ae_title: str,
        transfer_syntax_uid: str,
    ) -> None:
        self._identifier = identifier
        self._level = level
        self._retrieve_ae_title = retrieve_ae_title
        self._transfer_syntax_uid = transfer_syntax_uid
        self._form = self._usual_form()

    def write(self, match: Match) -> bytes:
        """Return one answer."""
        if self._form is not None and match.more is None:
            wanted = self._identifier.character_set or match.values.get(SPECIFIC_CHARACTER_SET, "")
            usual = self._form.filled(match.values, character_set_for((), wanted))
            if usual is not None:
                return usual
        values, character_set = answer_values(
            match, self._identifier, self._level, retrieve_ae_title=self._retrieve_ae_title
        )
        return write_identifier(
            values, character_set=character_set, transfer_syntax_uid=self._transfer_syntax_uid
        )

    def _usual_form(self) -> AnswerForm | None:
        """Return the form for matches that need no object, None where it does not fit them."""
        values, _ = answer_values(
            Match({}), self._identifier, self._level, retrieve_ae_title=self._retrieve_ae_title
        )
        fixed = {
            tag: value
            for tag, value in values.items()
            if value != "" or tag in _SAID_OF_ALL or vr_of(tag) == "SQ"
        }
        if not all(text.isascii() for text in _texts(fixed)):
            return None
        return AnswerForm(fixed, values.keys() - fixed.keys(), self._transfer_syntax_uid)


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
    values: dict[int, Value] = {tag: _empty(tag, key) for tag, key in identifier.keys.items()}
    values[UNIQUE_KEYS[level]] = ""
    if match.more is not None:
        values |= _outside_the_index(match.more, identifier.keys)
    values |= {tag: text for tag, text in match.values.items() if tag in values}
    values[QUERY_RETRIEVE_LEVEL] = level.value
    values[RETRIEVE_AE_TITLE] = retrieve_ae_title
    values[INSTANCE_AVAILABILITY] = "ONLINE"
    values.pop(SPECIFIC_CHARACTER_SET, None)
    wanted = identifier.character_set or match.values.get(SPECIFIC_CHARACTER_SET, "")
    return values, character_set_for(_texts(values), wanted)


def _empty(tag: int, key: Key) -> Value:
    """Say that nothing is known of `tag`; a private creator is repeated, for the block it names."""
    if is_private_creator(tag) and isinstance(key, str):
        return key
    return Typed("SQ", ()) if not isinstance(key, str) or vr_of(tag) == "SQ" else ""


def _outside_the_index(data: Dataset, keys: Mapping[int, Key]) -> dict[int, Value]:
    """Give what an object has of `keys`."""
    found = dict(_elements(data))
    foreign = {
        block
        for tag, key in keys.items()
        if is_private_creator(tag) and key and (block := _block(tag)) and not _says(found, tag, key)
    }
    return {
        tag: _asked_for(value, keys.get(tag, ""))
        for tag, value in found.items()
        if not (is_private(tag) and _block(tag) in foreign)
    }


def _block(tag: int) -> int:
    """Return group and number of the private block that a creator reserves or a tag is in."""
    number = tag & 0xFFFF
    return tag & 0xFFFF0000 | (number if number <= 0xFF else number >> 8)


def _says(found: Mapping[int, Value], tag: int, creator: Key) -> bool:
    """Say whether the object's block belongs to the maker that the asker means."""
    value = found.get(tag)
    return isinstance(value, Typed) and value.value == creator


def _asked_for(value: Value, key: Key) -> Value:
    """Leave of the items of a sequence what the item of keys names (PS3.4 C.2.2.2.6)."""
    if not isinstance(value, Typed) or isinstance(value.value, str | bytes):
        return value
    if isinstance(key, str) or not key or not key[0]:
        return value
    wanted = key[0]
    return Typed(
        value.vr,
        [
            {tag: _asked_for(item.get(tag, _empty(tag, one)), one) for tag, one in wanted.items()}
            for item in value.value
        ],
    )


def _elements(data: Dataset) -> Iterator[tuple[int, Value]]:
    is_little_endian = data.original_encoding[1] is not False
    for tag in list(data.keys()):
        try:
            value = _typed(data[tag], is_little_endian=is_little_endian)
        except Exception as error:  # noqa: BLE001 - pydicom meets damage with whatever breaks first
            # The answer is true without it, and one object is not to stop all answers.
            log.info("%s of an object was not read: %s", format_tag(int(tag)), type(error).__name__)
        else:
            yield int(tag), value


def _typed(element: DataElement, *, is_little_endian: bool) -> Typed:
    """Write an element of a stored object as an answer has it."""
    vr = element.VR if element.VR in vrs.ALL else vr_of(int(element.tag))
    value = element.value
    if vr == "SQ":
        return Typed(vr, [dict(_elements(item)) for item in value])
    if isinstance(value, bytes):
        # Words of a big endian object would have to be turned; nobody is sent them wrong.
        is_readable = is_little_endian or vr in ("OB", "UN")
        return Typed(vr if vr in vrs.BINARY else "UN", value if is_readable else b"")
    if element.is_empty:
        return Typed(vr, "")
    several = value if element.VM > 1 else [value]
    words = (f"{int(one):08X}" for one in several) if vr == "AT" else map(str, several)
    return Typed(vr, "\\".join(words))


def _texts(values: Mapping[int, Value]) -> Iterator[str]:
    """Give every text that the character set has to carry."""
    for value in values.values():
        plain = value.value if isinstance(value, Typed) else value
        if isinstance(plain, str):
            yield plain
        elif not isinstance(plain, bytes):
            for item in plain:
                yield from _texts(item)
