"""Audit entries that wait for each other: recorded together, and none lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import pytest

from pacsteward.base.errors import Unavailable
from pacsteward.security import AuditBook, AuditEntry
from pacsteward.security.audit_later import DELAY_S, Later
from pacsteward.security.test_support import an_entry


def test_entries_that_come_soon_after_each_other_are_recorded_together() -> None:
    batches: list[int] = []
    is_recorded = threading.Event()

    def record(batch: Sequence[AuditEntry]) -> None:
        batches.append(len(batch))
        is_recorded.set()

    later = Later(record)
    began = time.monotonic()
    for number in range(40):
        later.put(an_entry(number))
        is_recorded.wait(0.001)
        is_recorded.clear()
    later.flush()
    assert sum(batches) == 40
    assert len(batches) <= (time.monotonic() - began) / DELAY_S + 2


def test_what_comes_while_entries_are_recorded_waits_for_the_next_batch() -> None:
    batches: list[int] = []

    def record(batch: Sequence[AuditEntry]) -> None:
        batches.append(len(batch))
        if len(batches) < 100:
            later.put(an_entry(len(batches)))

    later = Later(record)
    # Not the thread's own batch: who says when it begins.
    with later._state:
        later._waiting += [an_entry(0), an_entry(1)]
    later.flush()
    assert batches == [2]
    assert later.waiting == 1


def test_what_cannot_be_recorded_has_been_waiting_all_the_while() -> None:
    """The thread is woken once for it: what it did not see then, nobody would tell it of again."""
    waiting: list[int] = []

    def fail(_batch: Sequence[AuditEntry]) -> None:
        waiting.append(later.waiting)
        raise Unavailable("The database did not answer.")

    later = Later(fail)
    with later._state:
        later._waiting += [an_entry(0), an_entry(1)]
    with pytest.raises(Unavailable):
        later.flush()
    assert waiting == [2]
    assert later.waiting == 2


def test_closing_records_what_comes_while_it_does(
    audit: AuditBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    later, record = audit._later, audit._later._record
    late = [an_entry(number) for number in range(1, 4)]

    def recorded(batch: Sequence[AuditEntry]) -> None:
        # Not by `put`, since its thread would record what the closing leaves behind.
        with later._state:
            later._waiting += [late.pop()] if late else []
        record(batch)

    monkeypatch.setattr(later, "_record", recorded)
    with later._state:
        later._waiting.append(an_entry(0))
    audit.close()
    assert later.waiting == 0
    assert audit.count() == 4
