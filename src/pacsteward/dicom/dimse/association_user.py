"""Whom an association serves: the side that decides who may come in, and what is told to it.

References
----------
PS3.8 chapter 7 (the service primitives).
"""

from __future__ import annotations

from typing import Protocol

from pacsteward.base.errors import Unavailable
from pacsteward.dicom.dimse.pdu import AssociateAccept, AssociateReject, AssociateRequest


class AssociationAborted(Unavailable):
    """The association ended without release: by the peer, by us, or with its connection."""


class AssociationUser(Protocol):
    """Whom the upper layer serves; the indications and confirmations of PS3.8 chapter 7."""

    def associate_indicated(self, request: AssociateRequest) -> None:
        """Answer a peer who asks, with `accept` or `reject`, now or later."""
        ...

    def associate_confirmed(self, answer: AssociateAccept | AssociateReject) -> None:
        """Take the peer's answer to our request."""
        ...

    def release_indicated(self) -> None:
        """Answer a peer who wants to part, with `reply_to_release`."""
        ...

    def release_confirmed(self) -> None:
        """Take note that the peer agreed to part."""
        ...

    def ended(self, how: str) -> None:
        """Take note, once, that the association is over and why; nothing can be sent any more."""
        ...

    def disconnected(self) -> None:
        """Take note that the connection is gone; the last call."""
        ...
