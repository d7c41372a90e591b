"""R1 and R2 in short: killed in mid-ingest, nothing that was acknowledged is lost."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from prove.kills import kill_at, random_kills
from prove.sites import sending, site

from prove import kills
from tests.support.postgres import new_database

pytestmark = [pytest.mark.journey, pytest.mark.timeout(600)]


def test_r1_ten_kills_in_mid_ingest_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    with site(tmp_path) as place, sending(place.load):
        random_kills(place, 10, 300, random.Random(1), lambda _line: None)
        place.load.pause()
        place.survey_all()
        assert place.findings.is_clean, place.findings.examples()
        assert not place.load.surprises
        assert len(place.load.acknowledged) >= 300
        place.load.resume()
        assert place.product.stop() == 0


def test_r1_kills_in_mid_ingest_lose_nothing_on_postgresql(
    tmp_path: Path, postgres_server: str
) -> None:
    with site(tmp_path, new_database(postgres_server)) as place, sending(place.load):
        random_kills(place, 2, 60, random.Random(2), lambda _line: None)
        place.load.pause()
        place.survey_all()
        assert place.findings.is_clean, place.findings.examples()


@pytest.mark.parametrize(("point", "number"), [("before-answer", 20), ("after-open", 2)])
def test_r2_killed_at_a_named_place_under_load_and_while_starting(
    tmp_path: Path, point: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kills, "REACH_TIMEOUT_S", 60.0)
    with site(tmp_path) as place, sending(place.load):
        place.load.await_acknowledged(20)
        was_hit, was_ready = kill_at(place, point, number)
        assert was_hit
        assert was_ready == (point == "before-answer")
        place.load.await_acknowledged(20)
        place.load.pause()
        place.survey_all()
        assert place.findings.is_clean, place.findings.examples()
