"""The audit book in the console: who did what, and whether the book is whole."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pacsteward.base.errors import NotFound
from pacsteward.feature import House, Page
from pacsteward.features.access import seals
from pacsteward.security import (
    EVENT_MEANINGS,
    AuditEvent,
    AuditFilter,
    RecordedEntry,
    to_dicom_audit_xml,
)
from pacsteward.web import Request, Response, query_text, render

PAGE_ENTRIES = 100

EVENTS = [("", "All events"), *((str(event), EVENT_MEANINGS[event]) for event in AuditEvent)]

FILTERS = ("q", "actor", "event", "object", "since", "until", "failures")


def show_audit(house: House, request: Request) -> Response:
    """List entries, the newest first."""
    before = query_text(request, "before")
    # One more than is shown tells whether there is another page.
    book = house.audit.page(
        filter_of(request),
        before=int(before) if before.isascii() and before.isdigit() and len(before) < 18 else None,
        limit=PAGE_ENTRIES + 1,
    )
    entries = book.entries[:PAGE_ENTRIES]
    house.audit.record_reading(request.state.actor)
    return render(
        request,
        "access/audit.html",
        entries=entries,
        waiting=book.waiting,
        total=book.total,
        chosen={name: query_text(request, name) for name in FILTERS},
        events=EVENTS,
        older=entries[-1].sequence if len(book.entries) > PAGE_ENTRIES else None,
        is_first_page=not before,
    )


def show_entry(house: House, request: Request) -> Response:
    """Show one entry with all that is known of it, also as the DICOM audit message."""
    entry = entry_of(house, request.path_params["sequence"])
    house.audit.record_reading(request.state.actor)
    message = to_dicom_audit_xml(entry, is_indented=True).decode()
    return render(request, "access/audit_entry.html", entry=entry, message=message)


def check_chain(house: House, request: Request) -> Response:
    """Walk the whole chain and say what was found."""
    report = seals.verify(house)
    return render(request, "access/audit_chain.html", report=report)


def entry_of(house: House, sequence: int) -> RecordedEntry:
    """Return one entry.

    Raises
    ------
    NotFound
        There is none of this number.
    """
    found = house.audit.entries(before=sequence + 1, limit=1)
    if not found or found[0].sequence != sequence:
        raise NotFound(f"The audit book has no entry {sequence}.")
    return found[0]


def filter_of(request: Request) -> AuditFilter:
    """Read the filter from the address; what makes no sense does not restrict."""
    event = query_text(request, "event")
    until = _day(query_text(request, "until"), days_later=1)
    return AuditFilter(
        actor=query_text(request, "actor"),
        event=AuditEvent(event) if event in set(AuditEvent) else None,
        object_id=query_text(request, "object"),
        containing=query_text(request, "q"),
        only_failures=bool(query_text(request, "failures")),
        since=_day(query_text(request, "since")),
        until=until,
    )


def _day(text: str, *, days_later: int = 0) -> datetime | None:
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
        return day + timedelta(days=days_later)
    except (ValueError, OverflowError):
        return None


PAGES = (
    Page("/audit", show_audit, "audit.read", "Audit", menu=92, is_start=True),
    Page("/audit/chain", check_chain, "audit.read", "Is the book whole?"),
    Page("/audit/{sequence:key}", show_entry, "audit.read", "Audit entry"),
)
