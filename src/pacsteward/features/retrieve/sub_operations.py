"""Counting the C-STORE sub-operations of one C-MOVE or C-GET, and what to say of them.

References
----------
PS3.4 C.4.2.1.4 to C.4.2.1.8 and C.4.3.1.4 — statuses and counters. Remaining is left out of final
answers other than those to a cancel.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pacsteward.dicom.dimse import Answer, SubOperations
from pacsteward.dicom.identifier import write_identifier
from pacsteward.dicom.status import (
    CANCEL,
    DUPLICATE_SOP_INSTANCE,
    OUT_OF_RESOURCES_SUBOPS,
    PENDING,
    SUCCESS,
    WARNING_SUBOPS,
    Category,
    category,
)
from pacsteward.dicom.tags import FAILED_SOP_INSTANCE_UID_LIST


@dataclass(slots=True)
class Tally:
    """How a retrieve stands. `record` is called once for each instance."""

    total: int
    completed: int = 0
    warning: int = 0
    failed_uids: list[str] = field(default_factory=list)
    first_reason: str = ""

    @property
    def failed(self) -> int:
        """Number of failures so far."""
        return len(self.failed_uids)

    @property
    def done(self) -> int:
        """Number of instances that have been tried."""
        return self.completed + self.warning + self.failed

    def record(self, sop_instance_uid: str, status: int, reason: str = "") -> None:
        """Count the outcome of one instance."""
        if category(status) is Category.SUCCESS:
            self.completed += 1
        elif category(status) is Category.WARNING or status == DUPLICATE_SOP_INSTANCE:
            # Archives that answer "duplicate" have the object, which is what was wanted; counting
            # it as failed would have every second attempt end in failure.
            self.warning += 1
        else:
            self.fail(sop_instance_uid, reason or f"Status {status:04X}")

    def fail(self, sop_instance_uid: str, reason: str) -> None:
        """Count one failure; the first reason is what the caller will read."""
        self.failed_uids.append(sop_instance_uid)
        self.first_reason = self.first_reason or reason

    def pending(self) -> Answer:
        """Say how far it has come."""
        return Answer(PENDING, sub_operations=self._counters(self.total - self.done))

    def final(self, transfer_syntax_uid: str) -> Answer:
        """Say how it ended."""
        if self.failed == self.total and self.total:
            status = OUT_OF_RESOURCES_SUBOPS
        elif self.failed or self.warning:
            status = WARNING_SUBOPS
        else:
            status = SUCCESS
        return Answer(
            status,
            data_set=self._failed_list(transfer_syntax_uid),
            comment=self.first_reason,
            sub_operations=self._counters(None),
        )

    def cancelled(self, transfer_syntax_uid: str) -> Answer:
        """Say that it was cancelled, and how far it had come."""
        return Answer(
            CANCEL,
            data_set=self._failed_list(transfer_syntax_uid),
            comment="Cancelled by the caller",
            sub_operations=self._counters(self.total - self.done),
        )

    def _counters(self, remaining: int | None) -> SubOperations:
        return SubOperations(remaining, self.completed, self.failed, self.warning)

    def _failed_list(self, transfer_syntax_uid: str) -> bytes | None:
        if not self.failed_uids:
            return None
        return write_identifier(
            {FAILED_SOP_INSTANCE_UID_LIST: "\\".join(self.failed_uids)},
            character_set="",
            transfer_syntax_uid=transfer_syntax_uid,
        )
