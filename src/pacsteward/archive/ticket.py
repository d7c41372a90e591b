"""An instance on its way through the write path, and how its sender gets the answer.

`IncomingInstance` makes a ticket when all bytes are there; the arbiter decides on it, the committer
writes it, and `release` hands the answers of a whole batch back: one call into each event loop,
since waking a loop costs more than a batch of answers.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from pacsteward.archive.model import Outcome, StoreResult
from pacsteward.archive.record import Description
from pacsteward.archive.storage.local import LocalObjects
from pacsteward.base.errors import PacstewardError
from pacsteward.dicom.fragments import Fragments
from pacsteward.dicom.header import Header

Answer = StoreResult | PacstewardError


class Desk(Protocol):
    """Where answers go that are for another process."""

    def answer(self, answers: Sequence[tuple[Ticket, Answer]]) -> None:
        """Take answers; from any thread."""
        ...


@dataclass(slots=True, eq=False)
class Ticket:
    """One instance, whole and looked at, not yet safe.

    Parameters
    ----------
    data
        The data set in pieces; empty for a big object, which lies in a file already.
    future
        Where the answer goes; belongs to `loop`, or to a waiting thread where that is None.
    desk, number
        Where it goes instead, and under which number, when the instance came from another process.
    shortage
        See `model.StoreResult`.
    has_claim
        Whether the arbiter let it go ahead; it passes a second time without being asked again.
    is_safe
        Whether it is in the log, synced; it stays then, whatever its sender is told.
    is_answered
        Whether its sender was told. From then on its bytes are somebody else's: it must not be
        written any more.
    """

    description: Description
    file_meta: bytes
    data: tuple[bytes | memoryview, ...]
    size_bytes: int
    checksum: int
    header: Header
    warnings: tuple[str, ...]
    loop: asyncio.AbstractEventLoop | None
    future: asyncio.Future[StoreResult] | concurrent.futures.Future[StoreResult] | None
    shortage: str = ""
    desk: Desk | None = None
    number: int = 0
    has_claim: bool = False
    is_safe: bool = False
    is_answered: bool = False

    @property
    def uid(self) -> str:
        """SOP Instance UID."""
        return self.description.sop_instance_uid

    def mark_conflict(self) -> None:
        """Say that other content is stored under its UID."""
        self.description = replace(self.description, is_conflict=True)

    def result(self, outcome: Outcome, *more_warnings: str) -> StoreResult:
        """Return the answer that goes with an outcome."""
        return StoreResult(
            outcome,
            self.description.sop_class_uid,
            self.description.sop_instance_uid,
            self.description.study_instance_uid,
            self.description.series_instance_uid,
            (*self.warnings, *more_warnings),
            self.shortage,
        )

    @contextmanager
    def content(self, objects: LocalObjects) -> Iterator[Fragments]:
        """Give the data set, also that of a big object."""
        description = self.description
        if not description.object_container:
            yield Fragments(self.data)
            return
        with objects.incoming(description.object_container, description.object_offset) as data:
            yield data


def release(answers: Iterable[tuple[Ticket, Answer]]) -> None:
    """Hand answers to those who wait for them; from any thread."""
    by_place: dict[Desk | asyncio.AbstractEventLoop | None, list[tuple[Ticket, Answer]]] = {}
    for ticket, answer in answers:
        if ticket.is_answered:
            continue
        ticket.is_answered = True
        by_place.setdefault(ticket.desk or ticket.loop, []).append((ticket, answer))
    for place, group in by_place.items():
        if place is None:
            _resolve(group)
        elif isinstance(place, asyncio.AbstractEventLoop):
            # A loop that is closed has nobody left who waits.
            with contextlib.suppress(RuntimeError):
                place.call_soon_threadsafe(_resolve, group)
        else:
            place.answer(group)


def _resolve(group: list[tuple[Ticket, Answer]]) -> None:
    for ticket, answer in group:
        assert ticket.future is not None
        if ticket.future.done():
            continue
        if isinstance(answer, PacstewardError):
            # Each its own: an exception that is raised in several tasks collects all their frames.
            error = type(answer)(answer.what, why=answer.why, remedy=answer.remedy)
            ticket.future.set_exception(error)
        else:
            ticket.future.set_result(answer)
