"""The person behind a DICOM caller: User Identity Negotiation, user name and passcode.

An A-ASSOCIATE-RQ may name its user (PS3.7 D.3.3.7). A user name with a passcode is looked at: the
passcode is the person's password, or a token, and a wrong one refuses the association. What is
right only ever narrows: the association may do what its AE title *and* its user may do, so a
password opens no service that the registration of a peer closes, and lets in nobody whose AE title
is refused. A user name alone proves nothing and changes nothing; Kerberos, SAML and JWT are not
looked at, which the caller learns because no response comes (D.3.3.7.2).

Looking at a password takes 64 MiB and may be made to wait, so only a few are looked at together.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

from pacsteward.security.access import Access
from pacsteward.security.actor import Actor
from pacsteward.security.sign_in import TooManyTries

_log: Final = logging.getLogger(__name__)

USER_NAME_AND_PASSCODE: Final = 2
"""User-Identity-Type, PS3.7 table D.3-14."""

ALWAYS: Final = frozenset({"dimse.echo"})
"""Who may call may ask whether we answer, whatever the user's roles are."""

_LOOKED_AT: Final = threading.BoundedSemaphore(2)
"""Passwords looked at together. Few, since each holds one of the door's threads while it waits."""
_PLACE_WITHIN_S: Final = 1.0


def user_of(
    access: Access, kind: int, primary: bytes, secondary: bytes, *, ae_title: str, address: str
) -> Actor | None:
    """Return the person or token that a caller speaks for; None when it names none provably.

    Blocks, for seconds after wrong passwords.

    Parameters
    ----------
    kind, primary, secondary
        Of the User Identity sub-item, PS3.7 table D.3-14.

    Raises
    ------
    SignInFailed
        User name and passcode do not fit.
    TooManyTries
        Others are being looked at; the caller may come again.
    """
    if kind != USER_NAME_AND_PASSCODE:
        _log.info(
            "The user identity of a caller was not looked at.",
            extra={"calling": ae_title, "address": address, "identity_type": kind},
        )
        return None
    name = primary.decode("utf-8", "replace").rstrip(" \0")
    passcode = secondary.decode("utf-8", "replace").rstrip("\0")
    known = access.known_caller(name, passcode, address)
    if known is not None:
        return known
    if not _LOOKED_AT.acquire(timeout=_PLACE_WITHIN_S):
        raise TooManyTries
    try:
        time.sleep(access.wait_s(name, address))
        return access.identify_caller(name, passcode, address, ae_title=ae_title)
    finally:
        _LOOKED_AT.release()


def narrowed(permissions: frozenset[str], user: Actor) -> frozenset[str]:
    """Return what a caller may do with `permissions` of its AE title, for `user`."""
    return frozenset(one for one in permissions if one in ALWAYS or user.may(one))
