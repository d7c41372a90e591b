"""The log of facts: what happened, in the order in which it became true.

A fact is appended in the transaction that makes it true, so there is never one without the other.
Whoever is interested reads on from where it stopped (`dispatch.py`).

The order must be one that a reader cannot overtake. SQLite has one writer at a time, so positions
are committed in order. PostgreSQL gives out a position when a row is written and shows the row when
its transaction commits, so a reader that remembers the highest position it saw would skip a
transaction that commits late. There a fact also bears the number of its transaction
(``pg_current_xact_id``), a reader sees only facts of transactions older than every one still
running (``pg_snapshot_xmin``), and the order is (transaction, position)
(https://www.postgresql.org/docs/15/functions-info.html, "Transaction ID and Snapshot Information
Functions").
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from inspect import get_annotations
from typing import Any, ClassVar, NamedTuple, Self

from sqlalchemy import Connection, func, insert, literal_column, select, true, tuple_
from sqlalchemy.sql import ColumnElement

from pacsteward.base.clock import Clock, SystemClock
from pacsteward.base.errors import Broken
from pacsteward.base.events.tables import FACT

_WORD_END = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that happened. Subclasses are frozen dataclasses, named in the past tense.

    Fields are JSON values: texts, numbers, switches, None, tuples of them. A list comes back as a
    tuple. No patient data: facts name objects by UID, and are kept for long.

    A field that is added later has a default, so that facts written before can still be read; one
    that is dropped is ignored in them.
    """

    name: ClassVar[str] = "fact"
    """Under which the log keeps it: the class name in snake case."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        # No super() without arguments: a dataclass with slots is made a second time, and the
        # first class is the one that super() would look for.
        super(Fact, cls).__init_subclass__(**kwargs)
        if "name" in get_annotations(cls):
            raise TypeError(f"{cls.__name__}: a fact cannot have a field called name.")
        cls.name = _WORD_END.sub("_", cls.__name__).lower()

    @classmethod
    def from_body(cls, body: Mapping[str, Any]) -> Self:
        """Make the fact from the JSON object that was kept of it."""
        known = {field.name for field in fields(cls)}
        return cls(**{key: _frozen(value) for key, value in body.items() if key in known})


class Position(NamedTuple):
    """A place in the log; positions compare as the log is ordered."""

    transaction_number: int = 0
    number: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """One fact as it stands in the log, not yet decoded."""

    position: Position
    name: str
    at: datetime
    body: str


class FactLog:
    """Appends facts and reads them.

    Parameters
    ----------
    clock
        Gives the moment of each fact.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()

    def append(self, connection: Connection, *facts: Fact) -> None:
        """Append `facts`, in this order, to the caller's transaction."""
        if not facts:
            return
        now = self._clock.now()
        statement = insert(FACT)
        if connection.dialect.name == "postgresql":
            statement = statement.values(
                transaction_number=literal_column("pg_current_xact_id()::text::bigint")
            )
        connection.execute(
            statement,
            [
                {
                    "name": fact.name,
                    "at": now,
                    "body": _body(fact),
                }
                for fact in facts
            ],
        )

    def after(
        self,
        connection: Connection,
        position: Position,
        names: Sequence[str] | None = None,
        limit: int = 100,
    ) -> list[Entry]:
        """Read the next facts behind `position`, oldest first.

        Parameters
        ----------
        names
            Only facts of these names; None are all.
        limit
            At most so many.
        """
        if names is not None and not names:
            return []
        wanted = [_is_after(position), _is_settled(connection)]
        if names is not None:
            wanted.append(FACT.c.name.in_(names))
        rows = connection.execute(
            select(FACT.c.transaction_number, FACT.c.position, FACT.c.name, FACT.c.at, FACT.c.body)
            .where(*wanted)
            .order_by(FACT.c.transaction_number, FACT.c.position)
            .limit(limit)
        )
        return [
            Entry(Position(row.transaction_number, row.position), row.name, row.at, row.body)
            for row in rows
        ]

    def end(self, connection: Connection) -> Position:
        """Return the place behind which nothing can be read yet."""
        row = connection.execute(
            select(FACT.c.transaction_number, FACT.c.position)
            .where(_is_settled(connection))
            .order_by(FACT.c.transaction_number.desc(), FACT.c.position.desc())
            .limit(1)
        ).first()
        return Position() if row is None else Position(*row)

    def count_after(self, connection: Connection, position: Position, names: Sequence[str]) -> int:
        """Count the facts of `names` behind `position`: how much a subscriber has before it."""
        found = connection.execute(
            select(func.count())
            .select_from(FACT)
            .where(_is_after(position), _is_settled(connection), FACT.c.name.in_(names))
        )
        return int(found.scalar_one())


def decode(entry: Entry, kinds: Mapping[str, type[Fact]]) -> Fact:
    """Make the fact of an entry.

    Raises
    ------
    Broken
        `kinds` lacks its name, or the entry does not fit its class.
    """
    try:
        return kinds[entry.name].from_body(json.loads(entry.body))
    except (KeyError, TypeError, ValueError) as error:
        raise Broken(
            f"Fact {entry.position.number} ({entry.name}) cannot be read.",
            why=f"{type(error).__name__} while it was decoded.",
            remedy="It was written by another version; update, or skip it.",
        ) from error


def _body(fact: Fact) -> str:
    # Not `asdict`: it copies every text of a tuple by itself, and there may be hundreds.
    body = {field.name: getattr(fact, field.name) for field in fields(fact)}
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


def _frozen(value: Any) -> Any:
    return tuple(_frozen(part) for part in value) if isinstance(value, list) else value


def _is_after(position: Position) -> ColumnElement[bool]:
    return tuple_(FACT.c.transaction_number, FACT.c.position) > tuple(position)


def _is_settled(connection: Connection) -> ColumnElement[bool]:
    """No transaction that is still running can add a fact before one of these."""
    if connection.dialect.name != "postgresql":
        return true()
    horizon: ColumnElement[int] = literal_column(
        "pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
    )
    return FACT.c.transaction_number < horizon
