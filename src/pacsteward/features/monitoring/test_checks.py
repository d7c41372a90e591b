"""The questions about work behind the scenes: who is not told, what was given up."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.support.console import PASSWORD, cheap_passwords, small_house, visitor

from pacsteward.archive import Space
from pacsteward.base.checks import Check, Finding, Status
from pacsteward.base.clock import ManualClock
from pacsteward.base.db import Database
from pacsteward.base.errors import Unavailable
from pacsteward.base.events import Dispatcher, Fact, FactLog
from pacsteward.base.events.dispatch import Subscriber
from pacsteward.base.jobs import JobKind, JobQueue, Retry
from pacsteward.base.jobs.engine import JobEngine, Work
from pacsteward.base.metrics import STALE_AFTER_S, Snapshots
from pacsteward.feature import Feature, Figure, House, HouseCheck, Page, Subscription
from pacsteward.features.monitoring.checks import (
    are_facts_told,
    do_jobs_succeed,
    do_processes_run,
    is_disk_roomy,
    is_work_started,
)
from pacsteward.features.monitoring.cli import check
from pacsteward.features.monitoring.feature import FEATURE
from pacsteward.features.monitoring.health import ask_all
from pacsteward.web import Response


@dataclass(frozen=True, slots=True)
class BellRang(Fact):
    """Something to listen to."""


def _refuse(_house: House, _fact: Fact) -> None:
    raise Unavailable("The door did not open.")


ROOM = Feature(
    name="porter",
    title="Porter",
    summary="Opens when it rings.",
    listens=(Subscription("open_door", (BellRang,), _refuse),),
)


@pytest.fixture
def house(sqlite_database: Database, clock: ManualClock) -> House:
    """Give a house whose porter listens."""
    jobs = JobQueue(sqlite_database, clock)
    return replace(small_house(sqlite_database, clock), rooms=(ROOM,), jobs=jobs)


def test_listener_that_fails_is_named_with_what_it_said(
    house: House, sqlite_database: Database, clock: ManualClock
) -> None:
    assert are_facts_told(house).status == "ok"
    dispatcher = Dispatcher(
        sqlite_database,
        [Subscriber("open_door", (BellRang,), lambda fact: _refuse(house, fact))],
        clock=clock,
    )
    with sqlite_database.write() as connection:
        FactLog(clock).append(connection, BellRang())
    dispatcher.drain()
    finding = are_facts_told(house)
    assert finding.status == "warning"
    assert "open_door" in finding.what
    assert "The door did not open." in finding.why


def test_job_that_was_given_up_is_counted(
    house: House, sqlite_database: Database, clock: ManualClock
) -> None:
    def fail() -> None:
        raise Unavailable("The peer did not answer.")

    assert do_jobs_succeed(house).status == "ok"
    kind = JobKind("forward", "Forward", retry=Retry(max_attempts=1))
    house.jobs.enqueue("forward")
    JobEngine(sqlite_database, [Work(kind, fail)], clock).drain()
    finding = do_jobs_succeed(house)
    assert finding.status == "warning"
    assert "1 of forward" in finding.what


def test_paused_work_is_not_forgotten(house: House) -> None:
    """The audit book is not sealed, or studies wait, for as long as nobody remembers."""
    assert is_work_started(house).status == "ok"
    house.jobs.pause("seal_audit_book")
    house.jobs.enqueue("forward")
    house.jobs.pause("forward")
    finding = is_work_started(house)
    assert finding.status == "warning"
    assert "forward (1 wait), seal_audit_book (0 wait)" in finding.what
    (answered,) = [one for one in ask_all(replace(house, rooms=(FEATURE,))) if one.link == "/jobs"]
    assert "pacsteward jobs resume" in answered.remedy
    for kind in ("forward", "seal_audit_book"):
        house.jobs.resume(kind)
    assert is_work_started(house).status == "ok"


def test_health_leads_nobody_where_their_role_may_not_go(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cheap_passwords(monkeypatch)
    checks = tuple(one for one in FEATURE.checks if one.check.name == "is_work_started")
    health = replace(FEATURE, figures=(), checks=checks)
    hall = replace(
        ROOM,
        pages=(
            Page("/jobs", lambda *_: Response("jobs"), "jobs.see", "Jobs"),
            Page("/hall", lambda *_: Response("hall"), "peers.see", "Hall"),
        ),
        figures=(Figure("guests", "Guests", lambda _house: 7, "/hall?are=in"),),
    )
    rooms = (health, hall)
    house = replace(house, rooms=rooms, snapshots=Snapshots(tmp_path, "web"))
    house.jobs.pause("forward")
    seen = {}
    for name, role in (("ada", "administrator"), ("probe", "machine")):
        house.access.add_person(name, PASSWORD, [role])
        console = visitor(house, *rooms).sign_in(name)
        page = console.get("/health").text.partition("<main")[2]
        assert "Guests" in page
        assert "No jobs are started of forward" in page
        seen[name] = set(re.findall(r'href="(/[^"?]*)', page))
        for link in seen[name]:
            assert console.get(link).status_code == 200, link
    assert seen == {"ada": {"/metrics", "/hall", "/jobs"}, "probe": {"/metrics"}}


@pytest.mark.parametrize(
    ("status", "is_sound"),
    [("ok", True), ("warning", True), ("unknown", False), ("critical", False)],
)
def test_command_tells_what_cannot_wait_from_what_can(
    house: House, status: Status, is_sound: bool
) -> None:
    one = HouseCheck(Check("is_it", "Is it?", "See."), lambda _house: Finding(status, "So it is."))
    room = replace(ROOM, checks=(one,))
    answers = check(replace(house, rooms=(room,)))
    assert [answered.what for answered in answers] == ["So it is."]
    assert answers.is_sound is is_sound


def test_check_that_breaks_does_not_hide_the_others(house: House) -> None:
    """The house here has no archive, so whatever asks for it breaks."""
    answers = ask_all(replace(house, rooms=(FEATURE, ROOM)))
    assert len(answers) == len(FEATURE.checks)
    assert {one.status for one in answers} == {"unknown", "ok"}
    assert answers[0].status == "unknown"
    assert answers[-1].status == "ok"
    assert all(one.remedy for one in answers if one.status == "unknown")


MIB, GIB = 1024**2, 1024**3


@dataclass(frozen=True, slots=True)
class Disk:
    """Stands for the archive: says how much room there is, and whether its keeper answers."""

    total_bytes: int
    free_bytes: int
    reserve_bytes: int
    has_keeper: bool = True

    def is_open(self) -> bool:
        return self.has_keeper

    def space(self) -> Space:
        return Space(self.total_bytes, self.free_bytes, self.reserve_bytes)


def test_process_that_gives_no_sign_is_told_with_what_stands_still(
    house: House, tmp_path: Path
) -> None:
    doors, jobs = Snapshots(tmp_path, "doors"), Snapshots(tmp_path, "jobs")
    keeper = Snapshots(tmp_path, "keeper")
    for one in (doors, jobs, keeper):
        one.write()
    roomy = Disk(100 * GIB, 60 * GIB, 2 * GIB)
    house = replace(house, snapshots=Snapshots(tmp_path, "web"), archive=roomy)  # type: ignore[arg-type]
    assert do_processes_run(house).status == "ok"
    # It was killed: the file stays, and is not renewed.
    then = time.time() - STALE_AFTER_S - 1
    os.utime(tmp_path / "metrics-doors.prom", (then, then))
    found = do_processes_run(house)
    assert (found.status, "by DIMSE" in found.what) == ("critical", True)
    assert "from doors." in found.why
    # It ended: the file went with it.
    jobs.stop()
    assert "from doors and jobs." in do_processes_run(house).why
    full = replace(house, archive=Disk(100 * GIB, 0, 2 * GIB))  # type: ignore[arg-type]
    assert do_processes_run(full).status == "unknown"
    # The disk takes nothing, though there is room: of nobody is known whether it runs.
    keeper.stop()
    found = do_processes_run(house)
    assert (found.status, "could write" in found.why) == ("unknown", True)
    # Not so when the keeper does not run either.
    alone = replace(house, archive=replace(roomy, has_keeper=False))  # type: ignore[arg-type]
    assert do_processes_run(alone).status == "critical"


@pytest.mark.parametrize(
    ("disk", "status", "what", "why"),
    [
        (Disk(600 * MIB, 8 * MIB, 12 * MIB), "critical", "8 MiB of 600 MiB are free.", "12 MiB"),
        (Disk(100 * GIB, GIB, 2 * GIB), "critical", "1.0 GiB of 100.0 GiB are free.", "2.0 GiB"),
        (Disk(100 * GIB, 3 * GIB, 2 * GIB), "warning", "3.0 GiB of 100.0 GiB are free.", "97%"),
        (Disk(100 * GIB, 60 * GIB, 2 * GIB), "ok", "60.0 GiB of 100.0 GiB are free.", ""),
    ],
)
def test_room_on_the_disk_is_told_in_units_that_fit(
    house: House, disk: Disk, status: str, what: str, why: str
) -> None:
    """Little of it must not be written as none."""
    found = is_disk_roomy(replace(house, archive=disk))  # type: ignore[arg-type]
    assert (found.status, found.what) == (status, what)
    assert why in found.why
