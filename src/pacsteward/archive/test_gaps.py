"""R10: a UID that the index has is never taken for a new one."""

from __future__ import annotations

import random
from bisect import bisect_left
from pathlib import Path

import pytest

from pacsteward.archive import gaps
from pacsteward.archive.fixtures.sender import SMALL, data_set, running
from pacsteward.archive.gaps import Gap, Gaps
from pacsteward.archive.known import TakenUids
from pacsteward.archive.model import Outcome
from pacsteward.archive.tables import CONFLICT, INSTANCE
from pacsteward.base.db import Database


def test_what_lies_between_two_neighbours_and_did_not_come_since_is_new() -> None:
    known = Gaps(lambda: [])
    assert not known.has("1.2", "1.2.5")
    known.learn("1.2", Gap("1.2.4", "1.2.7"), known.now())
    assert known.has("1.2", "1.2.5")
    assert not known.has("1.2", "1.2.4")
    assert not known.has("1.2", "1.2.7")
    assert not known.has("1.3", "1.2.5")
    known.let_through(["1.2.5"])
    assert not known.has("1.2", "1.2.5")
    assert known.has("1.2", "1.2.6")


def test_whatever_the_order_nothing_that_is_stored_is_called_new(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """UIDs come again, under other series too, before, while and after they are indexed."""
    monkeypatch.setattr(gaps, "REMEMBERED_MAX", 7)
    chance = random.Random(7)
    index: list[str] = []
    on_their_way: list[str] = []
    known = Gaps(lambda: list(on_their_way))
    called_new = 0
    for _ in range(20_000):
        if chance.random() < 0.01:
            index.clear()
        uid, series = f"1.{chance.randrange(300)}", f"2.{chance.randrange(3)}"
        if uid in on_their_way:
            # The arbiter has it wait for the other one.
            continue
        is_new = known.has(series, uid)
        assert not (is_new and uid in index)
        called_new += is_new
        if not is_new and uid in index:
            continue
        if not is_new:
            place = bisect_left(index, uid)
            below = index[place - 1] if place else ""
            above = index[place] if place < len(index) else "~"
            known.learn(series, Gap(below, above), known.now())
        on_their_way.append(uid)
        known.let_through([uid])
        while on_their_way and chance.random() < 0.6:
            index.append(on_their_way.pop(0))
            index.sort()
    assert called_new > 1000


def test_the_index_says_between_which_neighbours_a_uid_lies(
    tmp_path: Path, database: Database
) -> None:
    with running(tmp_path, database) as house:
        house.store(data_set("1.20"), "1.20")
        house.store(data_set("1.40"), "1.40")
        house.wait()
        taken = TakenUids(database)
        found, around = taken.among(["1.10", "1.20", "1.30", "1.50"])
        taken.close()
    assert found == {"1.20"}
    assert around == {
        "1.10": Gap("", "1.20"),
        "1.30": Gap("1.20", "1.40"),
        "1.50": Gap("1.40", "~"),
    }


def test_a_uid_that_came_again_through_a_known_gap_is_compared(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gaps, "REMEMBERED_MAX", 5)
    with running(tmp_path, database, SMALL) as house:
        for number in range(10, 30):
            assert house.store(data_set(f"1.{number}"), f"1.{number}").outcome is Outcome.STORED
        for number in range(10, 30):
            if number % 5 == 0:
                house.wait()
            uid = f"1.{number}"
            assert house.store(data_set(uid), uid).outcome is Outcome.ALREADY_HERE
            assert house.store(data_set(uid, number=9), uid).outcome is Outcome.CONFLICT
        house.wait()
        assert len(house.rows(INSTANCE)) == 20
        assert len(house.rows(CONFLICT)) == 20


def test_a_gap_of_an_index_that_others_write_to_is_good_for_a_moment() -> None:
    now = 100.0
    known = Gaps(lambda: [], good_for_s=1.0, now=lambda: now)
    asked_at = known.now()
    # However long the answer takes.
    now = 100.5
    known.learn("1.2", Gap("1.2.4", "1.2.7"), asked_at)
    now = 100.9
    assert known.has("1.2", "1.2.5")
    now = 101.0
    assert not known.has("1.2", "1.2.5")
    known.learn("1.2", Gap("1.2.5", "1.2.7"), known.now())
    assert known.has("1.2", "1.2.6")


def test_series_are_forgotten_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """One UID that never stays in the index may come under ever new series."""
    monkeypatch.setattr(gaps, "REMEMBERED_MAX", 50)
    known = gaps.Gaps(list)
    for number in range(1000):
        known.learn(f"1.{number}", gaps.Gap("", "~"), known.now())
        known.let_through(["1.2"])
    assert len(known._of_series) <= 51
