"""People, peers, sign-in and the audit book."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from pacsteward.base.db import Timestamp

revision = "0002"
down_revision = "0001"

OLDEST_CODE = "0002"
"""Code that knows this revision may work with the schema."""

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "audit_entry",
        sa.Column("sequence", KEY, autoincrement=False, nullable=False),
        sa.Column("recorded_at", Timestamp(), nullable=False),
        sa.Column("event", sa.String(length=8), nullable=False),
        sa.Column("event_type", sa.String(length=8), nullable=False),
        sa.Column("action", sa.String(length=1), nullable=False),
        sa.Column("outcome", sa.Integer(), nullable=False),
        sa.Column("actor_kind", sa.String(length=8), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("objects", sa.Text(), nullable=False),
        sa.Column("participants", sa.Text(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_audit_entry"),
    )
    op.create_index(
        "ix_audit_entry_actor_sequence", "audit_entry", ["actor", "sequence"], unique=False
    )
    op.create_index(
        "ix_audit_entry_event_sequence", "audit_entry", ["event", "sequence"], unique=False
    )
    op.create_index("ix_audit_entry_recorded_at", "audit_entry", ["recorded_at"], unique=False)
    op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_head"),
    )
    op.create_table(
        "audit_object",
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("object_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("sequence", "position", name="pk_audit_object"),
    )
    op.create_index(
        "ix_audit_object_object_id_sequence",
        "audit_object",
        ["object_id", "sequence"],
        unique=False,
    )
    op.create_table(
        "audit_seal",
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("sealed_at", Timestamp(), nullable=False),
        sa.Column("signature", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("sequence", name="pk_audit_seal"),
        sa.UniqueConstraint("hash", name="uq_audit_seal_hash"),
    )
    op.create_table(
        "failed_sign_in",
        sa.Column("subject", sa.String(length=200), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("last_at", Timestamp(), nullable=False),
        sa.PrimaryKeyConstraint("subject", name="pk_failed_sign_in"),
    )
    op.create_index("ix_failed_sign_in_last_at", "failed_sign_in", ["last_at"], unique=False)
    op.create_table(
        "peer",
        sa.Column("ae_title", sa.String(length=16), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("services", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column("default_issuer_of_patient_id", sa.Text(), server_default="", nullable=False),
        sa.Column("accepts_from", sa.Text(), nullable=False),
        sa.Column("is_lenient_in_roles", sa.Boolean(), nullable=False),
        sa.Column("is_lenient_in_levels", sa.Boolean(), nullable=False),
        sa.Column("prefers_transfer_syntaxes", sa.Text(), nullable=False),
        sa.Column("max_parallel", sa.Integer(), nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("changed_at", Timestamp(), nullable=False),
        sa.Column("last_seen_at", Timestamp(), nullable=True),
        sa.Column("last_seen_address", sa.Text(), server_default="", nullable=False),
        sa.Column("last_echo_at", Timestamp(), nullable=True),
        sa.Column("last_echo_succeeded", sa.Boolean(), nullable=True),
        sa.Column("last_echo_words", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("ae_title", name="pk_peer"),
    )
    op.create_table(
        "person",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("roles", sa.Text(), nullable=False),
        sa.Column("is_disabled", sa.Boolean(), nullable=False),
        sa.Column("has_given_password", sa.Boolean(), nullable=False),
        sa.Column("created_at", Timestamp(), nullable=False),
        sa.Column("last_signed_in_at", Timestamp(), nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_person"),
    )
    op.create_table(
        "security_change",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_security_change"),
    )
    op.create_table(
        "token",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("token_hash", sa.String(length=64), nullable=False),
        sa.Column("begins_with", sa.String(length=16), nullable=False),
        sa.Column("roles", sa.Text(), nullable=False),
        sa.Column("made_by", sa.Text(), nullable=False),
        sa.Column("made_at", Timestamp(), nullable=False),
        sa.Column("expires_at", Timestamp(), nullable=True),
        sa.Column("last_used_at", Timestamp(), nullable=True),
        sa.Column("revoked_at", Timestamp(), nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_token"),
        sa.UniqueConstraint("token_hash", name="uq_token_token_hash"),
    )
    op.create_table(
        "unknown_caller",
        sa.Column("ae_title", sa.String(length=64), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("called_ae_title", sa.Text(), server_default="", nullable=False),
        sa.Column("proposed", sa.Text(), server_default="", nullable=False),
        sa.Column("implementation", sa.Text(), server_default="", nullable=False),
        sa.Column("why", sa.Text(), server_default="", nullable=False),
        sa.Column("was_admitted", sa.Boolean(), nullable=False),
        sa.Column("calls", sa.Integer(), nullable=False),
        sa.Column("first_seen_at", Timestamp(), nullable=False),
        sa.Column("last_seen_at", Timestamp(), nullable=False),
        sa.PrimaryKeyConstraint("ae_title", "address", name="pk_unknown_caller"),
    )
    op.create_index(
        "ix_unknown_caller_last_seen_at", "unknown_caller", ["last_seen_at"], unique=False
    )
    op.create_table(
        "known_device",
        sa.Column("device_hash", sa.String(length=64), nullable=False),
        sa.Column("person_name", sa.String(length=64), nullable=False),
        sa.Column("last_used_at", Timestamp(), nullable=False),
        sa.ForeignKeyConstraint(
            ["person_name"], ["person.name"], name="fk_known_device_person_name"
        ),
        sa.PrimaryKeyConstraint("device_hash", name="pk_known_device"),
    )
    op.create_index("ix_known_device_person_name", "known_device", ["person_name"], unique=False)
    op.create_table(
        "session",
        sa.Column("session_hash", sa.String(length=64), nullable=False),
        sa.Column("person_name", sa.String(length=64), nullable=False),
        sa.Column("began_at", Timestamp(), nullable=False),
        sa.Column("last_used_at", Timestamp(), nullable=False),
        sa.Column("address", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(["person_name"], ["person.name"], name="fk_session_person_name"),
        sa.PrimaryKeyConstraint("session_hash", name="pk_session"),
    )
    op.create_index("ix_session_person_name", "session", ["person_name"], unique=False)
