"""What the retrieve room does when a study is complete."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from pacsteward.archive import StudyCompleted
from pacsteward.base.clock import ManualClock
from pacsteward.base.db import Database
from pacsteward.base.errors import NotFound
from pacsteward.base.events import Dispatcher, FactLog, Subscriber
from pacsteward.features.retrieve.listen import prepare_metadata


def test_a_study_that_is_gone_does_not_hold_up_the_others(
    sqlite_database: Database, clock: ManualClock
) -> None:
    prepared: list[str] = []

    def prepare(uid: str) -> None:
        if uid == "1.2":
            raise NotFound(f"Study {uid} was not found.")
        prepared.append(uid)

    house: Any = SimpleNamespace(archive=SimpleNamespace(prepare_metadata=prepare))
    with sqlite_database.write() as connection:
        FactLog(clock).append(connection, *(StudyCompleted(uid, 1, 1) for uid in ("1.2", "1.3")))
    subscriber = Subscriber(
        "prepare_metadata", (StudyCompleted,), lambda fact: prepare_metadata(house, fact)
    )
    Dispatcher(sqlite_database, [subscriber], clock=clock).drain()
    assert prepared == ["1.3"]
