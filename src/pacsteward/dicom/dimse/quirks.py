"""Named deviations of real devices that an administrator may allow to one peer.

A quirk is off until `Admitted.quirks` names it for a caller; each has a reason, a date and a test.
What we tolerate of everybody is written where it is tolerated (`pdu.py`, `user_information.py`,
`message.py`).
"""

from __future__ import annotations

from enum import StrEnum


class Quirk(StrEnum):
    """What a peer may do against the standard."""

    GET_WITHOUT_ROLES = "get_without_roles"
    """Storage contexts without SCP/SCU role selection count as offered for C-GET sub-operations.

    PS3.7 D.3.3.4 makes a requestor an SCU where it says nothing, so C-GET has no context to send
    on. Workstations of the Horos family (seen since 2017) propose storage contexts, ask C-GET and
    wait for sub-operations all the same.
    """
