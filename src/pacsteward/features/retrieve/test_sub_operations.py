"""Promises of sub_operations.py: every instance is counted once, and the end is told truly."""

from __future__ import annotations

import pytest

from pacsteward.dicom.dimse import SubOperations
from pacsteward.dicom.identifier import read_identifier
from pacsteward.features.retrieve.sub_operations import Tally

IMPLICIT = "1.2.840.10008.1.2"


def tally(*statuses: int, total: int | None = None) -> Tally:
    made = Tally(total=len(statuses) if total is None else total)
    for number, status in enumerate(statuses, start=1):
        made.record(f"1.2.{number}", status)
    return made


@pytest.mark.parametrize(
    ("statuses", "final"),
    [
        ((), 0x0000),
        ((0, 0), 0x0000),
        ((0, 0xB000), 0xB000),
        ((0xB000, 0xB007), 0xB000),
        ((0, 0xA700), 0xB000),
        ((0xB000, 0xA700), 0xB000),
        ((0xA700, 0xC000), 0xA702),
        ((0x0111, 0x0111), 0xB000),
        ((0x0122, 0x0111), 0xB000),
    ],
)
def test_c85_the_final_status_says_whether_all_some_or_none_arrived(
    statuses: tuple[int, ...], final: int
) -> None:
    assert tally(*statuses).final(IMPLICIT).status == final


def test_c83_pending_answers_count_what_remains_and_final_ones_do_not() -> None:
    half = tally(0, 0xB000, 0xA700, total=8)
    pending = half.pending()
    assert pending.status == 0xFF00
    assert pending.sub_operations == SubOperations(5, 1, 1, 1)
    assert pending.data_set is None
    assert tally(0, 0xB000, 0xA700).final(IMPLICIT).sub_operations == SubOperations(None, 1, 1, 1)


def test_a_cancelled_retrieve_tells_how_far_it_had_come() -> None:
    answer = tally(0, 0xA700, total=5).cancelled(IMPLICIT)
    assert answer.status == 0xFE00
    assert answer.sub_operations == SubOperations(3, 1, 1, 0)


def test_c85_what_failed_is_listed_and_the_first_reason_is_told() -> None:
    made = Tally(total=3)
    made.record("1.2.1", 0xA700, "Disk full")
    made.fail("1.2.2", "Cannot be decoded")
    made.record("1.2.3", 0)
    answer = made.final(IMPLICIT)
    assert answer.comment == "Disk full"
    assert answer.data_set is not None
    assert read_identifier(answer.data_set, IMPLICIT).keys == {0x00080058: "1.2.1\\1.2.2"}


def test_a_failure_without_words_is_told_by_its_number() -> None:
    assert tally(0xA700).final(IMPLICIT).comment == "Status A700"


def test_nothing_failed_means_no_identifier() -> None:
    assert tally(0, 0xB000).final(IMPLICIT).data_set is None


def test_c93_a_duplicate_is_there_and_so_not_failed() -> None:
    made = tally(0x0111)
    assert (made.completed, made.warning, made.failed) == (0, 1, 0)
