"""The few things that SQLite and PostgreSQL say differently, and pieces of SQL to put together.

A query is put together as text with parameters rather than with SQLAlchemy's expressions: each
one looks different, and building and compiling expressions costs more than the database needs to
answer (0.6 ms against 0.1 ms on the machine it was tried on). Texts that came from outside are
only ever parameters; the SQL itself is made of names in `tables` and `columns`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from pacsteward.archive.model import Selection
from pacsteward.archive.tables import PATIENT, STUDY
from pacsteward.archive.words_index import SEARCHED, SHORTEST, words_table
from pacsteward.dicom.matching import like_pattern

PATTERN_MAX: Final = 10_240
"""No indexed value is longer (PS3.5 6.2, LT), and SQLite takes no pattern beyond 50,000 bytes."""

_STARS: Final = re.compile(r"\*{2,}")
_LAST_CHARACTER: Final = "\U0010ffff"


@dataclass(frozen=True, slots=True)
class Sql:
    """A piece of SQL.

    Parameters
    ----------
    text
        With a ``?`` for each parameter.
    is_selective
        Whether it leaves few rows and is served by an index: then the planner must not be lured
        into walking the index of the order instead.
    """

    text: str
    parameters: tuple[object, ...] = ()
    is_selective: bool = False


ALWAYS: Final = Sql("1 = 1")
NEVER: Final = Sql("1 = 0")


def every(parts: Iterable[Sql]) -> Sql:
    """Join conditions by AND."""
    wanted = [part for part in parts if part is not ALWAYS]
    if len(wanted) <= 1:
        return wanted[0] if wanted else ALWAYS
    return Sql(
        " AND ".join(f"({part.text})" for part in wanted),
        tuple(value for part in wanted for value in part.parameters),
        any(part.is_selective for part in wanted),
    )


def any_of(parts: Iterable[Sql]) -> Sql:
    """Join conditions by OR."""
    wanted = [part for part in parts if part is not NEVER]
    if len(wanted) <= 1:
        return wanted[0] if wanted else NEVER
    if ALWAYS in wanted:
        return ALWAYS
    return Sql(
        " OR ".join(f"({part.text})" for part in wanted),
        tuple(value for part in wanted for value in part.parameters),
        all(part.is_selective for part in wanted),
    )


FINDS_FEW: Final = frozenset(
    {
        "patient.patient_id",
        "patient.patient_name_words",
        "study.patient_id",
        "study.patient_name_words",
        "study.accession_number",
        "study.study_instance_uid",
        "series.series_instance_uid",
        "instance.sop_instance_uid",
    }
)
"""Columns with an index, in which one value stands in few rows."""


def equal(column: str, value: str) -> Sql:
    """Match one value exactly."""
    return Sql(f"{column} = ?", (value,), column in FINDS_FEW) if is_storable(value) else NEVER


def is_storable(text: str) -> bool:
    """Whether a text can stand in the index at all; other texts match nothing.

    PostgreSQL has no NUL in texts, and half of a surrogate pair is not a character.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


class Dialect(Protocol):
    """What the two databases say differently."""

    def statement(self, text: str) -> str:
        """Return a complete statement with the parameter marks of the driver."""
        ...

    def glob(self, column: str, pattern: str) -> Sql:
        """Match a whole text by a pattern of ``*`` and ``?``, letter by letter."""
        ...

    def one_of(self, column: str, values: Sequence[str]) -> Sql:
        """Match any of many values."""
        ...

    def candidates(self, column: str, pattern: str) -> Sql:
        """Narrow down by the trigram index what `glob` may match; ALWAYS where it cannot."""
        ...

    def decimal(self, column: str) -> str:
        """Return a text column as a number, whatever it holds."""
        ...

    def unindexed(self, column: str) -> str:
        """Return a column so that no index of it is walked for the order."""
        ...


class Sqlite:
    """SQLite: GLOB minds the case, LIKE does not; lists come as JSON; trigrams in FTS5."""

    def statement(self, text: str) -> str:
        """Return the statement as it is."""
        return text

    def glob(self, column: str, pattern: str) -> Sql:
        """Match by GLOB; "[" would begin a set of letters there."""
        return Sql(f"{column} GLOB ?", (pattern.replace("[", "[[]"),))

    def one_of(self, column: str, values: Sequence[str]) -> Sql:
        """Match any of a JSON list, whose length no limit of parameters bounds."""
        if len(values) == 1:
            return equal(column, values[0])
        known = [value for value in values if is_storable(value)]
        return Sql(
            f"{column} IN (SELECT value FROM json_each(?))",  # noqa: S608
            (json.dumps(known, ensure_ascii=False),),
            column in FINDS_FEW,
        )

    def candidates(self, column: str, pattern: str) -> Sql:
        """Look the longest literal run up in the full-text table."""
        table, _, name = column.partition(".")
        run = _longest_run(pattern)
        if len(run) < SHORTEST or not _is_searched(table, name):
            return ALWAYS
        index = words_table(_SEARCHED_TABLES[table])
        quoted = run.replace('"', '""')
        return Sql(
            f"{table}.{table}_key IN (SELECT rowid FROM {index} WHERE {index} MATCH ?)",  # noqa: S608
            (f'{name} : "{quoted}"',),
            is_selective=True,
        )

    def decimal(self, column: str) -> str:
        """Cast it; what is not a number becomes one by its first digits."""
        return f"CAST({column} AS REAL)"

    def unindexed(self, column: str) -> str:
        """Put a plus before it (https://sqlite.org/optoverview.html, section 2)."""
        return f"+{column}"


