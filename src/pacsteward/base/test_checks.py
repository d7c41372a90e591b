"""Answers to questions about health."""

from __future__ import annotations

import logging

import pytest

from pacsteward.base.checks import Check, Finding, answer, gravity
from pacsteward.base.errors import Unavailable

CHECK = Check("is_disk_roomy", "Is there room on the disk?", "Free space.")


def test_bad_finding_without_a_remedy_takes_that_of_its_check() -> None:
    assert answer(CHECK, lambda: Finding("critical", "1 GiB is free.")).remedy == "Free space."
    own = Finding("critical", "1 GiB is free.", remedy="Add a tier.")
    assert answer(CHECK, lambda: own) == own
    fine = Finding("ok", "900 GiB are free.")
    assert answer(CHECK, lambda: fine) == fine


def test_question_that_cannot_be_answered_is_a_finding_and_quotes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def ask() -> Finding:
        raise KeyError("DOE^JANE")

    with caplog.at_level(logging.ERROR):
        finding = answer(CHECK, ask)
    assert [vars(one)["check"] for one in caplog.records] == ["is_disk_roomy"]
    assert finding.status == "unknown"
    assert finding.what == "Nobody could answer: Is there room on the disk?"
    assert "DOE" not in f"{finding}"
    assert "KeyError" in finding.why


def test_error_of_ours_is_told_as_it_is() -> None:
    def ask() -> Finding:
        raise Unavailable("The bucket did not answer.", why="Time-out after 5 s.")

    assert answer(CHECK, ask) == Finding(
        "unknown", "The bucket did not answer.", "Time-out after 5 s.", "Free space."
    )


def test_worst_comes_first_and_not_knowing_is_worse_than_a_warning() -> None:
    assert gravity("ok") < gravity("warning") < gravity("unknown") < gravity("critical")
