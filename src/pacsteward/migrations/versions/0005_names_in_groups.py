"""Indexes of the patients' names that are written in more than one script."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

OLDEST_CODE = "0003"
"""Code that knows this revision may work with the schema."""


def upgrade() -> None:
    for table in ("patient", "study"):
        op.execute(
            sa.text(
                f"CREATE INDEX ix_{table}_patient_name_words_groups ON {table} "
                "(patient_name_words) WHERE patient_name_words LIKE '%=%'"
            )
        )
