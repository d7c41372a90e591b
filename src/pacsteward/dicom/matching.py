"""What a query asks for, as plain values, and what it means for a value to match.

`parse_criterion` turns the text of one key, as C-FIND or QIDO-RS carries it, into one of a handful
of frozen values; the archive turns those into SQL, and `matches` says in Python what the SQL must
mean. Nothing here knows levels' hierarchies or tables.

Dates and times leave in a form that can be compared as text with what devices send; see
`moments`.

References
----------
PS3.4 C.2.2.2 (attribute matching); PS3.5 6.2 (DA, TM, DT); PS3.18 8.3.4.1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Final, TypeAlias

from pacsteward.base.errors import Invalid
from pacsteward.dicom import vrs
from pacsteward.dicom.attributes import Level, format_tag, keyword_of
from pacsteward.dicom.moments import (
    Span,
    canonical_day,
    day_span,
    is_within,
    moment_span,
    time_span,
)
from pacsteward.dicom.names import normalise, ways_to_meet
from pacsteward.dicom.uids import is_valid_uid


@dataclass(frozen=True, slots=True)
class Universal:
    """Everything matches, also an absent value; the key only asks for return (C.2.2.2.3)."""


@dataclass(frozen=True, slots=True)
class Single:
    """One value, equal to the stored one (C.2.2.2.1)."""

    value: str


@dataclass(frozen=True, slots=True)
class UidList:
    """Any of these UIDs (C.2.2.2.2)."""

    uids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wildcard:
    """A pattern: "*" is any run of characters, "?" one character (C.2.2.2.4)."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Range:
    """A closed range of dates, times or date-times; None is an open end (C.2.2.2.5).

    Both ends compare as text with stored values in `canonical` form. A DT keeps its offset from
    UTC as a suffix. Of times alone the first may be the later one: from 23 to 1 is a night shift.
    A time that was asked for alone, like ``10``, is the range of all that it may stand for.
    """

    low: str | None
    high: str | None
    is_one_value: bool = field(default=False, compare=False)

    @property
    def crosses_midnight(self) -> bool:
        """Whether it is a range of times that ends on the next day."""
        if self.low is None or self.high is None:
            return False
        # The high end of a time has a length of its own, filled up to the microsecond as it is.
        return len(self.high) == len("235959.999999") and self.low > self.high


@dataclass(frozen=True, slots=True)
class MultiValue:
    r"""Any of several values or patterns, as clients ask for ``CT\MR``."""

    values: tuple[Single | Wildcard, ...]


@dataclass(frozen=True, slots=True)
class SequenceMatch:
    """One item of the stored sequence meets all of these (C.2.2.2.6)."""

    items: Mapping[int, Criterion]


Criterion: TypeAlias = Universal | Single | UidList | Wildcard | Range | MultiValue | SequenceMatch


@dataclass(frozen=True, slots=True)
class Query:
    """A question to the archive.

    Parameters
    ----------
    level
        What one answer stands for.
    criteria
        By tag. A tag that is only to be returned need not be here.
    returns
        Tags wanted in the answers.
    fuzzy
        Whether person names match by likeness (`names.fuzzy_matches`).
    combined_datetime
        Whether a date and its time form one moment (C.2.2.2.5.4); see `combine_date_time`.
    limit, offset
        Answers wanted, and how many to pass over; no limit means all of them.
    order_by
        Tag, and whether descending; the archive appends what makes the order total.
    """

    level: Level
    criteria: Mapping[int, Criterion] = field(default_factory=dict)
    returns: tuple[int, ...] = ()
    fuzzy: bool = False
    combined_datetime: bool = False
    limit: int | None = None
    offset: int = 0
    order_by: tuple[tuple[int, bool], ...] = ()


UNIVERSAL: Final = Universal()

VALUES_MAX: Final = 100
"""Values or patterns of one key. The standard has lists of UIDs only, and each other value is a
condition of its own for the database: half a million took it 800 MiB."""

UIDS_MAX: Final = 50_000
"""UIDs of one key."""

