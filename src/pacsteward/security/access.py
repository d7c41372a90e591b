"""The front door: says who this is, and what they may do.

People sign in with a password and are known by a session from then on; machines show a token.
Either way an `Actor` comes out, with the permissions of its roles.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select, update

from pacsteward.base.clock import Clock
from pacsteward.base.db import Database, took_nothing
from pacsteward.base.errors import Forbidden, Invalid, Unavailable
from pacsteward.base.ids import new_secret
from pacsteward.security.actor import HOUSE, Actor
from pacsteward.security.audit import AuditBook
from pacsteward.security.audit_entry import (
    AuditEntry,
    AuditEvent,
    AuditEventType,
    plain,
)
from pacsteward.security.audit_later import WAITING_MAX
from pacsteward.security.changes import Changes
from pacsteward.security.noting import noting
from pacsteward.security.passwords import Passwords
from pacsteward.security.people import GivenPassword, People, Person
from pacsteward.security.permissions import ROLES, permissions_of
from pacsteward.security.sessions import Session, Sessions, form_token_of
from pacsteward.security.sessions_in_memory import PLACES, SessionsInMemory, session_places
from pacsteward.security.settings import SecuritySettings
from pacsteward.security.sign_in import SignInFailed, SignInGuard
from pacsteward.security.tables import KNOWN_DEVICE
from pacsteward.security.tokens import USE_NOTED_EVERY_S, Tokens, hash_of

_REMEMBERED_MAX = 10_000

_DEVICES_OF_ONE_PERSON_MAX = 20

_CALLER_REMEMBERED_S = 60.0
"""A machine opens many associations; its password is looked at once a minute."""


@dataclass(frozen=True, slots=True)
class Visit:
    """Somebody who was let in by a secret.

    Parameters
    ----------
    has_given_password
        The person still has a password that somebody else chose.
    """

    actor: Actor
    has_given_password: bool = False


@dataclass(frozen=True, slots=True)
class _Remembered:
    visit: Visit
    number: int
    good_until: float
    """On the clock's monotonic scale."""


