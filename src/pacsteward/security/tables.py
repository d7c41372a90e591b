"""Who may enter, who did, and the book of what was done.

Secrets are never here: a password is kept as its Argon2 hash, a token and a session as a SHA-256
hash of random bytes that are too many to guess. Lists are kept as JSON text, so that an
administrator can read every row with ``sqlite3`` or ``psql``.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from pacsteward.base.db import METADATA, Timestamp

Key = BigInteger().with_variant(Integer, "sqlite")
"""SQLite counts up by itself only in a column that is literally INTEGER."""


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False, server_default="")


PERSON = Table(
    "person",
    METADATA,
    # Lower case, so that "Ada" and "ada" cannot be two people.
    Column("name", String(64), primary_key=True),
    Column("password_hash", Text, nullable=False),
    Column("roles", Text, nullable=False),
    Column("is_disabled", Boolean, nullable=False),
    # The password was chosen by somebody else: the first one, or one set by an administrator.
    Column("has_given_password", Boolean, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("last_signed_in_at", Timestamp),
)

SESSION = Table(
    "session",
    METADATA,
    Column("session_hash", String(64), primary_key=True),
    Column("person_name", String(64), ForeignKey("person.name"), nullable=False, index=True),
    Column("began_at", Timestamp, nullable=False),
    Column("last_used_at", Timestamp, nullable=False),
    _text("address"),
)

KNOWN_DEVICE = Table(
    "known_device",
    METADATA,
    # A browser from which this person once signed in rightly; it is not slowed by strangers.
    Column("device_hash", String(64), primary_key=True),
    Column("person_name", String(64), ForeignKey("person.name"), nullable=False, index=True),
    Column("last_used_at", Timestamp, nullable=False),
)

FAILED_SIGN_IN = Table(
    "failed_sign_in",
    METADATA,
    # "person NAME", "address ADDRESS" or "pair NAME ADDRESS", shortened by a hash where long.
    Column("subject", String(200), primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("last_at", Timestamp, nullable=False, index=True),
)

TOKEN = Table(
    "token",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("token_hash", String(64), nullable=False, unique=True),
    # The first characters of the token, to recognise it by in a script or a log.
    Column("begins_with", String(16), nullable=False),
    Column("roles", Text, nullable=False),
    Column("made_by", Text, nullable=False),
    Column("made_at", Timestamp, nullable=False),
    Column("expires_at", Timestamp),
    Column("last_used_at", Timestamp),
    Column("revoked_at", Timestamp),
)

SECURITY_CHANGE = Table(
    "security_change",
    METADATA,
    # One row. Its number rises with every change of people, tokens and roles: what a process
    # remembers of them is good as long as the number is the same.
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False),
)

PEER = Table(
    "peer",
    METADATA,
    Column("ae_title", String(16), primary_key=True),
    Column("host", Text, nullable=False),
    Column("port", Integer, nullable=False),
    Column("services", Text, nullable=False),
    _text("description"),
    _text("default_issuer_of_patient_id"),
    Column("accepts_from", Text, nullable=False),
    Column("is_lenient_in_roles", Boolean, nullable=False),
    Column("is_lenient_in_levels", Boolean, nullable=False),
    Column("prefers_transfer_syntaxes", Text, nullable=False),
    Column("max_parallel", Integer, nullable=False),
    Column("created_at", Timestamp, nullable=False),
    Column("changed_at", Timestamp, nullable=False),
    # What was last seen of it: an association that it opened, an echo that we sent.
    Column("last_seen_at", Timestamp),
    _text("last_seen_address"),
    Column("last_echo_at", Timestamp),
    Column("last_echo_succeeded", Boolean),
    _text("last_echo_words"),
)

UNKNOWN_CALLER = Table(
    "unknown_caller",
    METADATA,
    Column("ae_title", String(64), primary_key=True),
    Column("address", String(64), primary_key=True),
    _text("called_ae_title"),
    _text("proposed"),
    _text("implementation"),
    _text("why"),
    Column("was_admitted", Boolean, nullable=False),
    Column("calls", Integer, nullable=False),
    Column("first_seen_at", Timestamp, nullable=False),
    Column("last_seen_at", Timestamp, nullable=False, index=True),
)

AUDIT_ENTRY = Table(
    "audit_entry",
    METADATA,
    Column("sequence", Key, primary_key=True, autoincrement=False),
    Column("recorded_at", Timestamp, nullable=False, index=True),
    Column("event", String(8), nullable=False),
    Column("event_type", String(8), nullable=False),
    Column("action", String(1), nullable=False),
    Column("outcome", Integer, nullable=False),
    Column("actor_kind", String(8), nullable=False),
    Column("actor", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("what", Text, nullable=False),
    # JSON: objects acted upon, further participants.
    Column("objects", Text, nullable=False),
    Column("participants", Text, nullable=False),
    # SHA-256 over the hash before it and all columns above.
    Column("hash", String(64), nullable=False),
    Index("ix_audit_entry_actor_sequence", "actor", "sequence"),
    Index("ix_audit_entry_event_sequence", "event", "sequence"),
)

AUDIT_OBJECT = Table(
    "audit_object",
    METADATA,
    # Only a way to find entries by what was acted upon; the chain covers AUDIT_ENTRY.objects.
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("kind", String(16), nullable=False),
    Column("object_id", Text, nullable=False),
    Index("ix_audit_object_object_id_sequence", "object_id", "sequence"),
)

AUDIT_HEAD = Table(
    "audit_head",
    METADATA,
    # One row: where the chain ends, so that cutting off its end shows.
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, nullable=False),
    Column("hash", String(64), nullable=False),
)

AUDIT_SEAL = Table(
    "audit_seal",
    METADATA,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", String(64), nullable=False),
    Column("sealed_at", Timestamp, nullable=False),
    # HMAC-SHA-256 with a key that is not in the database.
    Column("signature", String(64), nullable=False),
    UniqueConstraint("hash"),
)