DATE_TIME_PAIRS: Final[Mapping[int, int]] = MappingProxyType(
    {
        0x00080020: 0x00080030,  # Study
        0x00080021: 0x00080031,  # Series
        0x00080022: 0x00080032,  # Acquisition
        0x00080023: 0x00080033,  # Content
        0x00100030: 0x00100032,  # Patient's Birth
        0x00400002: 0x00400003,  # Scheduled Procedure Step Start
        0x00400244: 0x00400245,  # Performed Procedure Step Start
    }
)
"""Dates and the times that complete them."""


def parse_criterion(tag: int, vr: str, text: str) -> Criterion:
    """Return what one key of a query asks for.

    Parameters
    ----------
    tag
        Names the attribute in messages.
    vr
        Its value representation; it decides which kinds of matching exist.
    text
        The decoded value; several values are separated by backslashes, UIDs also by commas.

    Raises
    ------
    Invalid
        When the value cannot be meant for this attribute: a word where a date belongs, a range
        of UIDs, a text where a sequence belongs; or when it lists too many values.
    """
    stripped = text.strip(" \0")
    if not stripped or not stripped.strip("*"):
        return UNIVERSAL
    parse = _PARSERS.get(vr)
    if parse is None:
        raise _bad_key(tag, f"An attribute of VR {vr} cannot be matched.", "Leave the key empty.")
    criterion = parse(tag, vr, stripped)
    if isinstance(criterion, MultiValue) and len(criterion.values) > VALUES_MAX:
        raise _too_many(tag, VALUES_MAX)
    if isinstance(criterion, UidList) and len(criterion.uids) > UIDS_MAX:
        raise _too_many(tag, UIDS_MAX)
    return criterion


def _too_many(tag: int, most: int) -> Invalid:
    return _bad_key(tag, f"It lists more than {most} values.", "Ask in several steps.")


def sequence_criterion(items: Mapping[int, Criterion]) -> Criterion:
    """Return the criterion for one item of keys; universal when none of them restricts."""
    if all(isinstance(criterion, Universal) for criterion in items.values()):
        return UNIVERSAL
    return SequenceMatch(MappingProxyType(dict(items)))


def like_pattern(pattern: str) -> str:
    r"""Return a wild card pattern as the operand of SQL ``LIKE ... ESCAPE '\'``.

    "%", "_" and "\" of the client's text are literals; only "*" and "?" are wild cards.
    """
    return pattern.translate(_LIKE)


_LIKE: Final = str.maketrans({"*": "%", "?": "_", "%": "\\%", "_": "\\_", "\\": "\\\\"})


def has_wildcard(text: str) -> bool:
    """Whether a text of a VR that allows wild cards is a pattern."""
    return "*" in text or "?" in text


def canonical(vr: str, value: str) -> str:
    """Return a stored value in the form in which criteria are compared with it.

    Dates and times lose the delimiters of ACR-NEMA, integers their leading zeros; the rest loses
    its padding only. What is not understood comes back as it is, without padding.
    """
    stripped = value.strip(" \0")
    if not stripped or (stripped.isdigit() and vr != "IS"):
        return stripped
    if vr == "DA":
        return canonical_day(stripped)
    if vr in ("TM", "DT"):
        return stripped.replace(":", "")
    if vr == "IS":
        try:
            return str(int(stripped))
        except ValueError:
            return stripped
    return stripped


def matches(criterion: Criterion, value: str, vr: str) -> bool:
    """Whether a stored value meets a criterion.

    This is the meaning that every faster implementation has to agree with.

    Parameters
    ----------
    criterion
        Of `parse_criterion`.
    value
        The stored text; several values are separated by backslashes, and one that matches is
        enough (C.2.2.2.1). "" stands for an absent value and meets only universal matching.
    vr
        Of the attribute. Person names match without regard to case and accents, and in any of
        their component groups when the query does not name one; all else is matched exactly.

    Raises
    ------
    Invalid
        The criterion is of a sequence, which is matched item by item.
    """
    if isinstance(criterion, Universal):
        return True
    if isinstance(criterion, SequenceMatch):
        raise Invalid("A sequence is matched item by item, not as text.")
    if isinstance(criterion, MultiValue):
        return any(matches(one, value, vr) for one in criterion.values)
    stored = [value] if vr in vrs.SINGLE_VALUED else value.split("\\")
    return any(_matches_one(criterion, one.strip(" \0"), vr) for one in stored)


