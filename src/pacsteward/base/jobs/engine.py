"""Runs jobs: one loop that writes, and a thread for each job that runs.

The loop, every fifth of a second or when something happens, writes down what has ended, takes new
jobs, and now and then shows that it lives, looks for cancelled jobs, keeps progress, adopts the
jobs of workers that are gone, enqueues periodic kinds and sweeps old rows. Only the loop writes, so
a database that is away for a while holds it up and breaks nothing: what has ended is remembered
until it can be written.

What is written while jobs run need not survive a power cut, since a job that is forgotten to have
run, runs again; only enqueuing is synced.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from pacsteward.base import log
from pacsteward.base.clock import Clock, SystemClock
from pacsteward.base.db import Database
from pacsteward.base.errors import PacstewardError
from pacsteward.base.jobs import store
from pacsteward.base.jobs.kinds import JobKind
from pacsteward.base.jobs.model import CURRENT_JOB, JobCancelled, Progress
from pacsteward.base.jobs.queue import ensure_kinds
from pacsteward.base.jobs.roster import BEAT_EVERY_S, Roster

logger = logging.getLogger(__name__)

THREADS_MAX = 32
"""Jobs that run at the same time in one process, whatever their kinds allow."""

WATCH_EVERY_S = 0.5
"""How often running jobs are looked after: cancelled? progress?"""

SWEEP_EVERY_S = 3600.0

RESULT_MAX_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Work:
    """A kind of work and the function that does it: ``run(**arguments)``."""

    kind: JobKind
    run: Callable[..., Any]


class JobEngine:
    """Runs the jobs of a database; one in the jobs process, any number of processes.

    Parameters
    ----------
    database, clock
        Where the jobs are, and the time. Only what is due goes by `clock`; the rhythm of the loop
        is real time, also on a simulated day.
    works
        What can be run. Jobs of other kinds are left to wait.
    poll_s
        How often new jobs are looked for.
    """

    def __init__(
        self,
        database: Database,
        works: Iterable[Work],
        clock: Clock | None = None,
        *,
        poll_s: float = 0.2,
    ) -> None:
        self._database = database
        self._clock = clock or SystemClock()
        self._works = {work.kind.name: work for work in works}
        self._kinds = {name: work.kind for name, work in self._works.items()}
        self._poll_s = poll_s
        self._roster = Roster(self._clock)
        self._running: dict[int, _Run] = {}
        self._ended: deque[_Run] = deque()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._next_at = {"beat": 0.0, "watch": 0.0, "periodic": 0.0, "sweep": 0.0}
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Sign on, adopt what dead processes left behind, and begin, in threads.

        Raises
        ------
        Unavailable
            The database did not answer.
        """
        with self._database.write() as connection:
            ensure_kinds(connection, self._kinds)
            self._roster.sign_on(connection)
        self._thread = threading.Thread(target=self._loop, name="jobs", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float = 8.0) -> None:
        """Start nothing more, let running jobs stop at their next report, hand them back.

        What has not stopped in time is adopted by the next process.
        """
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def drain(self, timeout_s: float = 30.0) -> None:
        """Run what can run now in an engine that was not started, and return; for tests.

        Raises
        ------
        TimeoutError
            Jobs were still running after `timeout_s`.
        """
        if not self._roster.worker:
            with self._database.write() as connection:
                ensure_kinds(connection, self._kinds)
                self._roster.sign_on(connection)
        deadline = time.monotonic() + timeout_s
        self._housekeep()
        while self._write_ended() or self._start_jobs() or self._running or self._ended:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(self._running)} jobs are still running.")
            self._wake.wait(0.05)
            self._wake.clear()
            self._housekeep()

    def _loop(self) -> None:
        while True:
            try:
                self._housekeep()
                self._write_ended()
                if self._stopping.is_set():
                    if self._is_done_stopping():
                        return
                else:
                    self._start_jobs()
                pause_s = self._poll_s
            except PacstewardError as error:
                logger.warning("Jobs cannot be read or written.", extra={"error": error.what})
                pause_s = 1.0
            except Exception:
                # Nothing else would start the loop again, and all work would stand still.
                logger.exception("The job engine failed; it goes on.")
                pause_s = 1.0
            self._wake.wait(pause_s)
            self._wake.clear()

    def _start_jobs(self) -> bool:
        places = THREADS_MAX - len(self._running)
        if places <= 0:
            return False
        now = self._clock.now()
        kinds = {
            name: kind
            for name, kind in self._kinds.items()
            if kind.window is None or kind.window.is_open(now)
        }
        with self._database.read() as connection:
            free = store.startable(connection, kinds, now)
        if not free:
            return False
        with self._database.write(durable=False) as connection:
            rows = store.claim(
                connection,
                {name: kinds[name] for name in free},
                worker=self._roster.worker,
                now=now,
                limit=places,
            )
        for row in rows:
            held = store.Held(row.job_id, row.attempts + 1, self._roster.worker)
            run = _Run(held, self._works[row.kind], json.loads(row.arguments), row.failures)
            self._running[row.job_id] = run
            threading.Thread(
                target=self._run, args=(run,), name=f"job-{row.kind}-{row.job_id}", daemon=True
            ).start()
        return bool(rows)

    def _run(self, run: _Run) -> None:
        """Do the work of one job; the only thing that happens outside the loop's thread."""
        CURRENT_JOB.set(run)
        with log.context(job_id=run.job_id, job_kind=run.kind.name):
            run.do()
        self._ended.append(run)
        self._wake.set()

    def _write_ended(self) -> bool:
        """Write down what has ended, all in one transaction; say whether there was anything."""
        ended = list(self._ended)
        if not ended:
            return False
        with self._database.write(durable=False) as connection:
            for run in ended:
                if not self._write_outcome(connection, run):
                    logger.warning("A job was not ours any more.", extra={"job_id": run.job_id})
        for run in ended:
            self._ended.popleft()
            del self._running[run.held.job_id]
        return True

    def _write_outcome(self, connection: Connection, run: _Run) -> bool:
        now, held = self._clock.now(), run.held
        if run.error is None:
            return store.finish(connection, held, now, run.result)
        if store.is_cancelled(connection, held):
            return store.stop(connection, held, now)
        if isinstance(run.error, JobCancelled):
            # Nobody cancelled it: it was told to stop because the process ends.
            return store.hand_back(connection, held, now)
        delay_s = run.kind.retry.delay_s(run.failures + 1, run.error)
        return store.fail(connection, held, now, run.words, delay_s)

    def _housekeep(self) -> None:
        if self._is_time_to("watch", WATCH_EVERY_S):
            self._look_after_running()
        if self._stopping.is_set():
            for run in list(self._running.values()):
                run.must_stop = True
            return
        if self._is_time_to("beat", BEAT_EVERY_S):
            self._beat_and_adopt()
        if self._is_time_to("periodic", 1.0):
            self._enqueue_periodic()
        if self._is_time_to("sweep", SWEEP_EVERY_S):
            with self._database.write(durable=False) as connection:
                store.sweep(connection, self._clock.now())

    def _is_time_to(self, what: str, every_s: float) -> bool:
        now = time.monotonic()
        if now < self._next_at[what]:
            return False
        self._next_at[what] = now + every_s
        return True

    def _look_after_running(self) -> None:
        runs = list(self._running.values())
        if not runs:
            return
        with self._database.read() as connection:
            stopped = store.to_be_stopped(connection, [run.held for run in runs])
        for run in runs:
            if run.held.job_id in stopped:
                run.must_stop = True
        reports = [(run.held, run.progress) for run in runs if run.take_news()]
        if reports:
            with self._database.write(durable=False) as connection:
                store.note_progress(connection, reports)

    def _beat_and_adopt(self) -> None:
        with self._database.write(durable=False) as connection:
            self._roster.beat(connection)
            gone = self._roster.gone(connection)
            adopted = store.adopt(connection, gone, self._clock.now())
            if gone:
                self._roster.remove(connection, gone)
        if adopted:
            logger.warning(
                "Jobs of a process that ended wait again.",
                extra={"job_ids": adopted[:20], "jobs": len(adopted)},
            )

    def _enqueue_periodic(self) -> None:
        now = self._clock.now()
        with self._database.read() as connection:
            due = store.periodic_due(connection, self._kinds.values(), now)
        for kind in due:
            with self._database.write() as connection:
                store.enqueue_periodic(connection, kind, now)

    def _is_done_stopping(self) -> bool:
        if self._running:
            return False
        with self._database.write(durable=False) as connection:
            self._roster.sign_off(connection)
        return True


