"""Queries: which patients, studies, series and instances meet all criteria, in an order that stays.

What enters is a `matching.Query`; what leaves is one `Match` after another. A query at study level
reads one table; `conditions.where` makes the condition, `columns` says where the values stand.

The order is total: what the query asks for first, then the usual order of the level (studies newest
first, series and instances as a viewer shows them), then a key, so that pages neither overlap nor
leave anything out. A long answer is read in chunks without holding a transaction open while a slow
peer takes it: the keys of all answers are read at once, their rows chunk by chunk.

References
----------
PS3.4 C.4.1 (C-FIND); PS3.18 8.3.4 and 10.6 (QIDO-RS).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from pacsteward.archive.columns import (
    ABOUT_THE_ANSWER,
    COUNTS,
    DEPTH,
    SETS,
    UNIQUE_KEYS,
    Place,
    place_of,
)
from pacsteward.archive.conditions import FROM, VISIBLE, Names, where
from pacsteward.archive.dialect import (
    FINDS_FEW,
    Dialect,
    Postgres,
    Sql,
    Sqlite,
    literal_beginning,
)
from pacsteward.archive.likeness import NameBook
from pacsteward.archive.words_index import SHORTEST
from pacsteward.base.db import Database, Look, was_stopped
from pacsteward.base.errors import Exhausted, Invalid, Unavailable, WouldWait
from pacsteward.dicom.attributes import Level, name_of
from pacsteward.dicom.matching import Criterion, Query, Single, UidList, Wildcard
from pacsteward.dicom.names import normalise
from pacsteward.dicom.tags import (
    AVAILABLE_TRANSFER_SYNTAX_UID,
    INSTANCE_AVAILABILITY,
    REQUEST_ATTRIBUTES_SEQUENCE,
)

CHUNK: Final = 500
"""Answers that are read together, in rows."""

AT_ONCE_MAX: Final = 20
AT_ONCE_S: Final = 0.002
"""A question that is asked on an event loop has few answers, and they are there in a moment."""


@dataclass(frozen=True, slots=True)
class Found:
    """One row that meets a query.

    Parameters
    ----------
    key
        Of the row at the level of the query.
    values
        Text by tag.
    may_have_requests
        Whether its objects may hold a Request Attributes Sequence (0040,0275).
    """

    key: int
    values: Mapping[int, str]
    may_have_requests: bool = True


class Finder:
    """Answers queries from the index.

    Parameters
    ----------
    database
        That holds the index.
    names
        For fuzzy matching.
    timeout_s
        How long the database may work on one statement, in seconds.
    """

    def __init__(self, database: Database, names: NameBook, *, timeout_s: float) -> None:
        self._database = database
        self._names = names
        self._timeout_s = timeout_s
        self._dialect: Dialect = Sqlite() if database.is_sqlite else Postgres()

    def find(self, query: Query) -> Iterator[Found]:
        """Give all answers, from `Query.offset` on and at most `Query.limit`.

        Raises
        ------
        Invalid
            The order names an attribute that answers cannot be ordered by.
        Exhausted
            The database worked too long on it; the query should be narrower.
        """
        columns = _columns(query.level, query.returns)
        condition = self._where(query)
        rows, others = self._begin(query, condition, columns)
        yield from (_found(columns, row) for row in rows)
        for start in range(0, len(others), CHUNK):
            keys = others[start : start + CHUNK]
            by_key = {row[-1]: row for row in self._rows(query, condition, columns, keys)}
            # What was removed since the keys were read is no longer there.
            yield from (_found(columns, by_key[key]) for key in keys if key in by_key)

    def find_at_once(self, query: Query) -> list[Found]:
        """Give all answers to a query for something that stands in few rows.

        For an event loop: it takes a tenth of a millisecond, and hardly ever more than two.

        Raises
        ------
        WouldWait
            It names no such thing, has many answers, took too long, or asks for what only the
            objects have.
        """
        words = _name_alone(query)
        names_few = words or any(
            _names_few(tag, criterion, query.level) for tag, criterion in query.criteria.items()
        )
        if query.fuzzy or not names_few:
            raise WouldWait
        if outside(query.level, query.returns):
            raise WouldWait
        condition = self._where(query, self._at_once)
        # The full-text table may go through long lists, and so may one for each group of a name.
        if not condition.is_selective or " MATCH " in condition.text:
            raise WouldWait
        if words and " OR " in condition.text:
            raise WouldWait
        columns = _columns(query.level, query.returns)
        if words:
            condition = self._first_of(query.level, condition, words)
        rows = self._at_once(self._statement(query, condition, columns.sql, AT_ONCE_MAX + 1))
        if len(rows) > AT_ONCE_MAX:
            raise WouldWait
        end = None if query.limit is None else query.offset + query.limit
        return [_found(columns, row) for row in rows[query.offset : end]]

    def _first_of(self, level: Level, condition: Sql, words: str) -> Sql:
        """Narrow a condition on a name down to a few rows: many patients may be called so.

        In the order of the names, so that a planner that does not know how many there are walks
        their index to the last of these few and no further.
        """
        key = KEY_COLUMNS[level]
        few = (
            f"SELECT {key} FROM {FROM[level]} WHERE {condition.text} "  # noqa: S608
            f"ORDER BY {words} LIMIT {AT_ONCE_MAX + 1}"
        )
        return Sql(f"{key} IN ({few})", condition.parameters, is_selective=True)

    def count(self, query: Query) -> int:
        """Return how many answers there are, whatever the limit and the offset."""
        condition = self._where(query)
        statement = f"SELECT count(*) FROM {FROM[query.level]} WHERE {condition.text}"  # noqa: S608
        ((number,),) = self._at_a_glance(Sql(statement, condition.parameters))
        return int(number)

    def explain(self, query: Query) -> str:
        """Return how the database goes about a query, for tests and for the curious."""
        columns = _columns(query.level, query.returns)
        with self._looking() as look:
            statement = self._statement(query, self._where(query), columns.sql, CHUNK)
            word = "EXPLAIN QUERY PLAN" if self._database.is_sqlite else "EXPLAIN"
            plan = Sql(f"{word} {statement.text}", statement.parameters)
            return "\n".join(str(row[-1]) for row in self._rows_of(look, plan))

    def _begin(
        self, query: Query, condition: Sql, columns: _Columns
    ) -> tuple[Sequence[Any], array[int]]:
        """Read the first answers, and the keys of those behind them, at one moment."""
        wanted = query.limit
        if wanted is not None and wanted <= 0:
            return [], array("q")
        first = CHUNK if wanted is None else min(wanted, CHUNK)
        statement = self._statement(query, condition, columns.sql, first, query.offset)
        others = array("q")
        if wanted == first or condition.is_selective:
            rows = self._at_a_glance(statement)
            if wanted == first or len(rows) < CHUNK:
                return rows, others
        # Two statements that must see the same.
        with self._looking() as look:
            rows = self._rows_of(look, statement)
            if len(rows) == CHUNK:
                key = KEY_COLUMNS[query.level]
                left = None if wanted is None else wanted - CHUNK
                behind = self._statement(query, condition, key, left, query.offset + CHUNK)
                others.extend(row[0] for row in self._rows_of(look, behind))
        return rows, others

    def _rows(
        self, query: Query, condition: Sql, columns: _Columns, keys: Sequence[int]
    ) -> Sequence[Any]:
        marks = ", ".join(str(int(key)) for key in keys)
        # The condition again: the key of what was removed since may be another row's by now.
        statement = Sql(
            f"SELECT {columns.sql} FROM {FROM[query.level]} "  # noqa: S608
            f"WHERE {KEY_COLUMNS[query.level]} IN ({marks}) AND {condition.text}",
            condition.parameters,
        )
        return self._at_a_glance(statement)

    def _statement(
        self, query: Query, condition: Sql, columns: str, limit: int | None, offset: int = 0
    ) -> Sql:
        order = ", ".join(self._order(query, is_selective=condition.is_selective))
        text = (
            f"SELECT {columns} FROM {FROM[query.level]} "  # noqa: S608
            f"WHERE {condition.text} ORDER BY {order}"
        )
        if limit is not None:
            text += f" LIMIT {int(limit)}"
        elif offset and self._database.is_sqlite:
            text += " LIMIT -1"
        if offset:
            text += f" OFFSET {int(offset)}"
        return Sql(text, condition.parameters)

    def _order(self, query: Query, *, is_selective: bool) -> Iterator[str]:
        usual = _USUAL_ORDER[query.level]
        if is_selective:
            usual = (self._dialect.unindexed(usual[0]), *usual[1:])
        for tag, is_descending in query.order_by:
            direction = " DESC" if is_descending else ""
            yield from (f"{column}{direction}" for column in _order_of(tag, query.level))
        yield from usual

    def _where(self, query: Query, ask: Callable[[Sql], Sequence[Any]] | None = None) -> Sql:
        """Return the condition of a query; `ask` puts the short questions that it takes."""

        def like(place: Place, wanted: str) -> Sequence[str]:
            with self._database.read() as connection:
                return self._names.like(connection, place, wanted)

        def have_groups(place: Place) -> bool:
            # Most archives have no such name, and to look for one in the middle of all the others
            # takes longer than everything else. What there was before the query came is seen.
            question = _ANY_WITH_GROUPS.get(place.words)
            return question is None or bool((ask or self._at_a_glance)(question))

        return where(query, self._dialect, Names(like if query.fuzzy else None, have_groups))

    def _rows_of(self, look: Look, statement: Sql) -> Sequence[Any]:
        return look.rows(self._dialect.statement(statement.text), statement.parameters)

    def _at_once(self, statement: Sql) -> Sequence[Any]:
        """Return the rows of one statement, for whoever may not wait."""
        return self._database.at_once(
            self._dialect.statement(statement.text),
            statement.parameters,
            within_s=AT_ONCE_S,
            timeout_s=self._timeout_s,
        )

    def _at_a_glance(self, statement: Sql) -> Sequence[Any]:
        """Return the rows of one statement, which needs no transaction."""
        with self._within_time():
            return self._database.glance(
                self._dialect.statement(statement.text),
                statement.parameters,
                timeout_s=self._timeout_s,
            )

    @contextmanager
    def _looking(self) -> Iterator[Look]:
        """Give a look at the database in which no statement takes longer than allowed."""
        with self._within_time(), self._database.look(timeout_s=self._timeout_s) as look:
            yield look

    @contextmanager
    def _within_time(self) -> Iterator[None]:
        try:
            yield
        except Unavailable as error:
            if was_stopped(error):
                raise Exhausted(
                    "The query was stopped.",
                    why=f"The database worked on it for more than {self._timeout_s:g} s.",
                    remedy="Ask for less: add a date, a patient ID or a longer part of the name.",
                ) from error
            raise


# --- what is read --------------------------------------------------------------------------------

KEY_COLUMNS: Final = {
    Level.PATIENT: "patient.patient_key",
    Level.STUDY: "study.study_key",
    Level.SERIES: "series.series_key",
    Level.IMAGE: "instance.instance_key",
}


@dataclass(frozen=True, slots=True)
class _Columns:
    """What a statement selects: the values of `tags`, then the key of the row."""

    sql: str
    tags: tuple[int, ...]


@lru_cache(maxsize=256)
def _columns(level: Level, returns: tuple[int, ...]) -> _Columns:
    """Return the columns for the attributes asked for that the index holds.

    The unique keys of the level and those above always come along (PS3.4 C.4.1.1.3.2).
    """
    sql: dict[int, str] = {}
    for tag in (*UNIQUE_KEYS[level], *returns):
        column = _column(tag, level)
        if column:
            sql[tag] = column
    return _Columns(", ".join((*sql.values(), KEY_COLUMNS[level])), tuple(sql))


@lru_cache(maxsize=256)
def outside(level: Level, returns: tuple[int, ...]) -> tuple[int, ...]:
    """Return which of the attributes asked for can only be read from a stored object."""
    return tuple(tag for tag in returns if _is_outside(tag, level))


def _is_outside(tag: int, level: Level) -> bool:
    is_group_length = tag & 0xFFFF == 0
    is_bulk = tag >> 16 >= 0x7FE0
    # What the index knows at another level only would be untrue of this one.
    is_indexed = place_of(tag, level) is not None or tag in COUNTS or tag in SETS
    return tag == REQUEST_ATTRIBUTES_SEQUENCE or not (
        tag in ABOUT_THE_ANSWER or is_group_length or is_bulk or is_indexed or _column(tag, level)
    )


def _column(tag: int, level: Level) -> str:
    """Return the SQL of one value, "" where the index has none at this level."""
    place = place_of(tag, level)
    if place is not None:
        return place.column if DEPTH[place.level] <= DEPTH[level] else _shared(place, level)
    if tag in SETS and level is not Level.PATIENT:
        return f"trim({SETS[tag]}, '\\')"
    if tag in COUNTS and DEPTH[COUNTS[tag].level] <= DEPTH[level]:
        owner = "patient" if level is Level.PATIENT else "study"
        return COUNTS[tag].sql.format(patient_key=f"{owner}.patient_key")
    if tag == INSTANCE_AVAILABILITY:
        return "'ONLINE'"
    if tag == AVAILABLE_TRANSFER_SYNTAX_UID and level is Level.IMAGE:
        return "instance.transfer_syntax_uid"
    if tag == REQUEST_ATTRIBUTES_SEQUENCE and DEPTH[level] >= DEPTH[Level.SERIES]:
        # Not the value: whether there is one. Most series have none, and no object is read then.
        return "series.requested_procedure_id || series.scheduled_procedure_step_id"
    return ""


_SHARED_FROM: Final = {
    (Level.PATIENT, Level.STUDY): "study WHERE study.patient_key = patient.patient_key",
    (Level.PATIENT, Level.SERIES): (
        f"{FROM[Level.SERIES]} WHERE study.patient_key = patient.patient_key"
    ),
    (Level.STUDY, Level.SERIES): "series WHERE series.study_key = study.study_key",
    (Level.STUDY, Level.IMAGE): (
        "instance JOIN series ON series.series_key = instance.series_key "
        "WHERE series.study_key = study.study_key"
    ),
    (Level.SERIES, Level.IMAGE): "instance WHERE instance.series_key = series.series_key",
}


def _shared(place: Place, level: Level) -> str:
    """Return an attribute of a level below where all rows there agree on it, else "".

    Worklists of viewers ask for Institution Name or Modality with studies. Where all series say
    the same, the study can be said to have it; where they differ, any one would be untrue.
    """
    rows = _SHARED_FROM.get((level, place.level))
    if rows is None:
        return ""
    column = place.column
    return (
        f"coalesce((SELECT CASE WHEN min({column}) = max({column}) THEN min({column}) END "  # noqa: S608
        f"FROM {rows} AND {VISIBLE[place.level]}), '')"
    )


def _any_with_groups(words: str) -> Sql:
    # In the order of the index that has nothing else (`tables.py`), so that it is walked.
    table, _, _ = words.partition(".")
    text = f"SELECT 1 FROM {table} WHERE {words} LIKE '%=%' ORDER BY {words} LIMIT 1"  # noqa: S608
    return Sql(text)


_ANY_WITH_GROUPS: Final[Mapping[str, Sql]] = {
    words: _any_with_groups(words)
    for words in ("patient.patient_name_words", "study.patient_name_words")
}
"""Whether any name has more than one component group, by column."""


def _name_alone(query: Query) -> str:
    """Return the column of a name when a query asks for nothing but its beginning, else ""."""
    if len(query.criteria) != 1:
        return ""
    ((tag, criterion),) = query.criteria.items()
    place = place_of(tag, query.level)
    if place is None or place.words not in _ANY_WITH_GROUPS or place.level is not query.level:
        return ""
    if isinstance(criterion, Single):
        return place.words
    if not isinstance(criterion, Wildcard):
        return ""
    wanted = normalise(criterion.pattern)
    return place.words if len(literal_beginning(wanted)) >= SHORTEST else ""


def _names_few(tag: int, criterion: Criterion, level: Level) -> bool:
    """Say whether a criterion names what stands in few rows of the index."""
    if not isinstance(criterion, Single | UidList):
        return False
    place = place_of(tag, level)
    return place is not None and place.column in FINDS_FEW


def _found(columns: _Columns, row: Sequence[Any]) -> Found:
    values = dict(zip(columns.tags, map(str, row[:-1]), strict=True))
    requests = values.pop(REQUEST_ATTRIBUTES_SEQUENCE, None)
    return Found(row[-1], values, may_have_requests=requests != "")


# --- the order -----------------------------------------------------------------------------------

_NEWEST_STUDIES_FIRST: Final = (
    "study.study_date DESC",
    "study.study_time DESC",
    "study.study_key DESC",
)
# Integers are kept as text (VR IS); of two without leading zeros the shorter one is smaller.
_SERIES_AS_SHOWN: Final = (
    "length(series.series_number)",
    "series.series_number",
    "series.series_key",
)

_USUAL_ORDER: Final[Mapping[Level, tuple[str, ...]]] = {
    Level.PATIENT: ("patient.patient_name_words", "patient.patient_key"),
    Level.STUDY: _NEWEST_STUDIES_FIRST,
    Level.SERIES: (*_NEWEST_STUDIES_FIRST, *_SERIES_AS_SHOWN),
    Level.IMAGE: (
        *_NEWEST_STUDIES_FIRST,
        *_SERIES_AS_SHOWN,
        "instance.instance_order",
        "instance.instance_key",
    ),
}


def _order_of(tag: int, level: Level) -> tuple[str, ...]:
    """Return what to order by for an attribute.

    Raises
    ------
    Invalid
        Answers of this level do not bear it.
    """
    place = place_of(tag, level)
    if place is not None and DEPTH[place.level] <= DEPTH[level]:
        if place.vr in ("IS", "US"):
            return (f"length({place.column})", place.column)
        return (place.words or place.column,)
    if tag in COUNTS and (number := _column(tag, level)):
        return (number,)
    if tag in SETS and level is not Level.PATIENT:
        return (SETS[tag],)
    raise Invalid(
        f"The answers cannot be ordered by {name_of(tag)}.",
        why=f"It is no attribute of the index at {level} level.",
        remedy="Order by an attribute of the level asked for, or one above it.",
    )
