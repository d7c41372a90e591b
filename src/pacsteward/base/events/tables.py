"""Where facts are kept, and how far each subscriber has come."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, String, Table, Text

from pacsteward.base.db import METADATA, Timestamp

FACT = Table(
    "fact",
    METADATA,
    Column(
        "position",
        BigInteger().with_variant(Integer, "sqlite"),
        primary_key=True,
        autoincrement=True,
    ),
    # PostgreSQL: the transaction that wrote it, since positions are given out before they are
    # committed. SQLite has one writer at a time, so there it is always 0.
    Column("transaction_number", BigInteger, nullable=False, server_default="0"),
    # Snake case of the class: "study_arrived".
    Column("name", String(64), nullable=False),
    Column("at", Timestamp, nullable=False),
    # JSON object of the fact's fields.
    Column("body", Text, nullable=False),
    Index("ix_fact_transaction_number_position", "transaction_number", "position"),
    # A position is never given twice, even when the newest facts are removed.
    sqlite_autoincrement=True,
)

FACT_CURSOR = Table(
    "fact_cursor",
    METADATA,
    Column("subscriber", String(128), primary_key=True),
    # All facts up to here were handled.
    Column("transaction_number", BigInteger, nullable=False, server_default="0"),
    Column("position", BigInteger, nullable=False, server_default="0"),
    Column("moved_at", Timestamp, nullable=False),
    # Of the fact that comes next: how often its handler failed, what it said, and when it is
    # asked again.
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("last_error", Text, nullable=False, server_default=""),
    Column("retry_at", Timestamp, nullable=True),
)
