"""People, tokens and the audit book in the JSON API."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field

from pacsteward.feature import ApiRoute, CurrentActor, CurrentHouse
from pacsteward.features.access import accounts, seals
from pacsteward.features.access.audit_pages import entry_of
from pacsteward.security import (
    AuditEvent,
    AuditFilter,
    ChainReport,
    Person,
    Token,
    to_dicom_audit_xml,
)
from pacsteward.web import Response


class NewPerson(BaseModel):
    """Somebody to be added."""

    name: str
    password: str
    roles: list[str]


class PersonChange(BaseModel):
    """What is to change of somebody; what is left out stays."""

    roles: list[str] | None = None
    is_disabled: bool | None = None
    password: str | None = None


class NewToken(BaseModel):
    """A token to be made."""

    name: str
    roles: list[str]
    expires_at: datetime | None = Field(default=None, description="With time zone.")


class MadeToken(BaseModel):
    """A token that was made; its text is shown this once."""

    name: str
    token: str


class AuditPage(BaseModel):
    """Entries, the newest first; ask with `before` for those behind them."""

    entries: list[dict[str, Any]]
    before: int | None


class Me(BaseModel):
    """Who is asking."""

    kind: str
    name: str
    roles: list[str]
    permissions: list[str]


def me(actor: CurrentActor) -> Me:
    """Say who is asking, and what they may do."""
    return Me(
        kind=actor.kind,
        name=actor.name,
        roles=sorted(actor.roles),
        permissions=sorted(actor.permissions),
    )


def list_people(house: CurrentHouse) -> list[Person]:
    """List everybody who may sign in."""
    return house.access.people.all()


def add_person(house: CurrentHouse, actor: CurrentActor, person: NewPerson) -> Person:
    """Add somebody, who will be asked to choose another password."""
    return house.access.people.add(
        person.name, person.password, person.roles, by=actor, is_given=True
    )


def change_person(
    house: CurrentHouse, actor: CurrentActor, name: str, change: PersonChange
) -> Person:
    """Change roles, password, or whether somebody may sign in."""
    people = house.access.people
    if change.roles is not None:
        people.change_roles(name, change.roles, by=actor)
    if change.is_disabled is not None:
        people.set_disabled(name, is_disabled=change.is_disabled, by=actor)
    if change.password is not None:
        people.set_password(name, change.password, by=actor, is_given=name != actor.name)
    return people.need(name)


def remove_person(house: CurrentHouse, actor: CurrentActor, name: str) -> None:
    """Remove somebody; the audit book keeps what they did."""
    house.access.people.remove(name, by=actor)


def list_tokens(house: CurrentHouse) -> list[Token]:
    """List all tokens, without their texts."""
    return house.access.tokens.all()


def make_token(house: CurrentHouse, actor: CurrentActor, token: NewToken) -> MadeToken:
    """Make a token; its text is shown this once."""
    text = house.access.make_token(
        token.name, accounts.read_roles(token.roles), expires_at=token.expires_at, by=actor
    )
    return MadeToken(name=token.name.lower(), token=text)


def revoke_token(house: CurrentHouse, actor: CurrentActor, name: str) -> None:
    """Refuse a token from now on."""
    house.access.tokens.revoke(name, by=actor)


def list_audit(
    house: CurrentHouse,
    reader: CurrentActor,
    actor: str = "",
    event: AuditEvent | None = None,
    object_id: str = "",
    containing: str = "",
    failures: bool = False,
    since: datetime | None = None,
    until: datetime | None = None,
    before: int | None = None,
    limit: Annotated[int, Field(ge=1, le=1000)] = 100,
) -> AuditPage:
    """List entries of the audit book, the newest first."""
    wanted = AuditFilter(
        actor=actor,
        event=event,
        object_id=object_id,
        containing=containing,
        only_failures=failures,
        since=since,
        until=until,
    )
    found = house.audit.entries(wanted, before=before, limit=limit)
    house.audit.record_reading(reader)
    return AuditPage(
        entries=[{**asdict(entry), "title": entry.title} for entry in found],
        before=found[-1].sequence if len(found) == limit else None,
    )


def check_chain(house: CurrentHouse) -> ChainReport:
    """Walk the whole chain of the audit book."""
    return seals.verify(house)


def audit_message(house: CurrentHouse, reader: CurrentActor, sequence: int) -> Response:
    """Give an entry as a DICOM audit message (PS3.15 A.5)."""
    message = to_dicom_audit_xml(entry_of(house, sequence))
    house.audit.record_reading(reader)
    return Response(message, media_type="application/xml")


ROUTES = (
    ApiRoute("GET", "/me", me, "self", "Say who is asking."),
    ApiRoute("GET", "/people", list_people, "people.see", "List people."),
    ApiRoute("POST", "/people", add_person, "people.change", "Add a person."),
    ApiRoute("PATCH", "/people/{name}", change_person, "people.change", "Change a person."),
    ApiRoute("DELETE", "/people/{name}", remove_person, "people.change", "Remove a person."),
    ApiRoute("GET", "/tokens", list_tokens, "people.see", "List tokens."),
    ApiRoute("POST", "/tokens", make_token, "tokens.change", "Make a token."),
    ApiRoute("DELETE", "/tokens/{name}", revoke_token, "tokens.change", "Revoke a token."),
    ApiRoute("GET", "/audit", list_audit, "audit.read", "Read the audit book."),
    ApiRoute("GET", "/audit/chain", check_chain, "audit.read", "Check the audit chain."),
    ApiRoute(
        "GET", "/audit/{sequence}/message", audit_message, "audit.read", "Give an audit message."
    ),
)
