"""Work of the access room: sealing the audit book."""

from __future__ import annotations

from pacsteward.base.jobs import JobKind
from pacsteward.feature import House, Job
from pacsteward.features.access.seals import SEAL_EVERY_S, seal


def _seal(house: House) -> dict[str, int]:
    return {"sealed_up_to": seal(house)}


SEAL_AUDIT_BOOK = Job(
    JobKind("seal_audit_book", "Seal the audit book", every_s=SEAL_EVERY_S), _seal
)
