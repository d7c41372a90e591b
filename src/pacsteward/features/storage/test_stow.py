"""What the sender of a STOW-RS request is told."""

from __future__ import annotations

import pytest

from pacsteward.archive import Outcome, StoreResult
from pacsteward.base.errors import Exhausted, Invalid, PacstewardError, Unavailable
from pacsteward.features.storage.stow import (
    Failed,
    Stored,
    Verdict,
    http_status,
    remarks,
    response_data_set,
)


def stored(uid: str = "1.2.3", *, study: str = "1.2.1", warning: int = 0) -> Stored:
    return Stored(
        StoreResult(Outcome.STORED, "1.2.840.10008.5.1.4.1.1.2", uid, study, "1.2.2"), warning
    )


def failed(error: PacstewardError, reason: int = 0xA900, uid: str = "1.2.4") -> Failed:
    return Failed(reason, error, "1.2.840.10008.5.1.4.1.1.2" if uid else "", uid)


BAD = Invalid("It was not stored.", why="It is cut short.")
FULL = Exhausted("The disk is full.")
AWAY = Unavailable("The keeper is away.")


@pytest.mark.parametrize(
    ("verdicts", "status"),
    [
        ([stored()], 200),
        ([stored(), stored("1.2.5")], 200),
        ([stored(), failed(BAD)], 202),
        ([stored(warning=0xB000)], 202),
        ([failed(BAD)], 409),
        ([failed(BAD), failed(FULL)], 409),
        ([failed(FULL), failed(FULL)], 507),
        ([failed(FULL), failed(AWAY)], 503),
        ([stored(), failed(FULL)], 202),
    ],
)
def test_c66_the_status_says_how_much_was_kept(verdicts: list[Verdict], status: int) -> None:
    assert http_status(verdicts) == status


def test_c66_what_was_kept_and_what_failed_are_listed_with_their_addresses() -> None:
    answer = response_data_set(
        [stored(), failed(BAD, 0xA901), failed(BAD, 0xC000, uid="")], "https://x/dicom-web"
    )
    assert answer["00081190"]["Value"] == ["https://x/dicom-web/studies/1.2.1"]
    (kept,) = answer["00081199"]["Value"]
    assert kept["00081190"]["Value"] == [
        "https://x/dicom-web/studies/1.2.1/series/1.2.2/instances/1.2.3"
    ]
    (refused,) = answer["00081198"]["Value"]
    assert refused["00081155"]["Value"] == ["1.2.4"]
    assert refused["00081197"]["Value"] == [43265]
    (other,) = answer["0008119A"]["Value"]
    assert other == {"00081197": {"vr": "US", "Value": [0xC000]}}


def test_c66_nothing_is_listed_as_failed_when_nothing_did() -> None:
    answer = response_data_set([stored()], "https://x/dicom-web")
    assert set(answer) == {"00081190", "00081199"}


def test_c67_a_conflict_is_a_warning_with_a_defined_reason() -> None:
    answer = response_data_set([stored(warning=0xB000)], "https://x/dicom-web")
    assert answer["00081199"]["Value"][0]["00081196"]["Value"] == [45056]


def test_instances_of_several_studies_have_no_common_address() -> None:
    answer = response_data_set([stored(), stored("1.2.9", study="1.2.8")], "https://x/dicom-web")
    assert "00081190" not in answer


def test_reasons_are_said_in_words_once() -> None:
    assert remarks([failed(BAD), failed(BAD), failed(FULL), stored()]) == (
        "It is cut short.",
        "The disk is full.",
    )
