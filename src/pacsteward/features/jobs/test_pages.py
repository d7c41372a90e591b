"""Jobs in the console, as an administrator meets them."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from tests.support.console import Visitor

from pacsteward.base.jobs import JobQueue, JobState
from pacsteward.feature import House
from pacsteward.features.jobs.conftest import STUDY
from pacsteward.features.jobs.pages import PAGE_JOBS
from pacsteward.security import AuditFilter


def test_failed_job_is_listed_with_its_reason_and_tried_again(
    console: Visitor, house: House, failed: str
) -> None:
    console.sign_in("ada")
    text = console.get("/jobs?state=failed").text
    assert f'href="/jobs/{failed}" data-open-row' in text
    assert "was not sent to &lt;b&gt;CT1&lt;/b&gt;" in text
    answer = console.fill_in("/jobs", "/jobs/retry", job_id=failed)
    assert answer.headers["location"] == f"/jobs/{failed}"
    assert house.jobs.job(failed).state is JobState.WAITING
    page = console.get(answer.headers["location"]).text
    assert f"Job {failed} is tried again as soon as work of its kind may start." in page
    assert f'href="/studies/{STUDY}"' in page
    (entry,) = house.audit.entries(AuditFilter(object_id=STUDY))
    assert entry.what == f"ada had job {failed} (send_study) tried again."


def test_waiting_job_is_cancelled(console: Visitor, house: House) -> None:
    job_id = house.jobs.enqueue("count_things")
    console.sign_in("ada")
    assert console.fill_in("/jobs", "/jobs/cancel", job_id=job_id).status_code == 303
    assert house.jobs.job(job_id).state is JobState.CANCELLED
    assert "cancelled" in house.audit.entries()[0].what
    again = console.post(
        "/jobs/cancel", data={"form_token": console.form_token("/jobs"), "job_id": job_id}
    )
    assert again.status_code == 409
    assert "It has ended already: it is cancelled." in again.text
    assert f">{job_id}</a>" not in console.get("/jobs").text
    assert f">{job_id}</a>" in console.get("/jobs?state=cancelled").text
    assert f">{job_id}</a>" in console.get("/jobs?state=all").text


def test_kind_is_paused_and_resumed(
    console: Visitor, house: House, run_all: Callable[[], None]
) -> None:
    job_id = house.jobs.enqueue("count_things")
    console.sign_in("ada")
    console.fill_in("/jobs", "/jobs/pause", kind="count_things")
    assert "ada paused all work of the kind count_things." in house.audit.entries()[0].what
    assert "paused" in console.get("/jobs").text
    run_all()
    assert house.jobs.job(job_id).state is JobState.WAITING
    console.fill_in("/jobs", "/jobs/resume", kind="count_things")
    run_all()
    assert house.jobs.job(job_id).state is JobState.DONE
    assert "&#34;counted&#34;: 7" in console.get(f"/jobs/{job_id}").text
    form = {"form_token": console.form_token("/jobs"), "kind": "no_such"}
    assert console.post("/jobs/pause", data=form).status_code == 404


def test_trying_again_does_not_promise_what_a_pause_prevents(
    console: Visitor, house: House, failed: str
) -> None:
    house.jobs.pause("send_study")
    console.sign_in("ada")
    answer = console.fill_in("/jobs", "/jobs/retry", job_id=failed)
    page = console.get(answer.headers["location"]).text
    assert f"Job {failed} is tried again once send_study is resumed; it is paused." in page


def test_kind_that_a_later_version_paused_is_resumed(console: Visitor, house: House) -> None:
    JobQueue(house.database, house.clock).pause("of_tomorrow")
    console.sign_in("ada")
    assert "of_tomorrow" in console.get("/jobs").text
    answer = console.fill_in("/jobs", "/jobs/resume", kind="of_tomorrow")
    assert answer.status_code == 303
    assert "of_tomorrow" not in console.get("/jobs").text.partition("<table")[2]
    form = {"form_token": console.form_token("/jobs"), "kind": "of_tomorrow"}
    assert console.post("/jobs/resume", data=form).status_code == 404


def test_question_before_a_deed_is_answered_by_yes_or_no(console: Visitor, house: House) -> None:
    """A button "Cancel" beside the question whether to cancel would say the opposite."""
    house.jobs.enqueue("count_things")
    console.sign_in("ada")
    page = console.get("/jobs").text
    assert 'data-ask="Cancel job 1?"' in page
    dialog = page.partition('<dialog id="confirm"')[2].partition("</dialog>")[0]
    assert re.findall(r"<button[^>]*>([^<]+)</button>", dialog) == ["No", "Yes"]


def test_list_is_filtered_and_paged(console: Visitor, house: House, failed: str) -> None:
    for _ in range(PAGE_JOBS + 1):
        house.jobs.enqueue("count_things")
    console.sign_in("ada")
    first = console.get("/jobs?kind=count_things").text
    assert first.count("data-open-row") == PAGE_JOBS
    assert 'rel="next" href="/jobs?kind=count_things&amp;page=2"' in first
    second = console.get("/jobs?kind=count_things&page=2").text
    assert second.count("data-open-row") == 1
    assert 'rel="next"' not in second
    assert console.get("/jobs?kind=send_study").text.count("data-open-row") == 1
    assert "Nothing is open" not in console.get("/jobs?state=running").text
    for strange in ("kind=x", "state=x", "page=x", "page=999999999", "page=-1", "kind=%00"):
        assert console.get(f"/jobs?{strange}").status_code == 200
    for strange in ("/jobs/99999", "/jobs/99999999999999999999999", f"/jobs/{'9' * 5000}"):
        assert console.get(strange).status_code == 404


@pytest.mark.parametrize("verb", ["retry", "cancel", "pause", "resume"])
def test_who_may_not_change_jobs_is_refused(
    console: Visitor, house: House, failed: str, verb: str
) -> None:
    console.sign_in("tom")
    refused = console.post(f"/jobs/{verb}", data={"job_id": failed, "kind": "send_study"})
    assert refused.status_code == 403
    assert "jobs.change" in refused.text
    assert console.get("/jobs").status_code == 403
    assert console.get(f"/jobs/{failed}").status_code == 403
    assert house.jobs.job(failed).state is JobState.FAILED
