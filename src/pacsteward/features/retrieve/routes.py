"""The retrieve room in our JSON API: send a study to a peer, fetch one from a peer."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from pacsteward.dicom.uids import check_uid
from pacsteward.feature import ApiRoute, CurrentActor, CurrentHouse
from pacsteward.features.retrieve.jobs import ordered_by


class SendRequest(BaseModel):
    """Where a study is to go."""

    destination: str = Field(description="AE title of a registered peer.", max_length=16)


class FetchRequest(BaseModel):
    """Where a study is to come from."""

    source: str = Field(description="AE title of a registered peer.", max_length=16)
    how: Literal["move", "get"] = Field("move", description="C-MOVE to us, or C-GET.")


class Accepted(BaseModel):
    """The work has been written down and will be done."""

    job_id: str


def send(
    house: CurrentHouse, actor: CurrentActor, study_instance_uid: str, wanted: SendRequest
) -> Accepted:
    """Send a study to a peer, as a job."""
    house.peers.need(wanted.destination)
    uid = check_uid(study_instance_uid, "The Study Instance UID")
    job_id = house.jobs.enqueue(
        "send_study",
        # Of each one his own: the audit book names whoever ordered a job, and a second one too.
        key=f"{uid}>{wanted.destination} {actor.kind} {actor.name}",
        study_instance_uid=uid,
        destination=wanted.destination,
        ordered_by=ordered_by(actor),
    )
    return Accepted(job_id=job_id)


def fetch(
    house: CurrentHouse, actor: CurrentActor, study_instance_uid: str, wanted: FetchRequest
) -> Accepted:
    """Have a peer send a study to us, as a job."""
    house.peers.need(wanted.source)
    uid = check_uid(study_instance_uid, "The Study Instance UID")
    job_id = house.jobs.enqueue(
        "fetch_study",
        key=f"{uid}<{wanted.source} {actor.kind} {actor.name}",
        study_instance_uid=uid,
        source=wanted.source,
        how=wanted.how,
        ordered_by=ordered_by(actor),
    )
    return Accepted(job_id=job_id)


API = (
    ApiRoute(
        "POST", "/studies/{study_instance_uid}/send", send, "studies.move", "Send a study to a peer"
    ),
    ApiRoute(
        "POST",
        "/studies/{study_instance_uid}/fetch",
        fetch,
        "studies.move",
        "Fetch a study from a peer",
    ),
)
