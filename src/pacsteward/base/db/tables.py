"""What the database says of itself."""

from __future__ import annotations

from sqlalchemy import Column, Integer, String, Table

from pacsteward.base.db.schema import METADATA, Timestamp

SCHEMA_INFO = Table(
    "schema_info",
    METADATA,
    # One row, beside Alembic's own table of the revision.
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("revision", String(32), nullable=False),
    # Newest revision that code must know to be allowed to work with this schema.
    Column("oldest_code", String(32), nullable=False),
    Column("migrated_at", Timestamp, nullable=False),
)
