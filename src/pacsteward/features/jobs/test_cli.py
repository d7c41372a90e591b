"""Jobs from the command line."""

from __future__ import annotations

import pytest

from pacsteward.base.errors import Conflict, Invalid, NotFound, Unavailable
from pacsteward.base.jobs import JobState
from pacsteward.feature import House
from pacsteward.features.jobs import cli, work
from pacsteward.features.jobs.conftest import STUDY
from pacsteward.security import Actor


def test_failed_job_is_listed_and_tried_again(house: House, failed: str) -> None:
    (row,) = cli.list_jobs(house, state=JobState.FAILED)
    assert (row.job, row.kind, row.state) == (failed, "send_study", "failed")
    assert STUDY in row.about
    assert "was not sent" in row.error
    assert failed in cli.retry(house, failed)
    assert [one.state for one in cli.list_jobs(house)] == ["waiting"]
    entry = house.audit.entries()[0]
    assert f"job {failed} (send_study) tried again" in entry.what
    assert "command line" in entry.what


def test_list_leaves_out_what_has_ended_unless_it_is_asked_for(house: House) -> None:
    job_id = house.jobs.enqueue("count_things")
    cli.cancel(house, job_id)
    assert cli.list_jobs(house) == []
    assert [one.job for one in cli.list_jobs(house, ended=True)] == [job_id]
    with pytest.raises(Conflict):
        cli.cancel(house, job_id)


def test_kinds_are_listed_paused_and_resumed(house: House, failed: str) -> None:
    cli.pause(house, "send_study")
    kinds = {one.kind: one for one in cli.list_kinds(house)}
    assert kinds["send_study"].is_paused
    assert kinds["send_study"].failed == 1
    assert kinds["count_things"].title == "Count things"
    cli.resume(house, "send_study")
    assert not any(one.is_paused for one in cli.list_kinds(house))
    with pytest.raises(NotFound):
        cli.pause(house, "no_such")


def test_each_job_is_done_though_another_cannot_be(house: House, failed: str) -> None:
    other = house.jobs.enqueue("count_things")
    with pytest.raises(NotFound) as told:
        cli.retry(house, failed, "4711", other)
    assert "4711" in told.value.what
    assert f"To be tried again: {failed}, {other}." in told.value.remedy
    assert house.jobs.job(failed).state is JobState.WAITING
    cli.cancel(house, other)
    with pytest.raises(Conflict) as told:
        cli.cancel(house, other, "4711", failed)
    assert other in told.value.what
    assert "4711" in told.value.what
    assert f"Cancelled, or asked to stop: {failed}." in told.value.remedy
    assert house.jobs.job(failed).state is JobState.CANCELLED


def test_what_was_done_is_told_though_the_database_went_away(
    house: House, failed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = work.retry, []

    def retry(house: House, job_id: str, *, by: Actor) -> object:
        asked.append(job_id)
        if len(asked) > 1:
            raise Unavailable("The database did not answer.", remedy="Try again.")
        return real(house, job_id, by=by)

    monkeypatch.setattr(work, "retry", retry)
    with pytest.raises(Unavailable) as told:
        cli.retry(house, failed, "4711", "4712")
    assert f"To be tried again: {failed}." in told.value.remedy
    assert asked == [failed, "4711"]


def test_what_cannot_be_is_told(house: House) -> None:
    with pytest.raises(Invalid):
        cli.retry(house)
    with pytest.raises(NotFound):
        cli.retry(house, "4711")
