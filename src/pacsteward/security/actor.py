"""Who acts: a person, a service with a token, a peer, or the house itself."""

from __future__ import annotations

import getpass
import os
from dataclasses import dataclass, replace
from typing import Literal

from pacsteward.base.errors import Forbidden

ActorKind = Literal["person", "token", "peer", "house"]


@dataclass(frozen=True, slots=True)
class Actor:
    """Somebody who is known by now, with what they may do.

    Parameters
    ----------
    kind
        What sort of somebody.
    name
        Name of the person or token, or AE title; stands in the audit.
    permissions
        Names such as ``"studies.read"``; ``"*"`` is all of them.
    address
        IP address, as text; empty for the house itself.
    roles
        Names of the roles that the permissions come from, to be shown; they decide nothing.
    """

    kind: ActorKind
    name: str
    permissions: frozenset[str]
    address: str = ""
    roles: frozenset[str] = frozenset()

    def may(self, permission: str) -> bool:
        """Say whether this actor holds `permission`."""
        return "*" in self.permissions or permission in self.permissions

    def need(self, permission: str) -> None:
        """Raise `Forbidden` unless this actor holds `permission`."""
        if not self.may(permission):
            raise Forbidden(
                f"{self.name} may not do that.",
                why=f"It needs the permission {permission}.",
                remedy="Ask an administrator for a role that has it: Access → Roles.",
            )


HOUSE = Actor(kind="house", name="pacsteward", permissions=frozenset({"*"}))
"""The house acting by itself: jobs, deadlines, repairs."""


def at_command_line() -> Actor:
    """Name whoever runs a command on the server, for the audit.

    Who may write to the data folder may do everything anyway; so this says who, and permits all.
    """
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # An account without a name, as in many containers.
        user = f"account {os.getuid()}"
    return replace(HOUSE, name=f"{user} at the command line")
