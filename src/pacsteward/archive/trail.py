"""What the audit book says of instances that came in.

One entry for each sender and study in a batch, not one for each instance: a CT of two thousand
slices is one act.

References
----------
PS3.15 A.5.3.7 (DICOM Instances Transferred), A.5.3.5 (Data Import).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pacsteward.archive.landing import Landed
from pacsteward.archive.model import Origin
from pacsteward.security.actor import Actor
from pacsteward.security.audit_entry import AuditEntry, AuditEvent, AuditObject

_EVENTS: Final = {"import": AuditEvent.IMPORT}


def audit_entries(landed: Sequence[Landed]) -> list[AuditEntry]:
    """Return the entries for a batch, in the order in which the studies came."""
    # First by which object the origin is: it is one for a whole association, and to compare seven
    # texts for each instance takes longer than all the rest here.
    origins: dict[int, Origin] = {}
    of_object: dict[tuple[int, str, bool], int] = {}
    for one in landed:
        description = one.description
        origin = description.origin
        origins[id(origin)] = origin
        part = (id(origin), description.study_instance_uid, description.is_conflict)
        of_object[part] = of_object.get(part, 0) + 1
    counts: dict[tuple[Origin, str, bool], int] = {}
    for (number, study_uid, is_conflict), instances in of_object.items():
        group = (origins[number], study_uid, is_conflict)
        counts[group] = counts.get(group, 0) + instances
    return [
        _entry(origin, study_uid, is_conflict=is_conflict, instances=instances)
        for (origin, study_uid, is_conflict), instances in counts.items()
    ]


def _entry(
    origin: Origin, study_instance_uid: str, *, is_conflict: bool, instances: int
) -> AuditEntry:
    what = f"{instances} instance(s) were received."
    if is_conflict:
        what = (
            f"{instances} instance(s) were received under UIDs that other content bears; "
            "both are kept."
        )
    return AuditEntry(
        event=_EVENTS.get(origin.door, AuditEvent.INSTANCES_TRANSFERRED),
        action="C",
        actor=actor_of(origin),
        what=what,
        objects=(AuditObject("study", study_instance_uid, number_of_instances=instances),),
    )


def actor_of(origin: Origin) -> Actor:
    """Return who handed an instance in, as far as an origin tells."""
    return Actor(
        kind=origin.actor_kind,
        name=origin.actor,
        permissions=frozenset(),
        address=origin.address,
    )
