"""Jobs in the JSON API, for scripts that order work and want to know what came of it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pacsteward.base.jobs import JobState, JobView
from pacsteward.feature import ApiRoute, CurrentActor, CurrentHouse
from pacsteward.features.jobs import work


def list_jobs(
    house: CurrentHouse,
    kind: str | None = None,
    state: JobState | None = None,
    limit: Annotated[int, Field(ge=1, le=1000)] = 100,
    offset: Annotated[int, Field(ge=0, le=1_000_000)] = 0,
) -> list[JobView]:
    """List jobs, the newest first."""
    states = () if state is None else (state,)
    return house.jobs.jobs(kind=kind, states=states, limit=limit, offset=offset)


def get_job(house: CurrentHouse, job_id: str) -> JobView:
    """Show one job."""
    return house.jobs.job(job_id)


def retry_job(house: CurrentHouse, actor: CurrentActor, job_id: str) -> JobView:
    """Begin again with a job that was given up or cancelled; try one at once that waits."""
    return work.retry(house, job_id, by=actor)


def cancel_job(house: CurrentHouse, actor: CurrentActor, job_id: str) -> JobView:
    """Take a waiting job away; ask a running one to stop."""
    return work.cancel(house, job_id, by=actor)


ROUTES = (
    ApiRoute("GET", "/jobs", list_jobs, "jobs.see", "List jobs."),
    ApiRoute("GET", "/jobs/{job_id}", get_job, "jobs.see", "Show one job."),
    ApiRoute("POST", "/jobs/{job_id}/retry", retry_job, "jobs.change", "Have a job tried again."),
    ApiRoute("POST", "/jobs/{job_id}/cancel", cancel_job, "jobs.change", "Cancel a job."),
)