class _Run:
    """One job while it runs; what `this_job` gives to its work."""

    def __init__(
        self, held: store.Held, work: Work, arguments: dict[str, Any], failures: int
    ) -> None:
        self.held = held
        self.kind = work.kind
        self.failures = failures
        self.progress = Progress()
        self.must_stop = False
        self.result: str | None = None
        self.error: BaseException | None = None
        self.words = ""
        self._run = work.run
        self._arguments = arguments
        self._has_news = False

    @property
    def job_id(self) -> str:
        """Id of the job."""
        return str(self.held.job_id)

    @property
    def attempt(self) -> int:
        """Which attempt this is, counted from 1."""
        return self.held.attempt

    def report(self, done: int, total: int = 0, words: str = "") -> None:
        """Say how far the work is; raises `JobCancelled` when it has to stop."""
        if self.must_stop:
            raise JobCancelled
        self.progress = Progress(done, total, words[:200])
        self._has_news = True

    def take_news(self) -> bool:
        """Say whether something was reported since this was asked last."""
        had, self._has_news = self._has_news, False
        return had

    def do(self) -> None:
        """Do the work and remember how it ended."""
        try:
            self.result = self._as_json(self._run(**self._arguments))
        except JobCancelled as error:
            self.error = error
        except PacstewardError as error:
            self.error, self.words = error, str(error)
            logger.warning("A job failed.", extra={"attempt": self.attempt, "error": self.words})
        except BaseException as error:
            # All of them: a thread has nobody above it to tell.
            # The words of an error that is not ours may quote anything, even a patient.
            self.error, self.words = error, type(error).__name__
            logger.exception("A job failed.", extra={"attempt": self.attempt})

    def _as_json(self, value: Any) -> str | None:
        """Keep what the work returned; work that is done must not fail because of its report."""
        if value is None:
            return None
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError):
            logger.error(
                "What a job returned is no JSON value.", extra={"type": type(value).__name__}
            )
            return None
        if len(text) > RESULT_MAX_BYTES:
            logger.error("What a job returned is too long.", extra={"size": len(text)})
            return None
        return text