def _matches_one(criterion: Single | UidList | Wildcard | Range, stored: str, vr: str) -> bool:
    if not stored:
        return False
    if isinstance(criterion, UidList):
        return stored in criterion.uids
    if isinstance(criterion, Range):
        return is_within(canonical(vr, stored), criterion.low, criterion.high, vr)
    if isinstance(criterion, Single):
        if vr == "PN":
            return _name_matches(criterion.value, stored)
        if vr in ("DS", "FL", "FD"):
            return _same_number(criterion.value, stored)
        return canonical(vr, criterion.value) == canonical(vr, stored)
    if vr == "PN":
        return _name_matches(criterion.pattern, stored)
    return matches_pattern(criterion.pattern, stored)


def _name_matches(wanted: str, stored: str) -> bool:
    pattern, name = normalise(wanted), normalise(stored)
    candidates = [name] if "=" in pattern else [name, *name.split("=")]
    return any(
        matches_pattern(way, candidate) for way in ways_to_meet(pattern) for candidate in candidates
    )


def _same_number(wanted: str, stored: str) -> bool:
    try:
        return float(wanted) == float(stored)
    except ValueError:
        return wanted == stored


def matches_pattern(pattern: str, text: str) -> bool:
    """Whether a text as a whole meets a wild card pattern (PS3.4 C.2.2.2.4).

    Takes time in proportion to both lengths, whatever the pattern: between two stars the first
    place that fits is as good as any later one, so nothing is ever tried again.
    """
    first, *others = _pieces(pattern)
    if not others:
        return first.fullmatch(text) is not None
    begin = first.match(text)
    if begin is None:
        return False
    place = begin.end()
    *inner, last = others
    for piece in inner:
        found = piece.search(text, place)
        if found is None:
            return False
        place = found.end()
    tail = len(text) - last.groups
    return tail >= place and last.fullmatch(text, tail) is not None


@lru_cache(maxsize=256)
def _pieces(pattern: str) -> tuple[re.Pattern[str], ...]:
    """Return what stands between the stars; each character is a group, so `groups` counts them."""
    return tuple(
        re.compile(
            "".join("(.)" if letter == "?" else f"({re.escape(letter)})" for letter in piece),
            re.DOTALL,
        )
        for piece in re.split(r"\*+", pattern)
    )


def combine_date_time(days: Criterion, hours: Criterion) -> Range | None:
    """Return the one span that a date and a time key form together, None where they do not.

    With combined date-time matching ``20240101-20240103`` and ``1000-1200`` mean from the first
    at ten to the third at twelve, instead of ten to twelve on each of three days
    (PS3.4 C.2.2.2.5.4). The ends are those of a DT. Both have to be ranges of one form: a day or
    an hour by itself, or one range that is open where the other is not, keep the meaning that
    they have alone. So does one day from 23 to 1, which is no such span.
    """
    if not isinstance(days, Range) or not isinstance(hours, Range) or hours.is_one_value:
        return None
    if (days.low is None, days.high is None) != (hours.low is None, hours.high is None):
        return None
    low = days.low and days.low + (hours.low or "")
    high = days.high and days.high + (hours.high or "")
    if low and high and low > high:
        return None
    return Range(low, high)


# --- the kinds of keys ---------------------------------------------------------------------------


def _parse_uid(tag: int, _vr: str, text: str) -> Criterion:
    uids = tuple(
        dict.fromkeys(uid for part in re.split(r"[\\,]", text) if (uid := part.strip(" \0")))
    )
    if not uids:
        return UNIVERSAL
    for uid in uids:
        if not is_valid_uid(uid):
            raise _bad_key(
                tag,
                "It holds something that is not a UID; ranges and wild cards do not exist here "
                "(PS3.4 C.2.2.2.2).",
                "List complete UIDs.",
            )
    return Single(uids[0]) if len(uids) == 1 else UidList(uids)


def _parse_text(_tag: int, vr: str, text: str) -> Criterion:
    if vr in vrs.SINGLE_VALUED or "\\" not in text:
        return _one_text(text)
    values = [part for raw in text.split("\\") if (part := raw.strip(" \0"))]
    if not values or any(not value.strip("*") for value in values):
        return UNIVERSAL
    if len(values) == 1:
        return _one_text(values[0])
    return MultiValue(tuple(_one_text(value) for value in values))


