"""An audit entry as the message of PS3.15 A.5."""

from __future__ import annotations

from xml.etree import ElementTree

from pacsteward.security import (
    Actor,
    AuditBook,
    AuditEventType,
    AuditObject,
    Participant,
    to_dicom_audit_xml,
)
from pacsteward.security.test_support import STUDY, an_entry


def test_message_has_the_parts_that_the_schema_asks_for(audit: AuditBook) -> None:
    audit.record(
        an_entry(
            1,
            event_type=AuditEventType.NONE,
            objects=(
                AuditObject("study", STUDY, number_of_instances=12),
                AuditObject("patient", "P-17"),
                AuditObject("query", "1.2.840.10008.5.1.4.1.2.2.1", query="00100020"),
            ),
            participants=(Participant("WS1", "ws1.example", "destination"),),
        )
    )
    message = ElementTree.fromstring(to_dicom_audit_xml(audit.entries()[0]))
    assert [child.tag for child in message] == [
        "EventIdentification",
        "ActiveParticipant",
        "ActiveParticipant",
        "AuditSourceIdentification",
        "ParticipantObjectIdentification",
        "ParticipantObjectIdentification",
        "ParticipantObjectIdentification",
    ]
    event = message[0]
    assert event.attrib["EventActionCode"] == "R"
    assert event.attrib["EventOutcomeIndicator"] == "0"
    assert event.attrib["EventDateTime"] == "2026-01-01T07:00:00.000+00:00"
    assert event.find("EventID").attrib == {
        "csd-code": "110103",
        "codeSystemName": "DCM",
        "originalText": "DICOM Instances Accessed",
    }
    who, other = message.findall("ActiveParticipant")
    assert who.attrib == {
        "UserID": "ada",
        "UserIsRequestor": "true",
        "NetworkAccessPointID": "10.1.1.7",
        "NetworkAccessPointTypeCode": "2",
    }
    assert other.attrib["NetworkAccessPointTypeCode"] == "1"
    study, patient, query = message.findall("ParticipantObjectIdentification")
    assert study.attrib["ParticipantObjectID"] == STUDY
    assert study.find("ParticipantObjectIDTypeCode").attrib["csd-code"] == "110180"
    assert study.find("ParticipantObjectDescription/SOPClass").attrib == {"NumberOfInstances": "12"}
    assert patient.attrib["ParticipantObjectTypeCodeRole"] == "1"
    assert query.find("ParticipantObjectQuery").text == "MDAxMDAwMjA="


def test_markup_in_names_stays_text(audit: AuditBook) -> None:
    audit.record(an_entry(what="<b>&", actor=Actor("peer", '"><x/>', frozenset())))
    message = ElementTree.fromstring(to_dicom_audit_xml(audit.entries()[0]))
    assert message.find("ActiveParticipant").attrib["UserID"] == '"><x/>'
