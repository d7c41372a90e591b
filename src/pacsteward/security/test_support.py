"""An audit entry for the tests, and many of them."""

from __future__ import annotations

from pacsteward.security import Actor, AuditBook, AuditEntry, AuditEvent, AuditObject

ADA = Actor("person", "ada", frozenset(), "10.1.1.7")
STUDY = "1.2.840.113619.2.55.3.604688119"


def an_entry(number: int = 0, **more: object) -> AuditEntry:
    values = {
        "event": AuditEvent.INSTANCES_ACCESSED,
        "action": "R",
        "actor": ADA,
        "what": f"ada opened study {number}.",
        "objects": (AuditObject("study", f"{STUDY}.{number}"), AuditObject("patient", "P-17")),
        **more,
    }
    return AuditEntry(**values)  # type: ignore[arg-type]


def filled(audit: AuditBook, count: int) -> None:
    audit.record_all([an_entry(number) for number in range(count)])
