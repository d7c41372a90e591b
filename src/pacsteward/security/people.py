"""The people who may sign in, their roles and their passwords.

Nobody is built in. At first start one administrator is made with a random password, which is shown
once; see `People.add_first_administrator`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, delete, insert, select, update

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
from pacsteward.security.passwords import Passwords
from pacsteward.security.permissions import permissions_of
from pacsteward.security.sessions_in_memory import mark
from pacsteward.security.tables import KNOWN_DEVICE, PERSON, SESSION

FIRST_ADMINISTRATOR = "admin"

_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who may sign in.

    Parameters
    ----------
    has_given_password
        The password was chosen by somebody else; its owner is asked to choose another one.
    """

    name: str
    roles: frozenset[str]
    is_disabled: bool
    has_given_password: bool
    created_at: datetime
    last_signed_in_at: datetime | None


class GivenPassword(NamedTuple):
    """A password that was made for somebody, and what is kept of it."""

    password: str
    kept: str


class People:
    """Keeps people. Every method blocks; every change is in the audit book."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        audit: AuditBook,
        changes: Changes,
        passwords: Passwords,
    ) -> None:
        self._database = database
        self._clock = clock
        self._audit = audit
        self._changes = changes
        self._passwords = passwords

    def all(self) -> list[Person]:
        """Return everybody, by name."""
        with self._database.read() as connection:
            rows = connection.execute(select(PERSON).order_by(PERSON.c.name)).all()
        return [_person(row) for row in rows]

    def get(self, name: str) -> Person | None:
        """Return one person."""
        with self._database.read() as connection:
            row = _row(connection, name)
        return _person(row) if row else None

    def add(
        self,
        name: str,
        password: str,
        roles: Iterable[str],
        *,
        by: Actor = HOUSE,
        is_given: bool = False,
    ) -> Person:
        """Add somebody.

        Raises
        ------
        Invalid
            The name, the password or a role cannot be taken.
        Conflict
            Somebody has this name.
        """
        name = check_name(name)
        roles = check_roles(roles)
        self._passwords.check_choice(name, password)
        kept = self._passwords.hash(password)
        with self._database.write() as connection:
            if _row(connection, name):
                raise Conflict(
                    f"Somebody called {name} exists already.", remedy="Take another name."
                )
            self._insert(connection, name, kept, roles, is_given=is_given)
            self._note(connection, by, "C", name, f"{by.name} added {name} as {_words(roles)}.")
            row = _row(connection, name)
        assert row is not None
        return _person(row)

    def need(self, name: str) -> Person:
        """Return one person.

        Raises
        ------
        NotFound
            Nobody has this name.
        """
        with self._database.read() as connection:
            return _person(self._need(connection, name))

    def add_with_random_password(
        self, name: str, roles: Iterable[str], *, by: Actor = HOUSE
    ) -> tuple[Person, str]:
        """Add somebody with a random password, which is kept nowhere: show it once."""
        password = new_secret(15)
        return self.add(name, password, roles, by=by, is_given=True), password

    def give_password(self) -> GivenPassword:
        """Make a random password."""
        password = new_secret(15)
        return GivenPassword(password, self._passwords.hash(password))

    def add_first_administrator(
        self, give: Callable[[], GivenPassword] | None = None
    ) -> str | None:
        """Make the first administrator where there is none.

        Parameters
        ----------
        give
            Gives the password when one is needed; None makes it then.

        Returns
        -------
        str or None
            The password, which is kept nowhere: show it once. None when there is one already.
        """
        with self._database.read() as connection:
            if _has_administrator(connection):
                return None
        given = (give or self.give_password)()
        with self._database.write() as connection:
            # Two first starts at once must not print two passwords of which one is wrong.
            if _has_administrator(connection):
                return None
            roles = frozenset({"administrator"})
            self._insert(connection, FIRST_ADMINISTRATOR, given.kept, roles, is_given=True)
            what = f"The first administrator, {FIRST_ADMINISTRATOR}, was made."
            self._note(connection, HOUSE, "C", FIRST_ADMINISTRATOR, what)
        return given.password

    def change_roles(self, name: str, roles: Iterable[str], *, by: Actor = HOUSE) -> None:
        """Give `name` exactly these roles, at once.

        Raises
        ------
        NotFound
            Nobody has this name.
        Conflict
            No administrator would be left.
        """
        roles = check_roles(roles)
        with self._database.write() as connection:
            self._need(connection, name)
            self._update(connection, name, roles=_json(roles))
            self._need_administrator(connection)
            what = f"{by.name} gave {name} the roles {_words(roles)}."
            self._note(
                connection, by, "U", name, what, event_type=AuditEventType.SECURITY_ROLES_CHANGED
            )

    def set_disabled(self, name: str, *, is_disabled: bool, by: Actor = HOUSE) -> None:
        """Keep somebody out, or let them in again; sessions end at once."""
        with self._database.write() as connection:
            self._need(connection, name)
            self._update(connection, name, is_disabled=is_disabled)
            self._need_administrator(connection)
            connection.execute(delete(SESSION).where(SESSION.c.person_name == name))
            verb = "disabled" if is_disabled else "enabled"
            self._note(connection, by, "U", name, f"{by.name} {verb} {name}.")

    def remove(self, name: str, *, by: Actor = HOUSE) -> None:
        """Remove somebody; what they did stays in the audit book."""
        with self._database.write() as connection:
            self._need(connection, name)
            for table in (SESSION, KNOWN_DEVICE):
                connection.execute(delete(table).where(table.c.person_name == name))
            connection.execute(delete(PERSON).where(PERSON.c.name == name))
            self._need_administrator(connection)
            self._note(connection, by, "D", name, f"{by.name} removed {name}.")

    def set_password(
        self,
        name: str,
        password: str,
        *,
        by: Actor = HOUSE,
        is_given: bool = False,
        keep_session: str = "",
    ) -> None:
        """Set a password; all sessions of that person end, but for `keep_session`.

        Parameters
        ----------
        is_given
            Somebody else chose it; its owner will be asked to choose another one.
        keep_session
            Hash of the session in which the person changes the own password.
        """
        self._passwords.check_choice(name, password)
        kept = self._passwords.hash(password)
        with self._database.write() as connection:
            self._need(connection, name)
            self._update(connection, name, password_hash=kept, has_given_password=is_given)
            connection.execute(
                delete(SESSION).where(
                    SESSION.c.person_name == name, SESSION.c.session_hash != keep_session
                )
            )
            connection.execute(delete(KNOWN_DEVICE).where(KNOWN_DEVICE.c.person_name == name))
            self._note(connection, by, "U", name, f"{by.name} set the password of {name}.")

    def reset_password(self, name: str, *, by: Actor = HOUSE) -> str:
        """Give `name` a random password and return it; it is shown once."""
        password = new_secret(15)
        self.set_password(name, password, by=by, is_given=True)
        return password

    def with_password(self, name: str, password: str) -> Person | None:
        """Return the person whose name and password these are; None when they fit nobody.

        A disabled person fits nobody. A hash of weaker parameters is made anew on the way.
        """
        name = name.strip().lower()
        with self._database.read() as connection:
            row = _row(connection, name)
        kept = row.password_hash if row else ""
        if not self._passwords.is_right(kept, password) or row is None or row.is_disabled:
            return None
        if self._passwords.is_outdated(kept):
            renewed = self._passwords.hash(password)
            with noting("A password's new hash"), self._database.write() as connection:
                connection.execute(
                    update(PERSON)
                    .where(PERSON.c.name == name, PERSON.c.password_hash == kept)
                    .values(password_hash=renewed)
                )
        return _person(row)

    def mark_of_password(self, name: str) -> bytes:
        """Return what is another one when the person's password is; b"" of nobody."""
        with self._database.read() as connection:
            row = _row(connection, name)
        return mark(row.password_hash) if row else b""

    def _insert(
        self,
        connection: Connection,
        name: str,
        kept: str,
        roles: frozenset[str],
        *,
        is_given: bool,
    ) -> None:
        connection.execute(
            insert(PERSON).values(
                name=name,
                password_hash=kept,
                roles=_json(roles),
                is_disabled=False,
                has_given_password=is_given,
                created_at=self._clock.now(),
            )
        )
        self._changes.raise_number(connection)

    def _update(self, connection: Connection, name: str, **values: Any) -> None:
        connection.execute(update(PERSON).where(PERSON.c.name == name).values(**values))
        self._changes.raise_number(connection)

    def _need(self, connection: Connection, name: str) -> Row[Any]:
        row = _row(connection, name)
        if row is None:
            raise NotFound(
                f"Nobody is called {plain(name, 64)}.",
                remedy="`pacsteward access list` shows everybody.",
            )
        return row

    def _need_administrator(self, connection: Connection) -> None:
        """Refuse a change after which nobody could undo it."""
        self._changes.raise_number(connection)
        rows = connection.execute(select(PERSON.c.roles).where(PERSON.c.is_disabled.is_(False)))
        if not any("administrator" in json.loads(row.roles) for row in rows):
            raise Conflict(
                "That would leave nobody who can change people.",
                why="This is the last administrator who may sign in.",
                remedy="Give somebody else the role administrator first.",
            )

    def _note(
        self,
        connection: Connection,
        by: Actor,
        action: Action,
        name: str,
        what: str,
        *,
        event_type: AuditEventType = AuditEventType.USER_SECURITY_ATTRIBUTES_CHANGED,
    ) -> None:
        self._audit.record(
            AuditEntry(
                event=AuditEvent.SECURITY_ALERT,
                event_type=event_type,
                action=action,
                actor=by,
                what=what,
                objects=(AuditObject("person", name),),
            ),
            connection,
        )


