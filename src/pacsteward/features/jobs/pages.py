"""Jobs in the console: what waits, runs and was given up; try again, cancel, pause."""

from __future__ import annotations

import json
from typing import Any, Final

from pacsteward.base.jobs import JobState, JobView
from pacsteward.feature import House, Page
from pacsteward.features.jobs import work
from pacsteward.web import Request, Response, form_of, query_text, redirect, render

PAGE_JOBS: Final = 50
PAGES_MAX: Final = 1_000

STATES: Final = {
    "": ("Waiting, running or failed", work.OPEN),
    **{str(state): (str(state).capitalize(), (state,)) for state in JobState},
    "all": ("Every state", ()),
}
TONES: Final = {JobState.FAILED: "bad", JobState.RUNNING: "good", JobState.CANCELLED: "warning"}


def show_all(house: House, request: Request) -> Response:
    """List jobs, the newest first, with all kinds of work above them."""
    kinds = work.kinds_of_work(house)
    names = {one.counted.kind for one in kinds}
    kind, state = query_text(request, "kind"), query_text(request, "state")
    kind, state = kind if kind in names else "", state if state in STATES else ""
    page = _page(query_text(request, "page"))
    # One more than is shown tells whether there is another page.
    found = house.jobs.jobs(
        kind=kind or None,
        states=STATES[state][1],
        limit=PAGE_JOBS + 1,
        offset=(page - 1) * PAGE_JOBS,
    )
    return render(
        request,
        "jobs/list.html",
        jobs=found[:PAGE_JOBS],
        kinds=kinds,
        titles=work.titles(house),
        states=[(name, title) for name, (title, _) in STATES.items()],
        chosen={"kind": kind, "state": state},
        page=page,
        has_more=len(found) > PAGE_JOBS,
        **_rules(),
    )


def show(house: House, request: Request) -> Response:
    """Show one job with all that is known of it."""
    job = house.jobs.job(str(request.path_params["job_id"]))
    return render(
        request,
        "jobs/job.html",
        job=job,
        title=work.titles(house).get(job.kind, job.kind),
        result="" if job.result is None else json.dumps(job.result, ensure_ascii=False, indent=1),
        **_rules(),
    )


def retry(house: House, request: Request) -> Response:
    """Have a job tried again."""
    job = work.retry(house, form_of(request).text("job_id"), by=request.state.actor)
    return redirect(f"/jobs/{job.job_id}", _tried_again(house, job))


def _tried_again(house: House, job: JobView) -> str:
    if work.is_paused(house, job.kind):
        return f"Job {job.job_id} is tried again once {job.kind} is resumed; it is paused."
    return f"Job {job.job_id} is tried again as soon as work of its kind may start."


def cancel(house: House, request: Request) -> Response:
    """Cancel a job."""
    job = work.cancel(house, form_of(request).text("job_id"), by=request.state.actor)
    return redirect(f"/jobs/{job.job_id}", _cancelled(job))


def _cancelled(job: JobView) -> str:
    if job.state is JobState.CANCELLED:
        return f"Job {job.job_id} was cancelled."
    return f"Job {job.job_id} was asked to stop, and does as soon as it can."


def pause(house: House, request: Request) -> Response:
    """Start no more jobs of a kind."""
    kind = form_of(request).text("kind")
    work.pause(house, kind, by=request.state.actor)
    return redirect("/jobs", f"No more jobs {kind} are started; those that run go on.")


def resume(house: House, request: Request) -> Response:
    """Start jobs of a kind again."""
    kind = form_of(request).text("kind")
    work.resume(house, kind, by=request.state.actor)
    return redirect("/jobs", f"Jobs {kind} are started again.")


def _rules() -> dict[str, Any]:
    return {"tones": TONES, "may_retry": work.MAY_RETRY, "may_cancel": work.MAY_CANCEL}


def _page(text: str) -> int:
    is_page = text.isascii() and text.isdigit() and len(text) < 6
    return min(max(1, int(text)), PAGES_MAX) if is_page else 1


PAGES = (
    Page("/jobs", show_all, "jobs.see", "Jobs", menu=32),
    Page("/jobs/{job_id:key}", show, "jobs.see", "Job"),
    Page("/jobs/retry", retry, "jobs.change", "Try again", methods=("POST",)),
    Page("/jobs/cancel", cancel, "jobs.change", "Cancel", methods=("POST",)),
    Page("/jobs/pause", pause, "jobs.change", "Pause", methods=("POST",)),
    Page("/jobs/resume", resume, "jobs.change", "Resume", methods=("POST",)),
)
