"""Another archive in the console: ask a peer for its studies, have one fetched."""

from __future__ import annotations

from pacsteward.base.errors import PacstewardError
from pacsteward.dicom.uids import check_uid
from pacsteward.feature import House, Page
from pacsteward.features.query.elsewhere import Answers, Asked, find_elsewhere
from pacsteward.web import Request, Response, form_of, query_text, redirect, render

FIELDS = ("patient_name", "patient_id", "accession_number", "study_date")


def show(house: House, request: Request) -> Response:
    """Show the form, and what the chosen peer answered."""
    ae_title = query_text(request, "peer", 16)
    asked = Asked(**{name: query_text(request, name, 64) for name in FIELDS})
    answers: Answers | None = None
    fault: PacstewardError | None = None
    if ae_title and not asked.is_empty:
        try:
            answers = find_elsewhere(house, ae_title, asked, by=request.state.actor)
        except PacstewardError as error:
            fault = error
    return render(
        request,
        "query/elsewhere.html",
        peers=house.peers.all(),
        chosen=ae_title,
        asked=asked,
        answers=answers,
        fault=fault,
        ordered=query_text(request, "ordered", 64),
    )


def fetch(house: House, request: Request) -> Response:
    """Have a study fetched, as a job."""
    form = form_of(request)
    peer = house.peers.need(form.text("peer"))
    uid = check_uid(form.text("study_instance_uid"), "StudyInstanceUID")
    actor = request.state.actor
    house.jobs.enqueue(
        "fetch_study",
        key=f"{uid}<{peer.ae_title} {actor.kind} {actor.name}",
        study_instance_uid=uid,
        source=peer.ae_title,
        how="get" if form.text("how") == "get" else "move",
        ordered_by=(actor.kind, actor.name, actor.address),
    )
    return redirect(f"/elsewhere?ordered={uid}&peer={peer.ae_title}")


PAGES = (
    Page("/elsewhere", show, "peers.echo", "Other archives", menu=65),
    Page("/elsewhere/fetch", fetch, "studies.move", "Fetch", methods=("POST",)),
)
