"""Failures and delays at named places in short: refusals at most, and nothing lost."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from prove.faulty_places import strike, wrong_answers
from prove.sites import sending, site

pytestmark = [pytest.mark.journey, pytest.mark.timeout(600)]


def test_failures_and_delays_at_named_places_cost_refusals_and_nothing_else(tmp_path: Path) -> None:
    with site(tmp_path) as place, sending(place.load):
        for point, deed in (
            ("after-write", "eio"),
            ("before-answer", "eio"),
            ("after-fsync", "wait"),
        ):
            struck = strike(place, point, deed, 3, random.Random(1))
            assert struck.strikes >= 3
            assert struck.processes_ended == 0
        place.load.pause()
        place.survey_all()
        assert place.findings.is_clean, place.findings.examples()
        assert not place.load.surprises
        assert not wrong_answers(place.load)
        assert "dimse A700" in place.load.statuses()
