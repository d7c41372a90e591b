"""Jobs, what is known of their kinds, and the processes that run them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Index,
    Integer,
    String,
    Table,
    Text,
    event,
    text,
)

from pacsteward.base.db import METADATA, Timestamp


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False, server_default="")


JOB = Table(
    "job",
    METADATA,
    Column(
        "job_id",
        BigInteger().with_variant(Integer, "sqlite"),
        primary_key=True,
        autoincrement=True,
    ),
    Column("kind", String(64), nullable=False),
    _text("key"),
    # JSON object.
    Column("arguments", Text, nullable=False),
    # "waiting", "running", "done", "failed", "cancelled".
    Column("state", String(16), nullable=False),
    # Times it was started; of these, how many failed and how many ended with their process.
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("failures", Integer, nullable=False, server_default="0"),
    Column("crashes", Integer, nullable=False, server_default="0"),
    _text("error"),
    Column("progress_done", BigInteger, nullable=False, server_default="0"),
    Column("progress_total", BigInteger, nullable=False, server_default="0"),
    _text("progress_words"),
    Column("is_cancel_wanted", Boolean, nullable=False, server_default="0"),
    Column("enqueued_at", Timestamp, nullable=False),
    # Empty is at once, so that a clock that is set back does not hold up what was just enqueued.
    Column("due_at", Timestamp, nullable=True),
    Column("started_at", Timestamp, nullable=True),
    Column("ended_at", Timestamp, nullable=True),
    _text("worker"),
    # JSON value of what the work returned.
    Column("result", Text, nullable=True),
    Index("ix_job_state_kind_job_id", "state", "kind", "job_id"),
    sqlite_autoincrement=True,
)

ONE_WAITING = Index("uq_job_waiting_kind_key", JOB.c.kind, JOB.c.key, unique=True)
"""One waiting job for each key: the promise of JobQueue.enqueue."""


@event.listens_for(JOB, "before_create")
def _only_waiting(_table: Table, connection: Connection, **_options: Any) -> None:
    # Said here, where the database is known: SQLAlchemy would import PostgreSQL's part for it.
    where = text("state = 'waiting' AND key <> ''")
    ONE_WAITING.dialect_kwargs[f"{connection.dialect.name}_where"] = where


JOB_KIND = Table(
    "job_kind",
    METADATA,
    # What is decided about a kind at run time. Whoever starts jobs of it holds its row.
    Column("kind", String(64), primary_key=True),
    Column("is_paused", Boolean, nullable=False, server_default="0"),
    # When a periodic kind was last enqueued by the house itself.
    Column("last_enqueued_at", Timestamp, nullable=True),
)

JOB_WORKER = Table(
    "job_worker",
    METADATA,
    # One process that runs jobs.
    Column("worker", String(64), primary_key=True),
    # Machine and its boot, process number and start, so that others there can see it is gone.
    Column("machine", String(128), nullable=False),
    Column("process", String(64), nullable=False),
    # Counts up while it lives. Others watch whether it moves, so clocks need not agree.
    Column("beat", BigInteger, nullable=False, server_default="0"),
    Column("seen_at", Timestamp, nullable=False),
)