class Access:
    """People, tokens and sessions together. Methods block, but for `recall`.

    Parameters
    ----------
    database, clock, audit, settings
        Of the house.
    """

    def __init__(
        self, database: Database, clock: Clock, audit: AuditBook, settings: SecuritySettings
    ) -> None:
        self._database = database
        self._clock = clock
        self._audit = audit
        passwords = Passwords(
            length_min=settings.password_length_min, checks_max=settings.password_checks_max
        )
        self.password_checks_max = settings.password_checks_max
        self.changes = Changes(database)
        self.people = People(database, clock, audit, self.changes, passwords)
        self.tokens = Tokens(database, clock, audit, self.changes)
        self.sessions = Sessions(database, clock, self.changes, settings)
        self.guard = SignInGuard(database, clock)
        self._in_memory_s = float(min(settings.session_idle_s, settings.session_length_s))
        self.share_memory(session_places(1), 0)
        self._lock = threading.Lock()
        self._memory: dict[tuple[str, str], _Remembered] = {}

    def share_memory(self, places: memoryview, process: int) -> None:
        """Share the sessions that cannot be written with other processes; see `session_places`."""
        self._in_memory = SessionsInMemory(
            places, process, self._clock.monotonic, self._in_memory_s
        )

    # Short cuts to what is used most -------------------------------------------------------------

    def add_person(
        self, name: str, password: str, roles: Iterable[str], *, by: Actor = HOUSE
    ) -> Person:
        """Add somebody; see `People.add`."""
        return self.people.add(name, password, roles, by=by)

    def give_password(self) -> GivenPassword:
        """Make a random password, which takes a sixth of a second and nothing of the database."""
        return self.people.give_password()

    def ensure_administrator(self, give: Callable[[], GivenPassword] | None = None) -> str | None:
        """Make the first administrator; see `People.add_first_administrator`."""
        return self.people.add_first_administrator(give)

    def make_token(
        self,
        name: str,
        roles: Iterable[str],
        *,
        expires_at: datetime | None = None,
        by: Actor = HOUSE,
    ) -> str:
        """Make a token and return its text; see `Tokens.make`."""
        return self.tokens.make(name, roles, expires_at=expires_at, by=by)

    # Signing in and out --------------------------------------------------------------------------

    def sign_in(self, name: str, password: str, address: str, *, device: str = "") -> Session:
        """Begin a session.

        Wait `wait_s` before, so that guessing is slow.

        Parameters
        ----------
        device
            What `Session.device` was at an earlier sign-in of this browser; "" without one.

        Raises
        ------
        SignInFailed
            Name and password do not fit.
        """
        person = self.people.with_password(name, password)
        device_hash = self._device_of(name, device)
        if person is None:
            failures = self.guard.note_failure(name, address, device_hash)
            tried = Actor("person", plain(name, 64), frozenset(), address)
            what = f"A sign-in as {plain(name, 64)} was refused."
            self._audit.record_refusal(tried, what, event_type=AuditEventType.LOGIN)
            raise SignInFailed(failures)
        device = device if device_hash else new_secret(24)
        actor = Actor("person", person.name, _permissions_of(person.roles), address)
        entry = _authentication(actor, AuditEventType.LOGIN, f"{person.name} signed in.")
        try:
            with self._database.write() as connection:
                cookie = self.sessions.begin(connection, person.name, address)
                self._note_device(connection, person.name, hash_of(device))
                self._audit.record(entry, connection)
        except Unavailable:
            # The disk is full: who could make room must get in.
            cookie = new_secret(32)
            self._in_memory.begin(
                cookie,
                person.name,
                self.people.mark_of_password(person.name),
                is_administrator="*" in actor.permissions,
            )
            try:
                self._audit.record_or_keep(entry, waiting_max=WAITING_MAX + PLACES)
            except Unavailable:
                self._in_memory.end(cookie)
                raise
        with noting("That a sign-in succeeded"):
            self.guard.note_success(name, address, device_hash)
        return Session(
            cookie=cookie,
            form_token=form_token_of(cookie),
            device=device,
            person_name=person.name,
            has_given_password=person.has_given_password,
        )

    def wait_s(self, name: str, address: str, *, device: str = "") -> float:
        """Say how long a try to sign in has to wait, in seconds; see `SignInGuard`."""
        return self.guard.wait_s(name, address, self._device_of(name, device))

    def sign_out(self, cookie: str, address: str = "") -> None:
        """End a session."""
        name = self._in_memory.end(cookie) or self.sessions.end(hash_of(cookie))
        if name is not None:
            actor = Actor("person", name, frozenset(), address)
            entry = _authentication(actor, AuditEventType.LOGOUT, f"{name} signed out.")
            self._audit.record_or_keep(entry)

    def change_own_password(
        self, actor: Actor, present: str, password: str, again: str, *, keep_session: str = ""
    ) -> None:
        """Change the password of whoever is signed in; the other sessions end.

        Wait `wait_s` before, so that guessing the present one is slow in a session that somebody
        left open, too.

        Parameters
        ----------
        present, password, again
            The present password, the new one, and the new one once more.
        keep_session
            Hash of the session in which it is done.

        Raises
        ------
        Forbidden
            The present password is wrong, or the actor is no person.
        Invalid
            The new one cannot be taken.
        """
        if password != again:
            raise Invalid("The two new passwords differ.", remedy="Write the same one twice.")
        if actor.kind != "person":
            raise Forbidden(
                "No password was changed.",
                why=f"{actor.name} is a token and has none.",
                remedy="Sign in as the person whose password it is.",
            )
        if self.people.with_password(actor.name, present) is None:
            self.guard.note_failure(actor.name, actor.address)
            what = f"{actor.name} gave a wrong present password, and it was not changed."
            self._audit.record_refusal(actor, what, event_type=AuditEventType.LOGIN)
            raise Forbidden(
                "Your password was not changed.",
                why="The present password is not right.",
                remedy="Write it once more, or ask an administrator to reset it.",
            )
        self.people.set_password(actor.name, password, by=actor, keep_session=keep_session)
        with noting("That a present password was right"):
            self.guard.note_success(actor.name, actor.address)

    # Callers that name their user ----------------------------------------------------------------

    def known_caller(self, name: str, passcode: str, address: str) -> Actor | None:
        """Return for whom a passcode stands that is a token, or a password seen a moment ago."""
        actor = self.actor_of_token(passcode, address)
        if actor is not None:
            return actor
        known = self.recall(_pair(name, passcode), address, self.changes.number())
        return known.actor if known else None

    def identify_caller(
        self, name: str, password: str, address: str, *, ae_title: str = ""
    ) -> Actor:
        """Return the person whose name and password a machine shows; no session begins.

        Wait `wait_s` before, so that guessing is slow.

        Parameters
        ----------
        ae_title
            The machine, for the audit.

        Raises
        ------
        SignInFailed
            Name and password do not fit.
        """
        number = self.changes.number()
        person = self.people.with_password(name, password)
        if person is None:
            failures = self.guard.note_failure(name, address)
            tried = Actor("person", plain(name, 64), frozenset(), address)
            what = f"A sign-in as {plain(name, 64)} by {plain(ae_title, 16)} was refused."
            self._audit.record_refusal(tried, what, event_type=AuditEventType.LOGIN)
            raise SignInFailed(failures)
        with noting("That a caller's passcode was right"):
            self.guard.note_success(name, address)
        actor = Actor("person", person.name, _permissions_of(person.roles), address, person.roles)
        what = f"{person.name} signed in by {plain(ae_title, 16)}."
        entry = _authentication(actor, AuditEventType.LOGIN, what)
        try:
            self._audit.record(entry)
        except Unavailable as error:
            if not took_nothing(error):
                raise
            # What is stored can be read while the disk is full, by workstations as in the console.
            self._audit.record_or_keep(entry)
        visit = Visit(actor, has_given_password=person.has_given_password)
        self._remember(_pair(name, password), address, visit, number, _CALLER_REMEMBERED_S)
        return actor

    # Recognising ---------------------------------------------------------------------------------

    def actor_of_token(self, text: str, address: str) -> Actor | None:
        """Return whom a token stands for; None when it is not good (any more)."""
        visit = self.visit_by_token(text, address)
        return visit.actor if visit else None

    def recall(self, secret: str, address: str, number: int) -> Visit | None:
        """Return a visit that was checked a moment ago; never blocks.

        Parameters
        ----------
        number
            `Changes.number`, asked after the request came in.
        """
        return self.recall_hash(hash_of(secret), address, number)

    def recall_hash(self, secret_hash: str, address: str, number: int) -> Visit | None:
        """Do the same as `recall` for a secret of which the hash is known."""
        known = self._memory.get((secret_hash, address))
        if known is None or known.number != number or self._clock.monotonic() >= known.good_until:
            return None
        return known.visit

    def visit_by_token(self, text: str, address: str) -> Visit | None:
        """Let in whoever shows a good token."""
        number = self.changes.number()
        known = self.recall(text, address, number)
        if known is not None:
            return known
        token = self.tokens.with_hash(hash_of(text))
        if token is None:
            return None
        now = self._clock.now()
        good_for_s = float(USE_NOTED_EVERY_S)
        if token.expires_at is not None:
            good_for_s = min(good_for_s, (token.expires_at - now).total_seconds())
        if token.last_used_at is None or (
            (now - token.last_used_at).total_seconds() >= USE_NOTED_EVERY_S
        ):
            self.tokens.note_use(token.name)
        permissions = _permissions_of(token.roles)
        visit = Visit(Actor("token", token.name, permissions, address, token.roles))
        return self._remember(text, address, visit, number, good_for_s)

    def visit_by_session(self, cookie: str, address: str) -> Visit | None:
        """Let in whoever shows a session that has not ended."""
        number = self.changes.number()
        known = self.recall(cookie, address, number)
        if known is not None:
            return known
        state = self.sessions.state(hash_of(cookie))
        if state is None:
            return self._visit_in_memory(cookie, address)
        person = self.people.get(state.person_name)
        if person is None or person.is_disabled:
            return None
        left_s = (state.ends_at - self.sessions.now()).total_seconds()
        good_for_s = min(self.sessions.noted_every_s, left_s)
        permissions = _permissions_of(person.roles)
        visit = Visit(
            Actor("person", person.name, permissions, address, person.roles),
            has_given_password=person.has_given_password,
        )
        return self._remember(cookie, address, visit, number, good_for_s)

    def _visit_in_memory(self, cookie: str, address: str) -> Visit | None:
        """Let in whoever shows a session that could not be written."""
        session = self._in_memory.find(cookie)
        person = self.people.get(session.person_name) if session else None
        if session is None or person is None or person.is_disabled:
            return None
        if self.people.mark_of_password(person.name) != session.password:
            return None
        # Not remembered: that somebody signs out could not be told the other processes.
        actor = Actor("person", person.name, _permissions_of(person.roles), address, person.roles)
        return Visit(actor, has_given_password=person.has_given_password)

    def _remember(
        self, secret: str, address: str, visit: Visit, number: int, good_for_s: float
    ) -> Visit:
        known = _Remembered(visit, number, self._clock.monotonic() + good_for_s)
        with self._lock:
            if len(self._memory) >= _REMEMBERED_MAX:
                self._memory.clear()
            self._memory[hash_of(secret), address] = known
        return visit

    # Known devices -------------------------------------------------------------------------------

    def _device_of(self, name: str, device: str) -> str:
        """Return the hash of `device` when `name` has signed in from it before, else ""."""
        if not device:
            return ""
        device_hash = hash_of(device)
        with self._database.read() as connection:
            owner = connection.execute(
                select(KNOWN_DEVICE.c.person_name).where(KNOWN_DEVICE.c.device_hash == device_hash)
            ).scalar()
        return device_hash if owner == name.strip().lower() else ""

    def _note_device(self, connection: Connection, name: str, device_hash: str) -> None:
        now = self._clock.now()
        mine = KNOWN_DEVICE.c.device_hash == device_hash
        values = {"person_name": name, "last_used_at": now}
        if connection.execute(update(KNOWN_DEVICE).where(mine).values(values)).rowcount:
            return
        connection.execute(insert(KNOWN_DEVICE).values(device_hash=device_hash, **values))
        newest = (
            select(KNOWN_DEVICE.c.device_hash)
            .where(KNOWN_DEVICE.c.person_name == name)
            .order_by(KNOWN_DEVICE.c.last_used_at.desc())
            .limit(_DEVICES_OF_ONE_PERSON_MAX)
        )
        connection.execute(
            delete(KNOWN_DEVICE).where(
                KNOWN_DEVICE.c.person_name == name, KNOWN_DEVICE.c.device_hash.not_in(newest)
            )
        )


def _permissions_of(roles: Iterable[str]) -> frozenset[str]:
    """Join what the roles permit; a role that a later version no longer has permits nothing."""
    return permissions_of(role for role in roles if role in ROLES)


def _pair(name: str, password: str) -> str:
    """Join what together is a secret; the length keeps two pairs from looking alike."""
    name = name.strip().lower()
    return f"{len(name)} {name} {password}"


def _authentication(actor: Actor, event_type: AuditEventType, what: str) -> AuditEntry:
    return AuditEntry(
        event=AuditEvent.USER_AUTHENTICATION,
        event_type=event_type,
        action="E",
        actor=actor,
        what=what,
    )