def _one_text(text: str) -> Single | Wildcard:
    return Wildcard(text) if has_wildcard(text) else Single(text)


def _parse_number(tag: int, vr: str, text: str) -> Criterion:
    values = []
    for raw in text.split("\\"):
        part = raw.strip(" \0")
        if not part:
            continue
        if not _NUMBER[vr].fullmatch(part):
            raise _bad_key(
                tag,
                f"It is not a number of VR {vr}, and neither ranges nor wild cards exist for "
                "numbers (PS3.4 C.2.2.2.4).",
                "Give one number, or leave the key empty.",
            )
        values.append(Single(canonical(vr, part)))
    if not values:
        return UNIVERSAL
    return values[0] if len(values) == 1 else MultiValue(tuple(values))


def _parse_tag_value(tag: int, _vr: str, text: str) -> Criterion:
    written = re.fullmatch(r"\(?([0-9A-Fa-f]{4}),?([0-9A-Fa-f]{4})\)?", text)
    if written is None:
        raise _bad_key(tag, "It is not a tag.", "Give eight hexadecimal digits.")
    return Single((written[1] + written[2]).upper())


def _parse_sequence(tag: int, _vr: str, _text: str) -> Criterion:
    raise _bad_key(
        tag,
        "It is a sequence and was given a text.",
        "Name the attribute inside the sequence, as in SequenceKeyword.AttributeKeyword.",
    )


def _parse_date(tag: int, _vr: str, text: str) -> Criterion:
    span = _span(tag, "DA", day_span, text)
    return Single(span.low) if "-" not in text and span.low is not None else _closed(tag, span)


def _parse_time(tag: int, _vr: str, text: str) -> Criterion:
    # A range that crosses midnight is not forbidden, and night shifts are asked for with it.
    span = _span(tag, "TM", time_span, text)
    if span == Range(None, None):
        return UNIVERSAL
    return span if "-" in text else replace(span, is_one_value=True)


def _parse_datetime(tag: int, _vr: str, text: str) -> Criterion:
    return _closed(tag, _span(tag, "DT", moment_span, text))


def _span(tag: int, vr: str, parse: Callable[[str], Span], text: str) -> Range:
    try:
        return Range(*parse(text))
    except ValueError:
        form = _FORMS[vr]
        raise _bad_key(
            tag,
            f"It is not of VR {vr} (PS3.5 6.2).",
            f"Write {form}, and a range as {form}-{form} with either end left out.",
        ) from None


def _closed(tag: int, span: Range) -> Criterion:
    if span.low is None and span.high is None:
        return UNIVERSAL
    if span.low is not None and span.high is not None and span.low[:14] > span.high[:14]:
        raise _bad_key(
            tag,
            "The range ends before it begins (PS3.4 C.2.2.2.5).",
            "Give the earlier end first.",
        )
    return span


_FORMS: Final = {
    "DA": "YYYYMMDD",
    "TM": "HHMMSS.FFFFFF",
    "DT": "YYYYMMDDHHMMSS.FFFFFF&ZZXX",
}


def _bad_key(tag: int, why: str, remedy: str) -> Invalid:
    # The text itself stays out: it may be a patient's name.
    name = f"{keyword_of(tag)} {format_tag(tag)}".strip()
    return Invalid(f"The query key {name} was not understood.", why=why, remedy=remedy)


_INTEGER = re.compile(r"[+-]?\d{1,20}", re.ASCII)
_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_NUMBER: Final = {
    **dict.fromkeys({"IS"} | vrs.INTEGERS, _INTEGER),
    **dict.fromkeys({"DS"} | vrs.FLOATS, _DECIMAL),
}
_PARSERS: Final[Mapping[str, Callable[[int, str, str], Criterion]]] = {
    "UI": _parse_uid,
    "DA": _parse_date,
    "TM": _parse_time,
    "DT": _parse_datetime,
    "AT": _parse_tag_value,
    "SQ": _parse_sequence,
    **dict.fromkeys(
        ("AE", "AS", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"), _parse_text
    ),
    **dict.fromkeys(_NUMBER, _parse_number),
}
