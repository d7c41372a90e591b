"""An audit entry as the DICOM audit message, ready for a repository (ATNA) or an auditor.

References
----------
PS3.15 A.5.1 — the schema; A.5.2 — its fields; PS3.16 CID 402 — role codes, CID 404 — object types.
"""

from __future__ import annotations

import base64
import ipaddress
from datetime import UTC
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from pacsteward.security.audit_entry import (
    EVENT_MEANINGS,
    EVENT_TYPE_MEANINGS,
    AuditEventType,
    AuditObject,
    ObjectKind,
    Participant,
    RecordedEntry,
)

_APPLICATION_SERVER = "4"

# ParticipantObjectTypeCode, ParticipantObjectTypeCodeRole, ParticipantObjectIDTypeCode:
# PS3.15 A.5.1.2.2 and A.5.1.2.4; 110180 and 110182 are DCM codes of PS3.16 CID 404.
_OBJECTS: dict[ObjectKind, tuple[str, str, tuple[str, str, str]]] = {
    "study": ("2", "3", ("110180", "DCM", "Study Instance UID")),
    "patient": ("1", "1", ("2", "RFC-3881", "Patient Number")),
    "query": ("2", "24", ("110181", "DCM", "SOP Class UID")),
    "person": ("1", "11", ("11", "RFC-3881", "User Identifier")),
    "token": ("2", "11", ("11", "RFC-3881", "User Identifier")),
    "peer": ("2", "13", ("110182", "DCM", "Node ID")),
    "address": ("2", "13", ("110182", "DCM", "Node ID")),
    "other": ("2", "13", ("12", "RFC-3881", "URI")),
}

# PS3.16 CID 402.
_ROLES = {
    "application": ("110150", "Application"),
    "destination": ("110152", "Destination Role ID"),
    "source": ("110153", "Source Role ID"),
}


def to_dicom_audit_xml(
    entry: RecordedEntry, *, source_id: str = "pacsteward", is_indented: bool = False
) -> bytes:
    """Return `entry` as an audit message in UTF-8.

    Parameters
    ----------
    source_id
        Name of this installation, AuditSourceID.
    is_indented
        Written for people, one element on a line.
    """
    message = Element("AuditMessage")
    event = SubElement(
        message,
        "EventIdentification",
        EventActionCode=entry.action,
        EventDateTime=entry.recorded_at.astimezone(UTC).isoformat(timespec="milliseconds"),
        EventOutcomeIndicator=str(int(entry.outcome)),
    )
    _code(event, "EventID", entry.event, "DCM", EVENT_MEANINGS[entry.event])
    if entry.event_type is not AuditEventType.NONE:
        meaning = EVENT_TYPE_MEANINGS[entry.event_type]
        _code(event, "EventTypeCode", entry.event_type, "DCM", meaning)
    if entry.what:
        SubElement(event, "EventOutcomeDescription").text = entry.what
    _participant(message, entry.actor, entry.address, is_requestor=True)
    for who in entry.participants:
        _other_participant(message, who)
    source = SubElement(message, "AuditSourceIdentification", AuditSourceID=source_id)
    SubElement(source, "AuditSourceTypeCode", {"csd-code": _APPLICATION_SERVER})
    for thing in entry.objects:
        _object(message, thing)
    if is_indented:
        indent(message)
    xml: bytes = tostring(message, encoding="utf-8", xml_declaration=True)
    return xml


def _code(parent: Element, name: str, code: str, scheme: str, meaning: str) -> None:
    SubElement(
        parent,
        name,
        {"csd-code": str(code), "codeSystemName": scheme, "originalText": meaning},
    )


def _participant(message: Element, name: str, address: str, *, is_requestor: bool) -> Element:
    values = {"UserID": name, "UserIsRequestor": "true" if is_requestor else "false"}
    if address:
        values["NetworkAccessPointID"] = address
        values["NetworkAccessPointTypeCode"] = "2" if _is_ip_address(address) else "1"
    return SubElement(message, "ActiveParticipant", values)


def _other_participant(message: Element, who: Participant) -> None:
    element = _participant(message, who.name, who.address, is_requestor=False)
    code, meaning = _ROLES[who.role]
    _code(element, "RoleIDCode", code, "DCM", meaning)


def _object(message: Element, thing: AuditObject) -> None:
    type_code, role, id_type = _OBJECTS[thing.kind]
    element = SubElement(
        message,
        "ParticipantObjectIdentification",
        ParticipantObjectID=thing.object_id,
        ParticipantObjectTypeCode=type_code,
        ParticipantObjectTypeCodeRole=role,
    )
    _code(element, "ParticipantObjectIDTypeCode", *id_type)
    if thing.query:
        query = base64.b64encode(thing.query.encode()).decode("ascii")
        SubElement(element, "ParticipantObjectQuery").text = query
    else:
        # The schema wants a name or a query; the identifier is all the name that we write down.
        SubElement(element, "ParticipantObjectName").text = thing.object_id
    if thing.number_of_instances is not None:
        description = SubElement(element, "ParticipantObjectDescription")
        SubElement(description, "SOPClass", NumberOfInstances=str(thing.number_of_instances))


def _is_ip_address(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True
