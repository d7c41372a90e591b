"""An index of the studies whose patient is in doubt."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

OLDEST_CODE = "0003"
"""Code that knows this revision may work with the schema."""


def upgrade() -> None:
    op.create_index(
        "ix_study_study_key_identity_doubt",
        "study",
        ["study_key"],
        unique=False,
        sqlite_where=sa.text("identity_doubt <> ''"),
        postgresql_where=sa.text("identity_doubt <> ''"),
    )
