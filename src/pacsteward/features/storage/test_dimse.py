"""Promises of dimse.py: which status a sender hears, and why."""

from __future__ import annotations

import asyncio

import pytest

from pacsteward.archive import DoesNotMatch, Incoming, Outcome, StoreResult
from pacsteward.base.errors import (
    Broken,
    Exhausted,
    Invalid,
    PacstewardError,
    Unavailable,
    Unsupported,
)
from pacsteward.dicom.dimse import Answer
from pacsteward.features.storage.dimse import StoreSink, answer_for, refusal
from pacsteward.features.storage.settings import StorageSettings


def result(outcome: Outcome = Outcome.STORED, *warnings: str) -> StoreResult:
    return StoreResult(outcome, "1.2.840.10008.5.1.4.1.1.2", "1.3", "1.1", "1.2", warnings)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (DoesNotMatch("No.", why="Another one."), 0xA900),
        (Invalid("No.", why="Cut short."), 0xC000),
        (Exhausted("No.", why="Full."), 0xA700),
        (Unavailable("No.", why="Away."), 0xA700),
        (Unsupported("No.", why="What is that?"), 0x0122),
        (Broken("No.", why="Our fault."), 0x0110),
    ],
)
def test_f038_every_kind_of_refusal_has_its_own_status_and_its_reason(
    error: PacstewardError, status: int
) -> None:
    assert refusal(error) == Answer(status, comment=error.why)


def test_a_refusal_without_a_reason_says_what_happened() -> None:
    assert refusal(Invalid("Not stored.")).comment == "Not stored."


@pytest.mark.parametrize("outcome", [Outcome.STORED, Outcome.ALREADY_HERE])
def test_c93_doubt_is_a_plain_success_unless_the_site_asks_for_warnings(outcome: Outcome) -> None:
    doubtful = result(outcome, "No patient ID")
    assert answer_for(doubtful, StorageSettings()).status == 0
    warned = answer_for(doubtful, StorageSettings(warn_on_doubt=True))
    assert (warned.status, warned.comment) == (0xB000, "No patient ID")


def test_c93_a_conflict_is_always_a_warning() -> None:
    assert answer_for(result(Outcome.CONFLICT), StorageSettings()).status == 0xB000


class Failing:
    """An instance that the archive does not take in the end."""

    def write(self, fragment: memoryview) -> None: ...

    def is_behind(self) -> bool:
        return False

    async def catch_up(self) -> None: ...

    def abandon(self) -> None: ...

    async def finish(self) -> StoreResult:
        raise Exhausted("The instance was not stored.", why="The disk is full.")


def test_a_refusal_at_the_end_is_an_answer_too() -> None:
    incoming: Incoming = Failing()
    answer = asyncio.run(StoreSink(incoming, StorageSettings()).finish())
    assert (answer.status, answer.comment) == (0xA700, "The disk is full.")
