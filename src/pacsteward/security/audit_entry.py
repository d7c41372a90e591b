"""What stands in the audit book: the values, in the words of PS3.15 A.5.

An `AuditEntry` is what the house hands in; a `RecordedEntry` is what the book gives back, with its
place in the chain. Both say who did what to which objects, and how it ended. Objects are named by
identifiers (UID, patient ID, AE title), never by a patient's name.

References
----------
PS3.15 A.5.2 — general message format; PS3.16 CID 400, 401 and 403 — the codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Literal

from pacsteward.security.actor import Actor

Action = Literal["C", "R", "U", "D", "E"]
"""Create, read, update, delete, execute (PS3.15 A.5.2, EventActionCode)."""

ObjectKind = Literal["study", "patient", "query", "person", "token", "peer", "address", "other"]


class AuditEvent(StrEnum):
    """Event ID, DCM codes of PS3.16 CID 400."""

    APPLICATION_ACTIVITY = "110100"
    AUDIT_LOG_USED = "110101"
    BEGIN_TRANSFERRING = "110102"
    INSTANCES_ACCESSED = "110103"
    INSTANCES_TRANSFERRED = "110104"
    STUDY_DELETED = "110105"
    EXPORT = "110106"
    IMPORT = "110107"
    NETWORK_ENTRY = "110108"
    ORDER_RECORD = "110109"
    PATIENT_RECORD = "110110"
    PROCEDURE_RECORD = "110111"
    QUERY = "110112"
    SECURITY_ALERT = "110113"
    USER_AUTHENTICATION = "110114"


EVENT_MEANINGS: dict[AuditEvent, str] = {
    AuditEvent.APPLICATION_ACTIVITY: "Application Activity",
    AuditEvent.AUDIT_LOG_USED: "Audit Log Used",
    AuditEvent.BEGIN_TRANSFERRING: "Begin Transferring DICOM Instances",
    AuditEvent.INSTANCES_ACCESSED: "DICOM Instances Accessed",
    AuditEvent.INSTANCES_TRANSFERRED: "DICOM Instances Transferred",
    AuditEvent.STUDY_DELETED: "DICOM Study Deleted",
    AuditEvent.EXPORT: "Export",
    AuditEvent.IMPORT: "Import",
    AuditEvent.NETWORK_ENTRY: "Network Entry",
    AuditEvent.ORDER_RECORD: "Order Record",
    AuditEvent.PATIENT_RECORD: "Patient Record",
    AuditEvent.PROCEDURE_RECORD: "Procedure Record",
    AuditEvent.QUERY: "Query",
    AuditEvent.SECURITY_ALERT: "Security Alert",
    AuditEvent.USER_AUTHENTICATION: "User Authentication",
}


class AuditEventType(StrEnum):
    """Event type, DCM codes of PS3.16 CID 401; "" where the event needs none."""

    NONE = ""
    APPLICATION_START = "110120"
    APPLICATION_STOP = "110121"
    LOGIN = "110122"
    LOGOUT = "110123"
    NODE_AUTHENTICATION = "110126"
    EMERGENCY_OVERRIDE_STARTED = "110127"
    NETWORK_CONFIGURATION = "110128"
    SECURITY_CONFIGURATION = "110129"
    SOFTWARE_CONFIGURATION = "110131"
    USE_OF_RESTRICTED_FUNCTION = "110132"
    SECURITY_ROLES_CHANGED = "110136"
    USER_SECURITY_ATTRIBUTES_CHANGED = "110137"


EVENT_TYPE_MEANINGS: dict[AuditEventType, str] = {
    AuditEventType.APPLICATION_START: "Application Start",
    AuditEventType.APPLICATION_STOP: "Application Stop",
    AuditEventType.LOGIN: "Login",
    AuditEventType.LOGOUT: "Logout",
    AuditEventType.NODE_AUTHENTICATION: "Node Authentication",
    AuditEventType.EMERGENCY_OVERRIDE_STARTED: "Emergency Override Started",
    AuditEventType.NETWORK_CONFIGURATION: "Network Configuration",
    AuditEventType.SECURITY_CONFIGURATION: "Security Configuration",
    AuditEventType.SOFTWARE_CONFIGURATION: "Software Configuration",
    AuditEventType.USE_OF_RESTRICTED_FUNCTION: "Use of Restricted Function",
    AuditEventType.SECURITY_ROLES_CHANGED: "Security Roles Changed",
    AuditEventType.USER_SECURITY_ATTRIBUTES_CHANGED: "User Security Attributes Changed",
}


class AuditOutcome(IntEnum):
    """How it ended (PS3.15 A.5.2, EventOutcomeIndicator)."""

    SUCCESS = 0
    MINOR_FAILURE = 4
    SERIOUS_FAILURE = 8
    MAJOR_FAILURE = 12


@dataclass(frozen=True, slots=True)
class AuditObject:
    """Something that was acted upon.

    Parameters
    ----------
    object_id
        Study Instance UID, patient ID, name of a person or token, AE title; for a query the
        SOP Class UID or the resource that was asked.
    query
        The question itself; only for a query.
    number_of_instances
        How many instances of a study were concerned; None where nobody counted.
    """

    kind: ObjectKind
    object_id: str
    query: str = ""
    number_of_instances: int | None = None


@dataclass(frozen=True, slots=True)
class Participant:
    """Somebody else who took part, e.g. the peer that a study was sent to."""

    name: str
    address: str = ""
    role: Literal["destination", "source", "application"] = "application"


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One thing that was done, or refused.

    Parameters
    ----------
    what
        One sentence in plain words, for a person who reads the book. No patient's name.
    """

    event: AuditEvent
    action: Action
    actor: Actor
    what: str = ""
    event_type: AuditEventType = AuditEventType.NONE
    outcome: AuditOutcome = AuditOutcome.SUCCESS
    objects: tuple[AuditObject, ...] = ()
    participants: tuple[Participant, ...] = ()


_REFUSALS = frozenset({AuditEvent.USER_AUTHENTICATION, AuditEvent.SECURITY_ALERT})


@dataclass(frozen=True, slots=True)
class RecordedEntry:
    """An entry as it stands in the book."""

    sequence: int
    recorded_at: datetime
    event: AuditEvent
    event_type: AuditEventType
    action: Action
    outcome: AuditOutcome
    actor_kind: str
    actor: str
    address: str
    what: str
    objects: tuple[AuditObject, ...]
    participants: tuple[Participant, ...]
    hash: str

    @property
    def title(self) -> str:
        """The event in the standard's words."""
        if self.event_type is AuditEventType.NONE:
            return EVENT_MEANINGS[self.event]
        return EVENT_TYPE_MEANINGS[self.event_type]

    @property
    def was_refused(self) -> bool:
        """Whether it did not come to pass."""
        return self.outcome is not AuditOutcome.SUCCESS

    @property
    def outcome_word(self) -> str:
        """How it ended: somebody was refused something, something failed, or was done."""
        if not self.was_refused:
            return "done"
        return "refused" if self.event in _REFUSALS else "failed"


def plain(text: str, length_max: int = 2000) -> str:
    r"""Return `text` with everything invisible written out, and cut to `length_max`.

    Names come from the network. A line break, an escape sequence or a right-to-left mark in one
    must not pass for something that the house has written, and PostgreSQL takes no NUL.
    """
    if not text.isprintable():
        text = "".join(
            letter if letter.isprintable() else letter.encode("unicode_escape").decode()
            for letter in text
        )
    return text if len(text) <= length_max else text[: length_max - 1] + "…"
