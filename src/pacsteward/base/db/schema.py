"""The one `MetaData` that every `tables.py` adds its tables to, and column types of the house."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import DateTime, Dialect, MetaData, String
from sqlalchemy.types import TypeDecorator

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Timestamp(TypeDecorator[datetime]):
    """A moment in UTC.

    PostgreSQL keeps it as ``timestamptz``. SQLite has no such type, so there it is ISO 8601 text
    of fixed width, which sorts as time does and can be read with ``sqlite3``.
    """

    impl = String(27)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        """Choose the storage of the dialect."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(DateTime(timezone=True))
        return dialect.type_descriptor(String(27))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Refuse naive moments: they would be read back as something else."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("A moment without time zone cannot be stored.")
        if dialect.name == "postgresql":
            return value
        # Half the price of `strftime`, and there is one for every instance.
        return value.astimezone(UTC).isoformat(timespec="microseconds")[:26] + "Z"

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Give back an aware moment."""
        if value is None:
            return None
        if isinstance(value, datetime):
            return value.astimezone(UTC)
        return datetime.strptime(value, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
