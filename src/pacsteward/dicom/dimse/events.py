"""What the door tells of its callers: who came, who was turned away, who left.

Plain values, for facts, figures and the console. Nothing of a patient is in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pacsteward.dicom.dimse.service import Caller, Refused


@dataclass(frozen=True, slots=True)
class AssociationOpened:
    """A caller was let in."""

    at: datetime
    caller: Caller


@dataclass(frozen=True, slots=True)
class AssociationClosed:
    """An association that was open is over.

    Parameters
    ----------
    how
        ``"released by the peer"``, ``"aborted …"`` or ``"cut: …"`` with the reason.
    requests
        Messages that the peer asked something with.
    """

    at: datetime
    caller: Caller
    how: str
    duration_s: float
    requests: int
    received_size_bytes: int
    sent_size_bytes: int


@dataclass(frozen=True, slots=True)
class AssociationRejected:
    """A caller was turned away with A-ASSOCIATE-RJ."""

    at: datetime
    caller: Caller
    refused: Refused


@dataclass(frozen=True, slots=True)
class ConnectionDropped:
    """A connection ended before there was an association: garbage, silence, no room."""

    at: datetime
    address: str
    how: str


DoorEvent = AssociationOpened | AssociationClosed | AssociationRejected | ConnectionDropped
