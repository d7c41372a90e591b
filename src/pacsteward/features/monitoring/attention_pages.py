"""What needs a human, in the console: the list, a conflict with both its contents, their files."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pacsteward.archive import Archive, Instance
from pacsteward.base.errors import NotFound
from pacsteward.dicom.uids import STORAGE_SOP_CLASSES, TRANSFER_SYNTAXES
from pacsteward.dicom.web.streaming import StreamedAnswer
from pacsteward.feature import House, Page, Route
from pacsteward.features.monitoring import attention
from pacsteward.features.monitoring.attention import KINDS, Matter
from pacsteward.features.monitoring.differences import compare
from pacsteward.web import (
    Column,
    Request,
    Response,
    arrange,
    query_text,
    render,
    wishes_of,
)

COLUMNS = (
    Column("Needs you for", "kind"),
    Column("Object or study", "uid"),
    Column("Why"),
    Column("From", "source"),
    Column("Size", "size_bytes", is_number=True),
    Column("When", "at"),
    Column(""),
)


def show_all(house: House, request: Request) -> Response:
    """List what needs a human."""
    kind = query_text(request, "kind")
    chosen = kind if kind in KINDS else ""
    matters = attention.list_matters(house.archive)
    counts = attention.count_matters(house.archive)
    grid = arrange(
        [matter for matter in matters if chosen in ("", matter.kind)],
        COLUMNS,
        wishes_of(request, COLUMNS, sort="-at", keep=("kind",)),
        words_of=_words,
        key_of=getattr,
    )
    return render(
        request,
        "monitoring/attention.html",
        grid=grid,
        known=attention.studies_known(
            house.archive, (matter.study_instance_uid for matter in grid.rows)
        ),
        kinds=KINDS,
        counts=counts,
        chosen=chosen,
        total=sum(counts.values()),
        listed_max=attention.LISTED_MAX,
    )


def _words(matter: Matter) -> str:
    title = KINDS[matter.kind].title
    return f"{title} {matter.uid} {matter.study_instance_uid} {matter.why} {matter.source}"


def show_conflict(house: House, request: Request) -> Response:
    """Show what differs between the two contents of a conflict."""
    conflict = house.archive.conflict(request.path_params["key"])
    other = house.archive.conflicting_instance(conflict.conflict_key)
    stored = _shown(house.archive, conflict.sop_instance_uid)
    studies = {conflict.study_instance_uid, *([stored.study_instance_uid] if stored else [])}
    comparison = compare(house.archive, stored, other) if stored else None
    house.audit.record_access(request.state.actor, sorted(studies))
    return render(
        request,
        "monitoring/conflict.html",
        conflict=conflict,
        kind=KINDS["conflict"],
        stored=stored,
        source=house.archive.source_of(stored) if stored else "",
        known=attention.studies_known(house.archive, studies),
        comparison=comparison,
        sop_class=STORAGE_SOP_CLASSES.get(conflict.sop_class_uid, conflict.sop_class_uid),
        syntaxes=TRANSFER_SYNTAXES,
        file_of_other=f"{attention.page_of_conflict(conflict.conflict_key)}/object.dcm",
    )


def _shown(archive: Archive, sop_instance_uid: str) -> Instance | None:
    """Return what readers get under the UID; None when it was rejected or deleted."""
    try:
        return archive.instance("", "", sop_instance_uid)
    except NotFound:
        return None


def download_conflict(house: House, request: Request) -> Response:
    """Give the other content of a conflict as a file."""
    conflict = house.archive.conflict(request.path_params["key"])
    other = house.archive.conflicting_instance(conflict.conflict_key)
    house.audit.record_access(request.state.actor, (conflict.study_instance_uid,))
    return _file(house.archive, other, f"{other.sop_instance_uid}-other.dcm")


def download_set_aside(house: House, request: Request) -> Response:
    """Give a record that was set aside as a file."""
    instance = house.archive.instance_set_aside(request.path_params["key"])
    actor, uid = request.state.actor, instance.sop_instance_uid
    # Its study is not known: what names it in the audit book is its own UID.
    what = f"{actor.name} opened the object {uid}, which was set aside."
    house.audit.record_access(actor, (uid,), what=what)
    return _file(house.archive, instance, f"{uid}.dcm")


def _file(archive: Archive, instance: Instance, name: str) -> Response:
    # A UID is whatever its sender wrote: in a header it must not end the name or the line.
    name = re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)

    def pieces() -> Iterator[bytes | memoryview]:
        with archive.open(instance) as stored:
            yield stored.head()
            yield from stored.chunks()

    return StreamedAnswer(
        pieces(),
        media_type="application/dicom",
        headers={
            "cache-control": "no-store",
            "content-disposition": f'attachment; filename="{name}"',
        },
    )


_CONFLICT = attention.PATH + "/conflicts/{key:key}"

PAGES = (
    Page(attention.PATH, show_all, "studies.read", "Attention", menu=31),
    Page(_CONFLICT, show_conflict, "studies.read", "Conflict"),
)

ROUTES = (
    Route("GET", f"{_CONFLICT}/object.dcm", download_conflict, "studies.read"),
    Route(
        "GET",
        attention.PATH + "/set-aside/{key:key}/object.dcm",
        download_set_aside,
        "studies.read",
    ),
)
