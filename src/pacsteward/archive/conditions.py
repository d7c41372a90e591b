"""What a query asks for, as conditions of SQL.

`matching.matches` says what a criterion means; the SQL means the same, with two differences that
we want: descriptions match without regard to case and accents, as names do, because nobody
remembers how a machine wrote "CT Abdomen"; and offsets from UTC in date-times are left out.

A criterion of the level asked for, or above, is a condition on the row itself. One of a level below
("studies that hold a series with modality CT") asks whether such a row exists; all criteria below
have to be met by one and the same series or instance. Rejected instances, and series and studies
that hold nothing else, are not there at all.

References
----------
PS3.4 C.2.2.2 (matching), C.3.4 (computed attributes), C.4.1.2 and C.4.1.3 (levels).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from pacsteward.archive.columns import (
    ABOUT_THE_ANSWER,
    COUNTS,
    DEPTH,
    REQUEST_ATTRIBUTES,
    SETS,
    Place,
    place_of,
)
from pacsteward.archive.dialect import (
    ALWAYS,
    NEVER,
    Dialect,
    Sql,
    any_of,
    every,
    text_matches,
)
from pacsteward.dicom.attributes import Level
from pacsteward.dicom.matching import (
    DATE_TIME_PAIRS,
    Criterion,
    MultiValue,
    Query,
    Range,
    SequenceMatch,
    Single,
    UidList,
    Universal,
    Wildcard,
    combine_date_time,
)
from pacsteward.dicom.names import normalise, ways_to_meet
from pacsteward.dicom.tags import (
    AVAILABLE_TRANSFER_SYNTAX_UID,
    INSTANCE_AVAILABILITY,
    REQUEST_ATTRIBUTES_SEQUENCE,
)


@dataclass(frozen=True, slots=True)
class Names:
    """What has to be known of the names in the index before one is looked for.

    Parameters
    ----------
    like
        Gives the names, in normal form, that stand in a column and are like what was asked for;
        None where matching is literal.
    have_groups
        Whether any name in a column may have more than one component group.
    """

    like: Callable[[Place, str], Sequence[str]] | None = None
    have_groups: Callable[[Place], bool] = lambda _place: True


FROM: Final[Mapping[Level, str]] = {
    Level.PATIENT: "patient",
    Level.STUDY: "study",
    Level.SERIES: "series JOIN study ON study.study_key = series.study_key",
    Level.IMAGE: (
        "instance JOIN series ON series.series_key = instance.series_key "
        "JOIN study ON study.study_key = series.study_key"
    ),
}
"""The tables that a query at a level reads."""

VISIBLE: Final[Mapping[Level, str]] = {
    Level.PATIENT: (
        "EXISTS (SELECT 1 FROM study AS shown WHERE shown.patient_key = patient.patient_key "
        "AND shown.number_of_study_related_instances > 0)"
    ),
    Level.STUDY: "study.number_of_study_related_instances > 0",
    Level.SERIES: "series.number_of_series_related_instances > 0",
    Level.IMAGE: "instance.rejected_for = ''",
}
"""What keeps rejected instances out of sight."""

# Rows below the one at hand: tables to look in, how they hang on it, and the key they hang on.
_BELOW: Final[Mapping[tuple[Level, Level], tuple[str, str]]] = {
    (Level.PATIENT, Level.STUDY): ("study", "patient_key"),
    (Level.PATIENT, Level.SERIES): (FROM[Level.SERIES], "patient_key"),
    (Level.PATIENT, Level.IMAGE): (FROM[Level.IMAGE], "patient_key"),
    (Level.STUDY, Level.SERIES): ("series", "study_key"),
    (Level.STUDY, Level.IMAGE): (
        "series JOIN instance ON instance.series_key = series.series_key",
        "study_key",
    ),
    (Level.SERIES, Level.IMAGE): ("instance", "series_key"),
}
_OWNER: Final = {"patient_key": "study", "study_key": "series", "series_key": "instance"}


@dataclass(frozen=True, slots=True)
class _At:
    """A condition, and the level of the rows that it is about."""

    level: Level
    sql: Sql


def where(query: Query, dialect: Dialect, names: Names) -> Sql:
    """Return the condition of a query, on the tables of `FROM` for its level."""
    own = [Sql(VISIBLE[query.level])]
    below: list[_At] = []
    for condition in _conditions(query, dialect, names):
        if DEPTH[condition.level] <= DEPTH[query.level]:
            own.append(condition.sql)
        elif condition.sql is not ALWAYS:
            below.append(condition)
    if below:
        own.append(_has_below(query.level, below))
    return every(own)


def unsupported(query: Query) -> tuple[int, ...]:
    """Return the keys of a query that restrict it and that `where` cannot honour."""
    return tuple(
        tag
        for tag, criterion in query.criteria.items()
        if not isinstance(criterion, Universal)
        and tag not in ABOUT_THE_ANSWER
        and not _is_supported(tag, criterion, query.level)
    )


def _is_supported(tag: int, criterion: Criterion, level: Level) -> bool:
    if isinstance(criterion, SequenceMatch):
        return tag == REQUEST_ATTRIBUTES_SEQUENCE and all(
            inner in REQUEST_ATTRIBUTES or isinstance(wanted, Universal)
            for inner, wanted in criterion.items.items()
        )
    return (
        place_of(tag, level) is not None
        or tag in SETS
        or tag in COUNTS
        or tag in (INSTANCE_AVAILABILITY, AVAILABLE_TRANSFER_SYNTAX_UID)
    )


def _conditions(query: Query, dialect: Dialect, names: Names) -> Iterable[_At]:
    combined = dict(_combined(query)) if query.combined_datetime else {}
    for tag, criterion in query.criteria.items():
        if isinstance(criterion, Universal) or tag in ABOUT_THE_ANSWER or tag in combined:
            continue
        if isinstance(criterion, SequenceMatch):
            yield from _in_request(tag, criterion, dialect)
        elif place := place_of(tag, query.level):
            yield _At(place.level, _on_place(place, criterion, dialect, names))
        else:
            yield from _on_computed(tag, criterion, query.level, dialect)
    yield from {moment.sql.text: moment for moment in combined.values()}.values()


# --- attributes with a column --------------------------------------------------------------------


def _on_place(place: Place, criterion: Criterion, dialect: Dialect, names: Names) -> Sql:
    if isinstance(criterion, MultiValue):
        ways = [_on_place(place, one, dialect, names) for one in criterion.values]
        if not place.has_several:
            # It may as well be one identifier that has a backslash in it, against the standard.
            joined = "\\".join(_texts(criterion))
            ways.append(_on_text(place, joined, dialect, replace(names, like=None)))
        return any_of(ways)
    if isinstance(criterion, UidList):
        return dialect.one_of(place.column, criterion.uids)
    if isinstance(criterion, Range):
        return _within(place.column, criterion)
    if isinstance(criterion, Single):
        return _on_text(place, criterion.value, dialect, names)
    if isinstance(criterion, Wildcard):
        return _on_text(place, criterion.pattern, dialect, names)
    return ALWAYS


def _on_text(place: Place, pattern: str, dialect: Dialect, names: Names) -> Sql:
    if place.vr == "PN":
        return _on_name(place, pattern, dialect, names)
    if place.vr in ("IS", "US"):
        return _same_integer(place.column, pattern)
    if place.vr == "DS":
        return _same_decimal(place.column, pattern, dialect)
    if place.words:
        return text_matches(dialect, place.words, normalise(pattern))
    if place.has_several:
        return _any_value(dialect, place.column, pattern)
    return text_matches(dialect, place.column, pattern)


def _any_value(dialect: Dialect, column: str, pattern: str) -> Sql:
    """Match one of several values, which stand between backslashes (PS3.4 C.2.2.2.1)."""
    return text_matches(dialect, f"('\\' || {column} || '\\')", f"*\\{pattern}\\*")


def _same_integer(column: str, value: str) -> Sql:
    """Match a number that may have been stored with leading zeros or a plus (PS3.5 6.2, IS)."""
    if not value.lstrip("+-").isdecimal():
        return NEVER
    return Sql(f"{column} <> '' AND ltrim({column}, '+0') = ?", (value.lstrip("+0"),))


def _same_decimal(column: str, value: str, dialect: Dialect) -> Sql:
    """Match a number in any of its spellings: "70", "70.0", "7e1" (PS3.5 6.2, DS)."""
    try:
        number = float(value)
    except ValueError:
        return NEVER
    return Sql(f"{column} <> '' AND {dialect.decimal(column)} = ?", (number,))


def _on_name(place: Place, pattern: str, dialect: Dialect, names: Names) -> Sql:
    """Match a person name in any of its component groups (PS3.4 C.2.2.2.1).

    A pattern is met by the whole value, or by one group of it where it names no groups itself.
    """
    normal = normalise(pattern)
    if not normal:
        return NEVER
    column = place.words or place.column
    separators = ["\\"] if place.has_several else []
    is_anywhere = normal.startswith("*") and normal.endswith("*")
    if not is_anywhere and "=" not in normal and names.have_groups(place):
        separators.append("=")
    ways = []
    for wanted in ways_to_meet(normal):
        ways.append(wanted)
        for separator in separators:
            # What begins or ends with a star has these in it already.
            if not wanted.endswith("*"):
                ways.append(f"{wanted}{separator}*")
            if not wanted.startswith("*"):
                ways.append(f"*{separator}{wanted}")
            if not (wanted.startswith("*") or wanted.endswith("*")):
                ways.append(f"*{separator}{wanted}{separator}*")
    parts = [text_matches(dialect, column, way) for way in ways]
    if names.like is not None:
        parts.append(dialect.one_of(column, names.like(place, pattern)))
    return any_of(parts)


def _within(column: str, span: Range) -> Sql:
    """Match a date, time or date-time; an empty value lies in no range (PS3.4 C.2.2.2.5)."""
    if span.crosses_midnight:
        ends = (span.low, span.high)
        return Sql(f"{column} <> '' AND ({column} >= ? OR {column} <= ?)", ends)
    parts = []
    if span.low is not None:
        parts.append(Sql(f"{column} >= ?", (_without_offset(span.low),)))
    else:
        parts.append(Sql(f"{column} <> ''"))
    if span.high is not None:
        parts.append(Sql(f"{column} <= ?", (_without_offset(span.high),)))
    return every(parts)


def _without_offset(moment: str) -> str:
    return moment[:-5] if len(moment) > 5 and moment[-5] in "+-" else moment


def _combined(query: Query) -> Iterable[tuple[int, _At]]:
    """Give the conditions on dates that form one moment with their times, for both tags."""
    for date_tag, time_tag in DATE_TIME_PAIRS.items():
        date, time = place_of(date_tag, query.level), place_of(time_tag, query.level)
        if date is None or time is None or not {date_tag, time_tag} <= query.criteria.keys():
            continue
        span = combine_date_time(query.criteria[date_tag], query.criteria[time_tag])
        if span is not None:
            moment = _At(date.level, _moment_within(date.column, time.column, span))
            yield date_tag, moment
            yield time_tag, moment


def _moment_within(date: str, time: str, span: Range) -> Sql:
    """Match a date and its time as one moment (PS3.4 C.2.2.2.5.4); dates alone use the index.

    A study without a time, on the first or the last day, may lie within and is not hidden.
    """
    days = Range(span.low and span.low[:8], span.high and span.high[:8])
    parts = [_within(date, days)]
    if span.low is not None:
        parts.append(Sql(f"{date} > ? OR {time} >= ? OR {time} = ''", (span.low[:8], span.low[8:])))
    if span.high is not None:
        parts.append(Sql(f"{date} < ? OR {time} <= ?", (span.high[:8], span.high[8:])))
    return every(parts)


# --- attributes that are computed, and the one sequence ------------------------------------------


def _on_computed(tag: int, criterion: Criterion, level: Level, dialect: Dialect) -> Iterable[_At]:
    if tag in SETS:
        yield _At(Level.STUDY, _on_set(SETS[tag], criterion, dialect))
    elif tag in COUNTS:
        count = COUNTS[tag]
        owner = "patient" if level is Level.PATIENT else "study"
        number = count.sql.format(patient_key=f"{owner}.patient_key")
        # Every query knows the patient it is about.
        at = level if count.level is Level.PATIENT else count.level
        yield _At(at, any_of(_counts(number, value) for value in _texts(criterion)))
    elif tag == INSTANCE_AVAILABILITY:
        if "ONLINE" not in _texts(criterion):
            yield _At(level, NEVER)
    elif tag == AVAILABLE_TRANSFER_SYNTAX_UID:
        yield _At(Level.IMAGE, dialect.one_of("instance.transfer_syntax_uid", _texts(criterion)))


def _texts(criterion: Criterion) -> list[str]:
    if isinstance(criterion, Single):
        return [criterion.value]
    if isinstance(criterion, UidList):
        return list(criterion.uids)
    if isinstance(criterion, Wildcard):
        return [criterion.pattern]
    if isinstance(criterion, MultiValue):
        return [text for one in criterion.values for text in _texts(one)]
    return []


def _counts(number: str, value: str) -> Sql:
    # A longer number is none that a database can compare with, nor one of anything there is.
    is_number = value.isdecimal() and len(value) <= 15
    return Sql(f"{number} = ?", (int(value),)) if is_number else NEVER


def _on_set(column: str, criterion: Criterion, dialect: Dialect) -> Sql:
    """Match one of the values that a study's own column lists (PS3.4 C.3.4, 0008,0061)."""
    return any_of(text_matches(dialect, column, f"*\\{text}\\*") for text in _texts(criterion))