class Postgres:
    """PostgreSQL: LIKE minds the case and finds its own trigram index; lists come as arrays."""

    def statement(self, text: str) -> str:
        """Return the statement with the marks of psycopg."""
        return text.replace("%", "%%").replace("?", "%s")

    def glob(self, column: str, pattern: str) -> Sql:
        """Match by LIKE."""
        return Sql(f"{column} LIKE ?", (like_pattern(pattern),))

    def one_of(self, column: str, values: Sequence[str]) -> Sql:
        """Match any of an array."""
        if len(values) == 1:
            return equal(column, values[0])
        known = [value for value in values if is_storable(value)]
        return Sql(f"{column} = ANY(?)", (known,), column in FINDS_FEW)

    def candidates(self, column: str, pattern: str) -> Sql:
        """Say nothing: the planner sees the pattern itself."""
        return ALWAYS

    def decimal(self, column: str) -> str:
        """Cast what is a number; the cast of anything else would fail."""
        number = r"^\s*[+-]{0,1}(\d+\.{0,1}\d*|\.\d+)([eE][+-]{0,1}\d{1,2}){0,1}\s*$"
        return f"CASE WHEN {column} ~ '{number}' THEN CAST({column} AS double precision) END"

    def unindexed(self, column: str) -> str:
        """Leave it: the planner has statistics."""
        return column


def text_matches(dialect: Dialect, column: str, pattern: str) -> Sql:
    """Match a text by a pattern, with the help of whatever index serves it.

    Parameters
    ----------
    pattern
        With or without wild cards; already in normal form for a column of words.
    """
    # A text of which nothing is left in normal form ("--") asks for nothing that there is; an
    # empty value is met by universal matching alone (PS3.4 C.2.2.2.3).
    if not pattern or not is_storable(pattern) or len(pattern) > PATTERN_MAX:
        return NEVER
    pattern = _STARS.sub("*", pattern)
    prefix = literal_beginning(pattern)
    if prefix == pattern:
        return equal(column, pattern)
    parts = []
    if prefix:
        parts.append(_begins_with(column, prefix))
    elif pattern != "*":
        parts.append(dialect.candidates(column, pattern))
    if pattern != f"{prefix}*":
        parts.append(dialect.glob(column, pattern))
    return every(parts)


def within(dialect: Dialect, selection: Selection) -> list[Sql]:
    """Return what is true of the instances that a selection names, and of no others."""
    named = (
        ("study.patient_id", selection.patient_ids),
        ("study.study_instance_uid", selection.study_instance_uids),
        ("series.series_instance_uid", selection.series_instance_uids),
        ("instance.sop_instance_uid", selection.sop_instance_uids),
    )
    return [dialect.one_of(column, values) for column, values in named if values]


def literal_beginning(pattern: str) -> str:
    """Return what stands before the first wild card."""
    return re.split(r"[*?]", pattern, maxsplit=1)[0]


def _begins_with(column: str, prefix: str) -> Sql:
    """Match a beginning as a range: the columns are compared byte by byte, as UTF-8 sorts."""
    end = _after_all_beginning_with(prefix)
    # A beginning of one or two letters is not selective enough to give up an order for it.
    is_selective = column in FINDS_FEW and len(prefix) >= SHORTEST
    if not end:
        return Sql(f"{column} >= ?", (prefix,), is_selective)
    return Sql(f"{column} >= ? AND {column} < ?", (prefix, end), is_selective)


def _after_all_beginning_with(prefix: str) -> str:
    """Return the least text that sorts behind everything that begins with `prefix`."""
    stem = prefix.rstrip(_LAST_CHARACTER)
    if not stem:
        return ""
    # Surrogates, between the two, are not characters.
    following = "\ue000" if stem[-1] == "\ud7ff" else chr(ord(stem[-1]) + 1)
    return stem[:-1] + following


def _longest_run(pattern: str) -> str:
    return max(re.split(r"[*?]+", pattern), key=len)


_SEARCHED_TABLES: Final = {"patient": PATIENT, "study": STUDY}


def _is_searched(table: str, column: str) -> bool:
    return table in _SEARCHED_TABLES and column in SEARCHED[_SEARCHED_TABLES[table]]
