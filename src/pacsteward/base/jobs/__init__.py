"""Work that must be done though processes die: durable jobs, run by the jobs process."""

from pacsteward.base.jobs.engine import JobEngine, Work
from pacsteward.base.jobs.kinds import JobKind, Retry, Window
from pacsteward.base.jobs.model import (
    JobCancelled,
    JobRun,
    JobState,
    JobView,
    KindView,
    Progress,
    this_job,
)
from pacsteward.base.jobs.queue import Also, JobQueue

__all__ = [
    "Also",
    "JobCancelled",
    "JobEngine",
    "JobKind",
    "JobQueue",
    "JobRun",
    "JobState",
    "JobView",
    "KindView",
    "Progress",
    "Retry",
    "Window",
    "Work",
    "this_job",
]
