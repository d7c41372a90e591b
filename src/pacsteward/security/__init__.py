"""Locks and the audit book: people, tokens, sessions, peers, permissions, audit."""

from pacsteward.security.access import Access, Visit
from pacsteward.security.actor import HOUSE, Actor, at_command_line
from pacsteward.security.admission import Admission, Refusal, actor_of_caller, decide
from pacsteward.security.audit import AuditBook
from pacsteward.security.audit_chain import ChainFault, ChainReport
from pacsteward.security.audit_entry import (
    EVENT_MEANINGS,
    AuditEntry,
    AuditEvent,
    AuditEventType,
    AuditObject,
    AuditOutcome,
    Participant,
    RecordedEntry,
)
from pacsteward.security.audit_message import to_dicom_audit_xml
from pacsteward.security.audit_rows import AuditFilter
from pacsteward.security.peer import (
    ITS_HOST,
    Peer,
    PeerState,
    UnknownCaller,
    check_ae_title,
    check_peer,
)
from pacsteward.security.peers import PeerBook
from pacsteward.security.people import Person
from pacsteward.security.permissions import PERMISSIONS, ROLES, SERVICES, permissions_of
from pacsteward.security.sessions import Session, form_token_of
from pacsteward.security.settings import AdmissionSettings, AdmitUnknown, SecuritySettings
from pacsteward.security.sign_in import SignInFailed, TooManyTries
from pacsteward.security.tokens import Token, hash_of

__all__ = [
    "EVENT_MEANINGS",
    "HOUSE",
    "ITS_HOST",
    "PERMISSIONS",
    "ROLES",
    "SERVICES",
    "Access",
    "Actor",
    "Admission",
    "AdmissionSettings",
    "AdmitUnknown",
    "AuditBook",
    "AuditEntry",
    "AuditEvent",
    "AuditEventType",
    "AuditFilter",
    "AuditObject",
    "AuditOutcome",
    "ChainFault",
    "ChainReport",
    "Participant",
    "Peer",
    "PeerBook",
    "PeerState",
    "Person",
    "RecordedEntry",
    "Refusal",
    "SecuritySettings",
    "Session",
    "SignInFailed",
    "Token",
    "TooManyTries",
    "UnknownCaller",
    "Visit",
    "actor_of_caller",
    "at_command_line",
    "check_ae_title",
    "check_peer",
    "decide",
    "form_token_of",
    "hash_of",
    "permissions_of",
    "to_dicom_audit_xml",
]
