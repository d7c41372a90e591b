"""The promises of the job queue, on both databases, with a clock that is moved by hand."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import time as time_of_day
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from pacsteward.base.clock import ManualClock
from pacsteward.base.db import Database
from pacsteward.base.errors import Conflict, Invalid, NotFound, Unavailable
from pacsteward.base.jobs import (
    JobEngine,
    JobKind,
    JobQueue,
    JobState,
    Progress,
    Retry,
    Window,
    Work,
    this_job,
)
from pacsteward.base.jobs.store import CRASHES_AT_ONCE, CRASHES_MAX, periodic_due
from pacsteward.base.jobs.tables import JOB, JOB_KIND, JOB_WORKER

QUICK = Retry(max_attempts=3, first_delay_s=10, factor=3, max_delay_s=60)


def engine_of(
    database: Database, clock: ManualClock, run: Callable[..., Any], **kind: Any
) -> JobEngine:
    return JobEngine(database, [Work(JobKind("work", "Work", **kind), run)], clock)


def wait_until(is_true: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline, "It did not happen in time."
        time.sleep(0.01)


def test_what_is_written_beside_a_change_is_kept_with_it_or_not_at_all(
    database: Database, clock: ManualClock
) -> None:
    def refuse(_connection: object) -> None:
        raise ZeroDivisionError

    queue = JobQueue(database, clock)
    job_id = queue.enqueue("work")
    with pytest.raises(ZeroDivisionError):
        queue.cancel(job_id, also=refuse)
    assert queue.job(job_id).state is JobState.WAITING
    with pytest.raises(ZeroDivisionError):
        queue.pause("work", also=refuse)
    assert not any(one.is_paused for one in queue.kinds())
    queue.cancel(job_id)
    with pytest.raises(ZeroDivisionError):
        queue.retry(job_id, also=refuse)
    assert queue.job(job_id).state is JobState.CANCELLED


def test_job_runs_once_with_its_arguments_and_keeps_its_result(
    database: Database, clock: ManualClock
) -> None:
    seen = []

    def run(**arguments: Any) -> dict[str, int]:
        seen.append(arguments)
        return {"forwarded": 3}

    queue = JobQueue(database, clock)
    job_id = queue.enqueue("work", study="1.2.3", peers=["CT1"])
    engine = engine_of(database, clock, run)
    engine.drain()
    engine.drain()
    assert seen == [{"study": "1.2.3", "peers": ["CT1"]}]
    job = queue.job(job_id)
    assert (job.state, job.attempts, job.result) == (JobState.DONE, 1, {"forwarded": 3})
    assert (job.error, job.ended_at) == ("", clock.now())


def test_failed_job_is_tried_again_after_growing_pauses_and_then_given_up(
    database: Database, clock: ManualClock
) -> None:
    queue = JobQueue(database, clock)

    def run() -> None:
        raise Unavailable("Peer CT1 did not answer.")

    engine = engine_of(database, clock, run, retry=QUICK)
    job_id = queue.enqueue("work")
    engine.drain()
    assert queue.job(job_id).due_at == clock.now() + timedelta(seconds=10)
    engine.drain()
    assert queue.job(job_id).attempts == 1, "It was tried again before its pause was over."
    clock.advance(10)
    engine.drain()
    assert queue.job(job_id).due_at == clock.now() + timedelta(seconds=30)
    clock.advance(30)
    engine.drain()
    job = queue.job(job_id)
    assert (job.state, job.attempts) == (JobState.FAILED, 3)
    assert job.error == "Peer CT1 did not answer."
    queue.retry(job_id)
    engine.drain()
    assert queue.job(job_id).state == JobState.WAITING, "A retried job has all its attempts again."
    assert queue.job(job_id).attempts == 4


def test_hopeless_error_is_not_tried_again(database: Database, clock: ManualClock) -> None:
    def run() -> None:
        raise Invalid("The rule names no peer.")

    queue = JobQueue(database, clock)
    job_id = queue.enqueue("work")
    engine_of(database, clock, run, retry=QUICK).drain()
    assert queue.job(job_id).state == JobState.FAILED


def test_words_of_a_foreign_error_are_not_kept(database: Database, clock: ManualClock) -> None:
    """An error that is not ours may quote anything that passed through it, even a patient."""

    def run() -> None:
        raise KeyError("DOE^JANE")

    queue = JobQueue(database, clock)
    job_id = queue.enqueue("work")
    engine_of(database, clock, run).drain()
    assert queue.job(job_id).error == "KeyError"


def test_same_key_is_one_job_while_it_waits(database: Database, clock: ManualClock) -> None:
    queue = JobQueue(database, clock)
    first = queue.enqueue("work", key="1.2.3")
    assert queue.enqueue("work", key="1.2.3") == first
    assert queue.enqueue("work", key="1.2.4") != first
    assert queue.enqueue("other", key="1.2.3") != first
    assert queue.enqueue("work") != queue.enqueue("work")


def test_what_is_enqueued_while_its_key_runs_runs_afterwards(
    database: Database, clock: ManualClock
) -> None:
    """The running job may have passed what the new one is about; never both at once."""
    queue = JobQueue(database, clock)
    running = 0
    most = 0
    runs = []

    def run() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        runs.append(queue.enqueue("work", key="1.2.3") if len(runs) < 2 else "")
        time.sleep(0.05)
        running -= 1

    queue.enqueue("work", key="1.2.3")
    engine_of(database, clock, run, concurrency=4).drain()
    assert len(runs) == 3
    assert most == 1


def test_failed_job_makes_way_for_a_younger_one_of_its_key(
    database: Database, clock: ManualClock
) -> None:
    queue = JobQueue(database, clock)
    younger = ""

    def run() -> None:
        nonlocal younger
        younger = younger or queue.enqueue("work", key="1.2.3")
        raise Unavailable("Peer CT1 did not answer.")

    older = queue.enqueue("work", key="1.2.3")
    engine = engine_of(database, clock, run, retry=QUICK)
    engine.drain()
    assert queue.job(older).state == JobState.CANCELLED
    assert f"Job {younger} " in queue.job(older).error
    heir = queue.job(younger)
    assert (heir.state, heir.attempts) == (JobState.WAITING, 0)
    assert heir.due_at == clock.now() + timedelta(seconds=10)


def test_no_more_run_at_a_time_than_the_kind_allows(database: Database, clock: ManualClock) -> None:
    lock, running, most = threading.Lock(), 0, 0

    def run() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.03)
        with lock:
            running -= 1

    queue = JobQueue(database, clock)
    for _ in range(7):
        queue.enqueue("work")
    engine_of(database, clock, run, concurrency=3).drain()
    assert most == 3


def test_cancelled_waiting_job_never_runs(database: Database, clock: ManualClock) -> None:
    seen = []
    queue = JobQueue(database, clock)
    job_id = queue.enqueue("work")
    assert queue.cancel(job_id)
    assert not queue.cancel(job_id)
    engine_of(database, clock, lambda: seen.append(1)).drain()
    assert not seen
    assert queue.job(job_id).state == JobState.CANCELLED


def test_cancelled_running_job_stops_at_its_next_report(
    database: Database, clock: ManualClock
) -> None:
    queue = JobQueue(database, clock)
    reported = []

    def run() -> None:
        for number in range(10_000):
            this_job().report(number, 10_000, "instances")
            reported.append(number)
            time.sleep(0.005)

    engine = engine_of(database, clock, run)
    engine.start()
    job_id = queue.enqueue("work")
    wait_until(lambda: queue.job(job_id).progress.done > 0)
    progress = queue.job(job_id).progress
    assert (progress.total, progress.words) == (10_000, "instances")
    queue.cancel(job_id)
    wait_until(lambda: queue.job(job_id).state == JobState.CANCELLED)
    engine.stop()
    assert len(reported) < 10_000


def test_paused_kind_waits_and_goes_on(database: Database, clock: ManualClock) -> None:
    seen = []
    queue = JobQueue(database, clock)
    queue.pause("work")
    queue.enqueue("work")
    engine = engine_of(database, clock, lambda: seen.append(1))
    engine.drain()
    assert not seen
    (view,) = queue.kinds()
    assert (view.is_paused, view.waiting) == (True, 1)
    queue.resume("work")
    engine.drain()
    assert seen == [1]


def test_work_waits_for_its_window(database: Database, clock: ManualClock) -> None:
    seen = []
    queue = JobQueue(database, clock)
    local = clock.now().astimezone()
    opens = (local + timedelta(hours=2)).time()
    closes = (local + timedelta(hours=4)).time()
    engine = engine_of(database, clock, lambda: seen.append(1), window=Window(opens, closes))
    queue.enqueue("work")
    engine.drain()
    assert not seen
    clock.advance(3 * 3600)
    engine.drain()
    assert seen == [1]


def test_clock_that_is_set_back_holds_nothing_up(database: Database, clock: ManualClock) -> None:
    """A day back: what was just enqueued runs, and a retry waits no longer than its pause."""
    attempts = []

    def run() -> None:
        attempts.append(1)
        if len(attempts) == 1:
            raise Unavailable("Peer CT1 did not answer.")

    queue = JobQueue(database, clock)
    queue.enqueue("work")
    engine = engine_of(database, clock, run, retry=QUICK)
    engine.drain()
    clock.advance(-86_400)
    engine.drain()
    queue.enqueue("work")
    engine.drain()
    assert len(attempts) == 3


def test_periodic_kind_is_enqueued_once_a_period_and_not_doubled(
    database: Database, clock: ManualClock
) -> None:
    seen = []
    kind = JobKind("work", "Work", every_s=60)

    def day(seconds: int) -> None:
        clock.advance(seconds)
        # A new engine each time: the rhythm is in the database, not in a process.
        JobEngine(database, [Work(kind, lambda: seen.append(1))], clock).drain()

    day(0)
    assert len(seen) == 1
    day(59)
    assert len(seen) == 1
    day(1)
    assert len(seen) == 2
    day(600)
    assert len(seen) == 3, "Missed periods are made up for once."
    clock.advance(-86_400)
    day(61)
    assert len(seen) == 4
    with database.read() as connection:
        assert periodic_due(connection, [kind], clock.now()) == []


def test_jobs_of_a_dead_process_go_on_in_a_living_one(
    database: Database, clock: ManualClock
) -> None:
    queue = JobQueue(database, clock)
    job_id = queue.enqueue("work")
    _let_it_die_running(database, job_id, crashes=0)
    engine_of(database, clock, lambda: "again").drain()
    job = queue.job(job_id)
    assert (job.state, job.attempts, job.result) == (JobState.DONE, 2, "again")
    with database.read() as connection:
        workers = connection.execute(select(JOB_WORKER.c.worker)).scalars().all()
    assert "gone:1:abc" not in workers


def test_job_that_kills_its_process_waits_and_is_given_up_in_the_end(
    database: Database, clock: ManualClock
) -> None:
    queue = JobQueue(database, clock)
    job_id = queue.enqueue("work")
    _let_it_die_running(database, job_id, crashes=CRASHES_AT_ONCE)
    engine_of(database, clock, lambda: None).drain()
    assert queue.job(job_id).state == JobState.WAITING
    assert queue.job(job_id).due_at is not None
    _let_it_die_running(database, job_id, crashes=CRASHES_MAX)
    engine_of(database, clock, lambda: None).drain()
    assert queue.job(job_id).state == JobState.FAILED


def test_ended_process_hands_its_jobs_back_without_blame(
    database: Database, clock: ManualClock
) -> None:
    def run() -> None:
        while True:
            this_job().report(1)
            time.sleep(0.01)

    queue = JobQueue(database, clock)
    job_id = queue.enqueue("work")
    engine = engine_of(database, clock, run, retry=Retry(max_attempts=1))
    engine.start()
    wait_until(lambda: queue.job(job_id).state == JobState.RUNNING)
    engine.stop()
    job = queue.job(job_id)
    assert (job.state, job.error) == (JobState.WAITING, "")
    with database.read() as connection:
        assert connection.execute(select(JOB_WORKER)).all() == []


def test_worker_that_lost_its_job_to_another_writes_nothing_about_it(
    database: Database, clock: ManualClock
) -> None:
    queue = JobQueue(database, clock)
    job_id = queue.enqueue("work")

    def run() -> str:
        with database.write() as connection:
            connection.execute(update(JOB).values(worker="other:1:abc", attempts=2))
        return "mine"

    engine_of(database, clock, run).drain()
    job = queue.job(job_id)
    assert (job.state, job.worker, job.result) == (JobState.RUNNING, "other:1:abc", None)


def test_queue_is_listed_newest_first_by_kind_and_state(
    database: Database, clock: ManualClock
) -> None:
    queue = JobQueue(database, clock)
    jobs = [queue.enqueue("work", number=number) for number in range(3)]
    queue.enqueue("other")
    queue.cancel(jobs[0])
    assert [job.job_id for job in queue.jobs(kind="work")] == jobs[::-1]
    assert [job.job_id for job in queue.jobs(kind="work", states=[JobState.WAITING])] == [
        jobs[2],
        jobs[1],
    ]
    assert [job.job_id for job in queue.jobs(kind="work", limit=1, offset=1)] == [jobs[1]]
    counted = {view.kind: view.waiting for view in queue.kinds()}
    assert counted == {"work": 2, "other": 1}
    assert queue.job(jobs[1]).progress == Progress()


@pytest.mark.parametrize("job_id", ["4711", "x", "", "9" * 40, "-1"])
def test_unknown_job_is_not_found(database: Database, clock: ManualClock, job_id: str) -> None:
    queue = JobQueue(database, clock)
    for ask in (queue.job, queue.cancel, queue.retry):
        with pytest.raises(NotFound) as caught:
            ask(job_id)
        assert "jobs list --ended" in caught.value.remedy


def test_impossible_requests_are_refused(database: Database, clock: ManualClock) -> None:
    queue = JobQueue(database, clock, kinds=[JobKind("work", "Work")])
    with pytest.raises(Invalid, match="wrok"):
        queue.enqueue("wrok")
    with pytest.raises(Invalid):
        queue.enqueue("work", when=clock.now())
    with pytest.raises(Invalid):
        queue.enqueue("work", text="x" * 300_000)
    done = queue.enqueue("work")
    engine_of(database, clock, lambda: None).drain()
    with pytest.raises(Conflict):
        queue.retry(done)


def test_old_jobs_are_swept(database: Database, clock: ManualClock) -> None:
    queue = JobQueue(database, clock)
    done = queue.enqueue("work")
    engine_of(database, clock, lambda: None).drain()
    clock.advance(6 * 86_400)
    engine_of(database, clock, lambda: None).drain()
    assert [job.job_id for job in queue.jobs()] == [done]
    clock.advance(2 * 86_400)
    engine_of(database, clock, lambda: None).drain()
    assert queue.jobs() == []


def test_two_engines_share_the_work_and_never_double_it(
    database: Database, clock: ManualClock
) -> None:
    lock, seen = threading.Lock(), []

    def run(number: int) -> None:
        with lock:
            seen.append(number)

    queue = JobQueue(database, clock)
    engines = [engine_of(database, clock, run, concurrency=3) for _ in range(2)]
    for engine in engines:
        engine.start()
    jobs = [queue.enqueue("work", number=number) for number in range(40)]
    wait_until(lambda: len(queue.jobs(states=[JobState.DONE], limit=100)) == len(jobs))
    for engine in engines:
        engine.stop()
    assert sorted(seen) == list(range(40))


@pytest.mark.parametrize(
    ("opens", "closes", "moment", "is_open"),
    [
        ((8, 0), (18, 0), (7, 59), False),
        ((8, 0), (18, 0), (8, 0), True),
        ((8, 0), (18, 0), (18, 0), False),
        ((22, 0), (6, 0), (23, 0), True),
        ((22, 0), (6, 0), (5, 59), True),
        ((22, 0), (6, 0), (6, 0), False),
    ],
)
def test_window_may_span_midnight(
    clock: ManualClock,
    opens: tuple[int, int],
    closes: tuple[int, int],
    moment: tuple[int, int],
    is_open: bool,
) -> None:
    window = Window(time_of_day(*opens), time_of_day(*closes))
    now = clock.now().astimezone().replace(hour=moment[0], minute=moment[1])
    assert window.is_open(now) is is_open


def test_night_belongs_to_the_day_on_which_its_window_opened(clock: ManualClock) -> None:
    friday = clock.now().astimezone().replace(year=2026, month=1, day=2, hour=23)
    window = Window(time_of_day(22), time_of_day(6), weekdays=frozenset({4}))
    assert window.is_open(friday)
    assert window.is_open(friday + timedelta(hours=5))
    assert not window.is_open(friday + timedelta(hours=24))


def test_pause_never_overflows() -> None:
    retry = Retry(max_attempts=10**9, first_delay_s=1, factor=10, max_delay_s=60)
    assert retry.delay_s(10**8) == 60


def _let_it_die_running(database: Database, job_id: str, *, crashes: int) -> None:
    """Leave a job as a killed process does: running, its worker signed on."""
    with database.write() as connection:
        connection.execute(
            update(JOB)
            .where(JOB.c.job_id == int(job_id))
            .values(state="running", worker="gone:1:abc", attempts=1, crashes=crashes)
        )
        if connection.execute(select(JOB_KIND)).first() is None:
            connection.execute(JOB_KIND.insert().values(kind="work"))
