"""A jobs process that is killed loses nothing: a real process, a real SIGKILL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from pacsteward.base.db import Database, open_database
from pacsteward.base.jobs import JobQueue, JobState

WORKER = """
import sys, time
from pathlib import Path
from pacsteward.base.db import open_database
from pacsteward.base.jobs import JobEngine, JobKind, Retry, Work, roster, store

# Whoever waits until a worker has been silent for long enough waits for ever here.
roster.GONE_AFTER_S = store.CRASH_PAUSE_S = 3600.0

folder = Path(sys.argv[1])

def run(number):
    with (folder / "log").open("a") as file:
        file.write(f"{number}\\n")
    time.sleep(0.3)
    return number

engine = JobEngine(
    open_database(folder / "index.db"),
    [Work(JobKind("work", "Work", Retry(max_attempts=1), concurrency=4), run)],
)
engine.start()
print("ready", flush=True)
time.sleep(600)
"""


def _start(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_killed_process_loses_no_job_and_its_successor_goes_on_at_once(
    sqlite_database: Database, tmp_path: Path
) -> None:
    queue = JobQueue(sqlite_database)
    jobs = [queue.enqueue("work", number=number) for number in range(8)]
    first = _start(tmp_path)
    try:
        log = tmp_path / "log"
        _wait_until(lambda: log.exists() and len(log.read_text().split()) >= 4)
        os.kill(first.pid, signal.SIGKILL)
    finally:
        first.kill()
        first.wait()
    second = _start(tmp_path)
    try:
        # A handle of its own: what is on the disk, not what this process remembers.
        fresh = JobQueue(open_database(tmp_path / "index.db"))
        _wait_until(lambda: len(fresh.jobs(states=[JobState.DONE])) == len(jobs))
    finally:
        second.kill()
        second.wait()
    assert {job.result for job in fresh.jobs()} == set(range(8))
    assert set(log.read_text().split()) == {str(number) for number in range(8)}


def _wait_until(is_true: object, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_true():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)