def check_name(name: str) -> str:
    """Return `name` as it is kept, in lower case.

    Raises
    ------
    Invalid
        It has other characters, or is too long.
    """
    name = name.strip().lower()
    if not _NAME.fullmatch(name):
        raise Invalid(
            "That name cannot be taken.",
            why="It is empty, longer than 64 characters, or has other characters.",
            remedy="Take letters a to z, digits, dot, hyphen, underscore and @.",
        )
    return name


def check_roles(roles: Iterable[str]) -> frozenset[str]:
    """Return `roles` as a set.

    Raises
    ------
    Invalid
        There are none, or one does not exist.
    """
    chosen = frozenset(role for role in roles if role)
    permissions_of(chosen)
    if not chosen:
        raise Invalid(
            "No role was given.",
            why="Without a role nothing is permitted.",
            remedy="Choose at least one role.",
        )
    return chosen


def _row(connection: Connection, name: str) -> Row[Any] | None:
    if not _NAME.fullmatch(name):
        # Names that nobody can have come from forms; databases choke on some of them.
        return None
    return connection.execute(select(PERSON).where(PERSON.c.name == name)).one_or_none()


def _person(row: Row[Any]) -> Person:
    return Person(
        name=row.name,
        roles=frozenset(json.loads(row.roles)),
        is_disabled=row.is_disabled,
        has_given_password=row.has_given_password,
        created_at=row.created_at,
        last_signed_in_at=row.last_signed_in_at,
    )


def _has_administrator(connection: Connection) -> bool:
    """Say whether somebody is administrator, or has the first administrator's name."""
    rows = connection.execute(select(PERSON.c.name, PERSON.c.roles)).all()
    return any(
        row.name == FIRST_ADMINISTRATOR or "administrator" in json.loads(row.roles) for row in rows
    )


def _json(roles: Iterable[str]) -> str:
    return json.dumps(sorted(roles))


def _words(roles: Iterable[str]) -> str:
    return ", ".join(sorted(roles))
