"""What the tests of this room share: a house in which one kind of work always fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from tests.support.console import PASSWORD, Visitor, cheap_passwords, small_house, visitor

from pacsteward.base.clock import SystemClock
from pacsteward.base.db import Database
from pacsteward.base.errors import Invalid
from pacsteward.base.jobs import JobEngine, JobKind, JobQueue, Work
from pacsteward.feature import Feature, House, Job
from pacsteward.features.jobs.feature import FEATURE

STUDY = "1.2.826.0.1.77"


def _send(_house: House, *, study_instance_uid: str, destination: str) -> None:
    raise Invalid(f"Study {study_instance_uid} was not sent to <b>{destination}</b>.")


def _count(_house: House, **_arguments: Any) -> dict[str, int]:
    return {"counted": 7}


ROOM = Feature(
    name="sending",
    title="Sending",
    summary="Sends.",
    jobs=(
        Job(JobKind("send_study", "Send a study"), _send),
        Job(JobKind("count_things", "Count things"), _count),
    ),
)


@pytest.fixture
def house(sqlite_database: Database, monkeypatch: pytest.MonkeyPatch) -> House:
    """Give a house with an administrator, ada, and an auditor, tom."""
    cheap_passwords(monkeypatch)
    clock = SystemClock()
    house = replace(
        small_house(sqlite_database, clock),
        jobs=JobQueue(sqlite_database, clock, kinds=[job.kind for job in ROOM.jobs]),
        rooms=(FEATURE, ROOM),
    )
    house.access.add_person("ada", PASSWORD, ["administrator"])
    house.access.add_person("tom", PASSWORD, ["auditor"])
    return house


@pytest.fixture
def run_all(house: House) -> Callable[[], None]:
    """Give what runs all jobs that are due, as the jobs process does."""

    def run() -> None:
        works = [Work(job.kind, partial(job.run, house)) for job in ROOM.jobs]
        JobEngine(house.database, works, house.clock).drain()

    return run


@pytest.fixture
def failed(house: House, run_all: Callable[[], None]) -> str:
    """Give the number of a job that was given up."""
    job_id = house.jobs.enqueue("send_study", study_instance_uid=STUDY, destination="CT1")
    run_all()
    return job_id


@pytest.fixture
def console(house: House) -> Visitor:
    """Give the console of that house."""
    return visitor(house, FEATURE)
