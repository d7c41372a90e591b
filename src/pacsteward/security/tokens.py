"""Tokens: how machines and scripts are let in.

A token is random text of 256 bits. It is shown once; only its SHA-256 hash is kept, which is
enough for a secret that nobody can guess. Its first characters are kept in the clear, so that a
token found in a script can be recognised and revoked.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, insert, select, update

from pacsteward.base.clock import Clock
from pacsteward.base.db import Database
from pacsteward.base.errors import Conflict, Invalid, NotFound
from pacsteward.base.ids import new_secret
from pacsteward.security.actor import HOUSE, Actor
from pacsteward.security.audit import AuditBook
from pacsteward.security.audit_entry import (
    Action,
    AuditEntry,
    AuditEvent,
    AuditEventType,
    AuditObject,
    plain,
)
from pacsteward.security.changes import Changes
from pacsteward.security.noting import noting
from pacsteward.security.people import check_name, check_roles
from pacsteward.security.tables import TOKEN

MARK = "pst_"
"""All tokens begin with it, so that scanners for leaked secrets can find them."""

USE_NOTED_EVERY_S = 300


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it is known afterwards: without its secret."""

    name: str
    begins_with: str
    roles: frozenset[str]
    made_by: str
    made_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class Tokens:
    """Keeps tokens. Every method blocks; making and revoking is in the audit book."""

    def __init__(
        self, database: Database, clock: Clock, audit: AuditBook, changes: Changes
    ) -> None:
        self._database = database
        self._clock = clock
        self._audit = audit
        self._changes = changes

    def all(self) -> list[Token]:
        """Return all tokens, revoked ones too, by name."""
        with self._database.read() as connection:
            rows = connection.execute(select(TOKEN).order_by(TOKEN.c.name)).all()
        return [_token(row) for row in rows]

    def make(
        self,
        name: str,
        roles: Iterable[str],
        *,
        expires_at: datetime | None = None,
        by: Actor = HOUSE,
    ) -> str:
        """Make a token and return its text, which is kept nowhere.

        Raises
        ------
        Invalid
            The name or a role cannot be taken, or the token would have expired already.
        Conflict
            There is, or was, a token of this name: two in the audit book must not look alike.
        """
        name = check_name(name)
        chosen = check_roles(roles)
        now = self._clock.now()
        if expires_at is not None and expires_at <= now:
            raise Invalid(
                f"The token {name} would have expired before its first use.",
                why=f"Its last moment is {expires_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC.",
                remedy="Choose a later day, or none.",
            )
        text = MARK + new_secret(32)
        with self._database.write() as connection:
            if connection.execute(select(TOKEN.c.name).where(TOKEN.c.name == name)).first():
                raise Conflict(
                    f"A token called {name} exists already.",
                    why="Revoked ones keep their names, so that the audit stays clear.",
                    remedy="Take another name.",
                )
            connection.execute(
                insert(TOKEN).values(
                    name=name,
                    token_hash=hash_of(text),
                    begins_with=text[: len(MARK) + 6],
                    roles=json.dumps(sorted(chosen)),
                    made_by=by.name,
                    made_at=now,
                    expires_at=expires_at,
                )
            )
            self._changes.raise_number(connection)
            roles_words = ", ".join(sorted(chosen))
            what = f"{by.name} made the token {name} with {roles_words}."
            self._audit.record(_entry(by, "C", name, what), connection)
        return text

    def revoke(self, name: str, *, by: Actor = HOUSE) -> None:
        """Refuse a token from now on; a second time changes nothing.

        Raises
        ------
        NotFound
            There is no token of this name.
        """
        with self._database.write() as connection:
            query = select(TOKEN).where(TOKEN.c.name == plain(name, 64))
            row = connection.execute(query).one_or_none()
            if row is None:
                raise NotFound(
                    f"There is no token called {plain(name, 64)}.",
                    remedy="`pacsteward access list` shows all tokens.",
                )
            if row.revoked_at is not None:
                return
            connection.execute(
                update(TOKEN).where(TOKEN.c.name == name).values(revoked_at=self._clock.now())
            )
            self._changes.raise_number(connection)
            what = f"{by.name} revoked the token {name}."
            self._audit.record(_entry(by, "D", name, what), connection)

    def with_hash(self, token_hash: str) -> Token | None:
        """Return the token with this hash, unless it was revoked or has expired."""
        with self._database.read() as connection:
            query = select(TOKEN).where(TOKEN.c.token_hash == token_hash)
            row = connection.execute(query).one_or_none()
        if row is None or row.revoked_at is not None:
            return None
        if row.expires_at is not None and row.expires_at <= self._clock.now():
            return None
        return _token(row)

    def note_use(self, name: str) -> None:
        """Remember that the token was used, so that unused ones can be found."""
        with noting("The use of a token"), self._database.write(durable=False) as connection:
            connection.execute(
                update(TOKEN).where(TOKEN.c.name == name).values(last_used_at=self._clock.now())
            )


def hash_of(secret: str) -> str:
    """Return what is kept of a random secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _entry(by: Actor, action: Action, name: str, what: str) -> AuditEntry:
    return AuditEntry(
        event=AuditEvent.SECURITY_ALERT,
        event_type=AuditEventType.USER_SECURITY_ATTRIBUTES_CHANGED,
        action=action,
        actor=by,
        what=what,
        objects=(AuditObject("token", name),),
    )


def _token(row: Row[Any]) -> Token:
    return Token(
        name=row.name,
        begins_with=row.begins_with,
        roles=frozenset(json.loads(row.roles)),
        made_by=row.made_by,
        made_at=row.made_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
    )