def _in_request(tag: int, criterion: SequenceMatch, dialect: Dialect) -> Iterable[_At]:
    if tag != REQUEST_ATTRIBUTES_SEQUENCE:
        return
    for inner, wanted in criterion.items.items():
        place = REQUEST_ATTRIBUTES.get(inner)
        if place is not None and not isinstance(wanted, Universal):
            yield _At(place.level, _on_place(place, wanted, dialect, Names()))


# --- levels below --------------------------------------------------------------------------------


def _has_below(level: Level, below: Sequence[_At]) -> Sql:
    """Ask whether a row below meets all of `below`.

    Where few rows below can do so, they are found first and lead to the rows asked for;
    otherwise each row asked for is looked into, and the query can stop when it has enough.
    """
    deepest = max((condition.level for condition in below), key=DEPTH.__getitem__)
    tables, key = _BELOW[level, deepest]
    met = every([Sql(VISIBLE[deepest]), *(condition.sql for condition in below)])
    own = {"patient_key": "patient", "study_key": "study", "series_key": "series"}[key]
    inner = f"SELECT {{what}} FROM {tables} WHERE {{hangs}}({met.text})"  # noqa: S608
    if met.is_selective:
        found = inner.format(what=f"{_OWNER[key]}.{key}", hangs="")
        return Sql(f"{own}.{key} IN ({found})", met.parameters, is_selective=True)
    hangs = f"{_OWNER[key]}.{key} = {own}.{key} AND "
    return Sql(f"EXISTS ({inner.format(what='1', hangs=hangs)})", met.parameters)
