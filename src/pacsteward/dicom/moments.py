"""Dates, times and moments of DICOM in a form that can be compared as text.

The lower end of a span is written as short as possible and the upper end is filled up to the last
microsecond, so a time "10" spans 10:00:00 to 10:59:59.999999 and is met by "1015", "101500" and
"101500.25" alike, in Python and in SQL.

References
----------
PS3.5 6.2 (DA, TM, DT); PS3.4 C.2.2.2.5 (range matching).
"""

from __future__ import annotations

import calendar
import re
from datetime import date, datetime, timedelta
from typing import TypeAlias

Span: TypeAlias = tuple[str | None, str | None]
"""Both ends belong to it; None is an open end."""


def day_span(text: str) -> Span:
    """Return the span of a DA or of a range of them.

    Raises
    ------
    ValueError
        When it is neither.
    """
    low, high = _ends(text)
    return _day(low) if low else None, _day(high) if high else None


def time_span(text: str) -> Span:
    """Return the span of a TM, which may be partial, or of a range of them.

    Raises
    ------
    ValueError
        When it is neither.
    """
    low, high = _ends(text)
    return _shortest(_time(low)) if low else None, _fill(_time(high)) if high else None


def moment_span(text: str) -> Span:
    """Return the span of a DT, which may be partial, or of a range of them.

    Raises
    ------
    ValueError
        When it is neither.
    """
    for low, high in _splits(text):
        if all(_is_moment(end) for end in (low, high) if end):
            return _earliest(low) if low else None, _latest(high) if high else None
    raise ValueError("not a moment")


def is_within(stored: str, low: str | None, high: str | None, vr: str) -> bool:
    """Whether a stored DA, TM or DT lies in a span; one that is none of these never does.

    A span of times whose low end is the later one goes over midnight.
    """
    if vr == "DT":
        return _is_moment_within(stored, low, high)
    pattern = _DATE if vr == "DA" else _TIME
    if not pattern.fullmatch(stored):
        return False
    if vr == "TM" and low is not None and high is not None and low > high:
        return stored >= low or stored <= high
    return (low is None or stored >= low) and (high is None or stored <= high)


def canonical_day(text: str) -> str:
    """Return a stored DA without the dots of ACR-NEMA; anything else as it is."""
    parts = _OLD_DATE.fullmatch(text)
    return "".join(parts.groups()) if parts else text


_DATE = re.compile(r"(\d{4})(\d\d)(\d\d)", re.ASCII)
_OLD_DATE = re.compile(r"(\d{4})\.(\d\d)\.(\d\d)", re.ASCII)
_TIME = re.compile(r"([01]\d|2[0-3])(?:(:?)([0-5]\d)(?:\2([0-5]\d|60)(\.\d{1,6})?)?)?", re.ASCII)
_MOMENT = re.compile(
    r"(\d{4})(?:(0[1-9]|1[0-2])(?:(0[1-9]|[12]\d|3[01])(?:([01]\d|2[0-3])"
    r"(?:([0-5]\d)(?:([0-5]\d|60)(\.\d{1,6})?)?)?)?)?)?([+-]\d{4})?",
    re.ASCII,
)
_OFFSET_MIN, _OFFSET_MAX = -1200, 1400


def _ends(text: str) -> tuple[str, str]:
    """Return the ends of a range, "" for an open one; of a single value both are that value."""
    ends = [part.strip() for part in text.split("-")]
    if len(ends) > 2:
        raise ValueError("more than one hyphen")
    return ends[0], ends[-1]


def _day(text: str) -> str:
    """Check a DA; the form of ACR-NEMA, 1993.08.22, is still met (PS3.5 6.2)."""
    parts = _DATE.fullmatch(text) or _OLD_DATE.fullmatch(text)
    if parts is None:
        raise ValueError("not a date")
    date(*map(int, parts.groups()))
    return "".join(parts.groups())


def _time(text: str) -> str:
    """Check a TM; the form of ACR-NEMA, 10:15:00, is still met (PS3.5 6.2)."""
    if _TIME.fullmatch(text) is None:
        raise ValueError("not a time")
    return text.replace(":", "")


def _splits(text: str) -> list[tuple[str, str]]:
    """Return the ways to read a DT as a moment or a range, the likelier first.

    A hyphen may separate the ends or begin an offset from UTC. PS3.5 6.2 settles it by value:
    what can be an offset (up to -1200) is one.
    """
    splits = [(text, text)]
    for place, character in enumerate(text):
        if character == "-":
            splits.append((text[:place].strip(), text[place + 1 :].strip()))
    return splits


def _is_moment(text: str) -> bool:
    parts = _MOMENT.fullmatch(text)
    if parts is None:
        return False
    offset = parts[8]
    if offset is not None and not _OFFSET_MIN <= int(offset) <= _OFFSET_MAX:
        return False
    return parts[3] is None or int(parts[3]) <= _days_in(parts[1], parts[2])


def _days_in(year: str, month: str) -> int:
    return calendar.monthrange(max(int(year), 1), int(month))[1]


def _split_offset(text: str) -> tuple[str, str]:
    """Return a DT and its offset from UTC, "" where it has none."""
    if len(text) > 5 and text[-5] in "+-":
        return text[:-5], text[-5:]
    return text, ""


def _earliest(text: str) -> str:
    moment, offset = _split_offset(text)
    return moment[:8] + _shortest(moment[8:], keep=0) + offset


def _latest(text: str) -> str:
    moment, offset = _split_offset(text)
    if len(moment) == 4:
        moment += "12"
    if len(moment) == 6:
        moment += f"{_days_in(moment[:4], moment[4:]):02}"
    return moment[:8] + _fill(moment[8:]) + offset


def _shortest(time: str, *, keep: int = 2) -> str:
    """Drop trailing zeros that say nothing, since "10" is stored as well as "100000"."""
    whole, _, fraction = time.partition(".")
    fraction = fraction.rstrip("0")
    if fraction:
        return f"{whole}.{fraction}"
    while len(whole) > keep and whole.endswith("00"):
        whole = whole[:-2]
    return whole


def _fill(time: str) -> str:
    """Fill a time up to the last microsecond that it still covers."""
    whole, _, fraction = time.partition(".")
    return f"{whole}{'235959'[len(whole) :]}.{fraction:9<6}"


def _is_moment_within(stored: str, low: str | None, high: str | None) -> bool:
    if not _is_moment(stored):
        return False
    if low is not None and not _not_after(low, stored):
        return False
    return high is None or _not_after(stored, high)


def _not_after(one: str, other: str) -> bool:
    """Whether a moment is not after another; offsets count only where both are known."""
    is_zoned = bool(_split_offset(one)[1]) and bool(_split_offset(other)[1])
    return _instant(one, is_zoned=is_zoned) <= _instant(other, is_zoned=is_zoned)


def _instant(text: str, *, is_zoned: bool) -> datetime:
    moment, offset = _split_offset(text)
    whole, _, fraction = moment.partition(".")
    whole += "00000101000000"[len(whole) :]
    instant = datetime(
        max(int(whole[:4]), 1), int(whole[4:6]), int(whole[6:8]),
        int(whole[8:10]), int(whole[10:12]), min(int(whole[12:14]), 59),
        int(f"{fraction:0<6}"),
    )  # fmt: skip
    if not is_zoned:
        return instant
    sign = -1 if offset[0] == "+" else 1
    shift = timedelta(hours=int(offset[1:3]), minutes=int(offset[3:]))
    try:
        return instant + sign * shift
    except OverflowError:  # the first and the last day that datetime knows
        return instant
