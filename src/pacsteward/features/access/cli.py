"""``pacsteward access``: people, tokens and the audit book from the command line, running or not.

Whoever may run it on the server may write to the data folder, so no password is asked for. That is
also the way back in when the administrator's password is lost.
"""

from __future__ import annotations

import getpass
import sys
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from cyclopts import Parameter

from pacsteward.base.errors import Broken, Invalid
from pacsteward.feature import Command, House
from pacsteward.features.access import accounts, seals
from pacsteward.features.access.accounts import Account
from pacsteward.security import AuditFilter, RecordedEntry, at_command_line

Roles = Annotated[tuple[str, ...], Parameter(name="--role", consume_multiple=True)]
PASSWORD_BYTES_MAX = 4096


def token(house: House, name: str, *, roles: Roles, expires: str = "") -> str:
    """Make a token and print it alone; it is shown this once.

    Parameters
    ----------
    name
        What it is for, e.g. the system that will use it.
    roles
        What it may do: machine, or a role of people, e.g. auditor; several are joined.
    expires
        Last day on which it is good, like 2027-12-31; by default it has none.
    """
    return house.access.make_token(
        name,
        accounts.read_roles(roles),
        expires_at=accounts.end_of_day(expires),
        by=at_command_line(),
    )


def revoke(house: House, name: str) -> str:
    """Refuse a token from now on.

    Parameters
    ----------
    name
        Name of the token.
    """
    house.access.tokens.revoke(name, by=at_command_line())
    return f"{name} was revoked; its next request is refused."


def list_accounts(house: House) -> list[Account]:
    """List people and tokens."""
    return accounts.accounts(house.access, house.clock.now())


def add_person(house: House, name: str, *, roles: Roles, password_stdin: bool = False) -> str:
    """Add somebody who may sign in.

    Parameters
    ----------
    name
        Name to sign in with.
    roles
        What they may do: administrator, radiologist, technologist, auditor; several are joined.
    password_stdin
        Read the password from standard input. By default a random one is made and printed once.
    """
    if password_stdin:
        person = house.access.people.add(
            name, _read_password(), accounts.read_roles(roles), by=at_command_line(), is_given=True
        )
        return f"{person.name} was added."
    person, password = house.access.people.add_with_random_password(
        name, accounts.read_roles(roles), by=at_command_line()
    )
    return f"{person.name} was added with the password {password} (shown this once)."


def reset_password(house: House, name: str, *, password_stdin: bool = False) -> str:
    """Set somebody's password; all sessions of that person end.

    Parameters
    ----------
    name
        Whose.
    password_stdin
        Read the password from standard input. By default a random one is made and printed once.
    """
    if password_stdin:
        house.access.people.set_password(
            name, _read_password(), by=at_command_line(), is_given=True
        )
        return f"The password of {name} was set."
    password = house.access.people.reset_password(name, by=at_command_line())
    return f"The password of {name} is now {password} (shown this once)."


def change_roles(house: House, name: str, *, roles: Roles) -> str:
    """Give somebody exactly these roles, at once.

    Parameters
    ----------
    name
        Whom.
    roles
        All roles of that person from now on.
    """
    house.access.people.change_roles(name, accounts.read_roles(roles), by=at_command_line())
    return f"The roles of {name} were changed."


def disable(house: House, name: str) -> str:
    """Keep somebody out; all sessions end at once.

    Parameters
    ----------
    name
        Whom.
    """
    house.access.people.set_disabled(name, is_disabled=True, by=at_command_line())
    return f"{name} was disabled."


def enable(house: House, name: str) -> str:
    """Let somebody in again.

    Parameters
    ----------
    name
        Whom.
    """
    house.access.people.set_disabled(name, is_disabled=False, by=at_command_line())
    return f"{name} may sign in again."


def remove_person(house: House, name: str) -> str:
    """Remove somebody; the audit book keeps what they did.

    Parameters
    ----------
    name
        Whom.
    """
    house.access.people.remove(name, by=at_command_line())
    return f"{name} was removed."


@dataclass(frozen=True, slots=True)
class AuditRow:
    """An entry of the audit book, as the list shows it."""

    number: int
    at: datetime
    who: str
    address: str
    event: str
    outcome: str
    what: str


def audit(
    house: House,
    *,
    actor: str = "",
    object_id: str = "",
    containing: str = "",
    failures: bool = False,
    limit: int = 50,
) -> list[AuditRow]:
    """Read the audit book, the newest entries first.

    Parameters
    ----------
    actor
        Only what this person, token or peer did.
    object_id
        Only what was done to this study, patient ID, peer or person.
    containing
        Only sentences with these words.
    failures
        Only what was refused or failed.
    limit
        Most entries, 1 to 1000.
    """
    wanted = AuditFilter(
        actor=actor, object_id=object_id, containing=containing, only_failures=failures
    )
    found = house.audit.entries(wanted, limit=limit)
    house.audit.record_reading(at_command_line())
    return [_row(entry) for entry in found]


def verify_audit(house: House) -> str:
    """Check that no entry of the audit book was changed, removed or moved."""
    report = seals.verify(house)
    if not report.is_whole:
        raise Broken(
            f"The audit book is not whole: {len(report.faults)} places.",
            why=" ".join(fault.words for fault in report.faults[:10]),
            remedy="Keep the database as it is, and find out who could write to it.",
        )
    return f"The audit book is whole: {report.entries} entries, {report.seals} seals."


def _read_password() -> str:
    """Read the first line of standard input; at a terminal it is not shown."""
    if sys.stdin.isatty():
        return getpass.getpass("Password: ")
    line = sys.stdin.readline(PASSWORD_BYTES_MAX)
    password = line.rstrip("\r\n")
    if not password:
        raise Invalid(
            "No password came from standard input.",
            remedy="Give it as the first line: echo 'the password' | pacsteward access …",
        )
    return password


def _row(entry: RecordedEntry) -> AuditRow:
    return AuditRow(
        number=entry.sequence,
        at=entry.recorded_at,
        who=entry.actor,
        address=entry.address,
        event=entry.title,
        outcome=entry.outcome_word,
        what=entry.what,
    )


COMMANDS = (
    Command("token", token),
    Command("revoke", revoke),
    Command("list", list_accounts),
    Command("add-person", add_person),
    Command("reset-password", reset_password),
    Command("change-roles", change_roles),
    Command("disable", disable),
    Command("enable", enable),
    Command("remove-person", remove_person),
    Command("audit", audit),
    Command("verify-audit", verify_audit),
)
