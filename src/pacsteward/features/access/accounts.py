"""People and tokens side by side, as lists and the command line show them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pacsteward.base.errors import Invalid
from pacsteward.security import ROLES, Access, Person, Token

ROLE_WORDS = {
    "administrator": "May do everything, also change people and peers.",
    "radiologist": "Searches, looks at and downloads studies.",
    "technologist": "Searches, looks at and sends studies; sees and echoes peers.",
    "auditor": "Reads the audit book; sees people, tokens and peers.",
    "machine": "For scripts and systems: searches, reads and stores studies, reads figures.",
}
"""A sentence for each of `permissions.ROLES`."""

UNUSED_AFTER = timedelta(days=60)


@dataclass(frozen=True, slots=True)
class Account:
    """A person or a token in one row."""

    kind: str
    name: str
    roles: tuple[str, ...]
    state: str
    created_at: datetime
    last_used_at: datetime | None


def accounts(access: Access, now: datetime) -> list[Account]:
    """Return everybody and everything that may enter, or once could."""
    people = [
        Account(
            "person",
            person.name,
            tuple(sorted(person.roles)),
            state_of_person(person),
            person.created_at,
            person.last_signed_in_at,
        )
        for person in access.people.all()
    ]
    tokens = [
        Account(
            "token",
            token.name,
            tuple(sorted(token.roles)),
            state_of_token(token, now),
            token.made_at,
            token.last_used_at,
        )
        for token in access.tokens.all()
    ]
    return people + tokens


def state_of_person(person: Person) -> str:
    """Return "active", "disabled" or "given password"."""
    if person.is_disabled:
        return "disabled"
    return "given password" if person.has_given_password else "active"


def state_of_token(token: Token, now: datetime) -> str:
    """Return "active", "revoked" or "expired"."""
    if token.revoked_at is not None:
        return "revoked"
    if token.expires_at is not None and token.expires_at <= now:
        return "expired"
    return "active"


def read_roles(texts: Iterable[str]) -> tuple[str, ...]:
    """Read roles however they are written: apart, or joined by commas or spaces."""
    names = [name for text in texts for name in text.replace(",", " ").lower().split()]
    return tuple(dict.fromkeys(names))


def end_of_day(text: str) -> datetime | None:
    """Read a date like 2027-12-31 as the end of that day; "" is no end at all.

    Raises
    ------
    Invalid
        It is no date.
    """
    if not text:
        return None
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
        return day + timedelta(days=1)
    except (ValueError, OverflowError) as error:
        raise Invalid(f"{text[:20]!r} is no date.", remedy="Write it like 2027-12-31.") from error


def role_options() -> list[tuple[str, str, str]]:
    """Return roles as choices of a form."""
    return [(role, role.capitalize(), ROLE_WORDS.get(role, "")) for role in ROLES]
