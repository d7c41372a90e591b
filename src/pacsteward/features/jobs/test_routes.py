"""Jobs by the JSON API."""

from __future__ import annotations

import pytest
from tests.support.console import Visitor

from pacsteward.base.jobs import JobState
from pacsteward.feature import House
from pacsteward.features.jobs.conftest import STUDY


@pytest.fixture
def script(console: Visitor, house: House) -> Visitor:
    token = house.access.make_token("script", ["administrator"])
    console.headers["authorization"] = f"Bearer {token}"
    return console


def test_failed_job_is_found_and_tried_again(script: Visitor, house: House, failed: str) -> None:
    (job,) = script.get("/api/v1/jobs", params={"state": "failed"}).json()
    assert (job["job_id"], job["arguments"]["study_instance_uid"]) == (failed, STUDY)
    assert script.post(f"/api/v1/jobs/{failed}/retry").json()["state"] == "waiting"
    assert script.get(f"/api/v1/jobs/{failed}").json()["state"] == "waiting"
    assert script.post(f"/api/v1/jobs/{failed}/cancel").json()["state"] == "cancelled"
    assert script.post(f"/api/v1/jobs/{failed}/cancel").status_code == 409
    assert script.get("/api/v1/jobs/4711").status_code == 404
    assert [entry.actor for entry in house.audit.entries(limit=2)] == ["script", "script"]


def test_machine_may_neither_see_nor_change_jobs(
    console: Visitor, house: House, failed: str
) -> None:
    token = house.access.make_token("scanner", ["machine"])
    console.headers["authorization"] = f"Bearer {token}"
    assert console.get("/api/v1/jobs").status_code == 403
    assert console.post(f"/api/v1/jobs/{failed}/retry").status_code == 403
    assert house.jobs.job(failed).state is JobState.FAILED
