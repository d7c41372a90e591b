"""What the health page and monitoring ask about who may enter."""

from __future__ import annotations

from pacsteward.base.checks import Check, Finding
from pacsteward.feature import House, HouseCheck
from pacsteward.features.access import accounts, seals

ENTRIES_CHECKED = 5000
"""Monitoring asks every minute, so of a long book only its newest part is looked at."""


def is_audit_book_whole(house: House) -> Finding:
    """Walk along the newest part of the chain; `verify-audit` walks all of it."""
    report = seals.verify(house, newest=ENTRIES_CHECKED)
    if report.is_whole:
        return Finding("ok", f"The newest {report.entries} entries of the audit book are whole.")
    return Finding(
        "critical",
        f"The audit book is broken in {len(report.faults)} places.",
        report.faults[0].words,
        link="/audit/chain",
    )


def are_passwords_own(house: House) -> Finding:
    """Find people whose password somebody else chose."""
    given = [
        person.name
        for person in house.access.people.all()
        if person.has_given_password and not person.is_disabled
    ]
    if not given:
        return Finding("ok", "Everybody has chosen an own password.")
    names = ", ".join(given[:5])
    return Finding("warning", f"The password was given by somebody else: {names}.", link="/people")


def are_accounts_used(house: House) -> Finding:
    """Find people and tokens that nobody has used for long."""
    now = house.clock.now()
    days = accounts.UNUSED_AFTER.days
    idle = [
        account.name
        for account in accounts.accounts(house.access, now)
        if account.state in ("active", "given password")
        and now - (account.last_used_at or account.created_at) >= accounts.UNUSED_AFTER
    ]
    if not idle:
        return Finding("ok", f"Every account was used in the last {days} days.")
    return Finding(
        "warning",
        f"{len(idle)} accounts were not used for {days} days: {', '.join(idle[:5])}.",
        link="/people",
    )


CHECKS = (
    HouseCheck(
        Check(
            "is_audit_book_whole",
            "Is the audit book whole?",
            "Keep the database as it is; `pacsteward access verify-audit` names the places.",
        ),
        is_audit_book_whole,
    ),
    HouseCheck(
        Check(
            "are_passwords_own",
            "Has everybody chosen an own password?",
            "Ask them to change it: My account.",
        ),
        are_passwords_own,
    ),
    HouseCheck(
        Check(
            "are_accounts_used",
            "Is every account in use?",
            "Disable people and revoke tokens that are not needed: People, Tokens.",
        ),
        are_accounts_used,
    ),
)
