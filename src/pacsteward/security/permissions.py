"""The rights there are, and which role holds which.

A route, page or service names the permission it needs beside itself; a test fails the build when
one is named that is not listed here, or one is listed that nothing asks for. What commands alone
can do (hide, delete, verify, rebuild) needs no right of these: who may write to the data folder may
do everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from pacsteward.base.errors import Invalid

PERMISSIONS: Mapping[str, str] = MappingProxyType(
    {
        "dimse.echo": "Ask by C-ECHO whether the archive answers.",
        "studies.find": "Search for patients, studies, series and instances.",
        "studies.read": "Look at images and their headers; retrieve them.",
        "studies.download": "Take a whole study away as a file.",
        "studies.store": "Send objects to the archive.",
        "studies.move": "Have studies sent to a peer.",
        "peers.see": "See the machines that we speak with.",
        "peers.change": "Register, change and remove peers; admit unknown callers.",
        "peers.echo": "Send a C-ECHO to a peer; query it.",
        "people.see": "See people, tokens and their roles.",
        "people.change": "Add, change and remove people; give roles.",
        "tokens.change": "Make and revoke tokens of machines.",
        "audit.read": "Read the audit book.",
        "jobs.see": "See the work behind the scenes: what waits, runs and failed.",
        "jobs.change": "Have work tried again, cancel and pause it.",
        "metrics.read": "Read figures for monitoring.",
        "self": "Sign out, see the own account; everybody who is signed in has it.",
    }
)

ROLES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "administrator": frozenset({"*"}),
        "radiologist": frozenset({"self", "studies.find", "studies.read", "studies.download"}),
        "technologist": frozenset(
            {"self", "studies.find", "studies.read", "studies.store", "peers.see", "peers.echo"}
        ),
        "auditor": frozenset({"self", "audit.read", "people.see", "peers.see"}),
        "machine": frozenset(
            {"self", "dimse.echo", "studies.find", "studies.read", "studies.store", "metrics.read"}
        ),
    }
)

SERVICES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "echo": frozenset({"dimse.echo"}),
        "store": frozenset({"studies.store"}),
        "find": frozenset({"studies.find"}),
        "get": frozenset({"studies.read"}),
        "move": frozenset({"studies.move"}),
    }
)
"""What a peer is allowed by AE title is said in services; this is what each one permits."""


def permissions_of(roles: Iterable[str]) -> frozenset[str]:
    """Join the permissions of `roles`.

    Raises
    ------
    Invalid
        A role that does not exist.
    """
    granted: set[str] = set()
    for role in roles:
        if role not in ROLES:
            raise Invalid(
                f"There is no role {role!r}.", remedy=f"Choose one of {', '.join(sorted(ROLES))}."
            )
        granted |= ROLES[role]
    return frozenset(granted)
