"""Facts and how far they were told, jobs and who runs them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from pacsteward.base.db import Timestamp

revision = "0001"
down_revision = None

OLDEST_CODE = "0001"
"""Code that knows this revision may work with the schema."""

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "fact",
        sa.Column("position", KEY, autoincrement=True, nullable=False),
        sa.Column("transaction_number", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("at", Timestamp(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("position", name="pk_fact"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_fact_transaction_number_position",
        "fact",
        ["transaction_number", "position"],
        unique=False,
    )
    op.create_table(
        "fact_cursor",
        sa.Column("subscriber", sa.String(length=128), nullable=False),
        sa.Column("transaction_number", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("position", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("moved_at", Timestamp(), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("last_error", sa.Text(), server_default="", nullable=False),
        sa.Column("retry_at", Timestamp(), nullable=True),
        sa.PrimaryKeyConstraint("subscriber", name="pk_fact_cursor"),
    )
    op.create_table(
        "job",
        sa.Column("job_id", KEY, autoincrement=True, nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("key", sa.Text(), server_default="", nullable=False),
        sa.Column("arguments", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("crashes", sa.Integer(), server_default="0", nullable=False),
        sa.Column("error", sa.Text(), server_default="", nullable=False),
        sa.Column("progress_done", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("progress_total", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("progress_words", sa.Text(), server_default="", nullable=False),
        sa.Column("is_cancel_wanted", sa.Boolean(), server_default="0", nullable=False),
        sa.Column("enqueued_at", Timestamp(), nullable=False),
        sa.Column("due_at", Timestamp(), nullable=True),
        sa.Column("started_at", Timestamp(), nullable=True),
        sa.Column("ended_at", Timestamp(), nullable=True),
        sa.Column("worker", sa.Text(), server_default="", nullable=False),
        sa.Column("result", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("job_id", name="pk_job"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_job_state_kind_job_id", "job", ["state", "kind", "job_id"], unique=False)
    op.create_index(
        "uq_job_waiting_kind_key",
        "job",
        ["kind", "key"],
        unique=True,
        sqlite_where=sa.text("state = 'waiting' AND key <> ''"),
        postgresql_where=sa.text("state = 'waiting' AND key <> ''"),
    )
    op.create_table(
        "job_kind",
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("is_paused", sa.Boolean(), server_default="0", nullable=False),
        sa.Column("last_enqueued_at", Timestamp(), nullable=True),
        sa.PrimaryKeyConstraint("kind", name="pk_job_kind"),
    )
    op.create_table(
        "job_worker",
        sa.Column("worker", sa.String(length=64), nullable=False),
        sa.Column("machine", sa.String(length=128), nullable=False),
        sa.Column("process", sa.String(length=64), nullable=False),
        sa.Column("beat", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("seen_at", Timestamp(), nullable=False),
        sa.PrimaryKeyConstraint("worker", name="pk_job_worker"),
    )
    op.create_table(
        "schema_info",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.String(length=32), nullable=False),
        sa.Column("oldest_code", sa.String(length=32), nullable=False),
        sa.Column("migrated_at", Timestamp(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_schema_info"),
    )
