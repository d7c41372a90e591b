"""Connections in the console: who we speak with, whether it works, and who knocks at the door."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from pacsteward.base.errors import CORRECTABLE, PacstewardError
from pacsteward.dicom.settings import DicomSettings
from pacsteward.feature import House, Page
from pacsteward.features.peers import registration
from pacsteward.features.peers.echo import echo
from pacsteward.features.peers.registration import SERVICE_WORDS, PeerRow
from pacsteward.security import ITS_HOST, Peer
from pacsteward.web import (
    Column,
    Form,
    Request,
    Response,
    arrange,
    form_of,
    is_inline,
    query_text,
    redirect,
    render,
    wishes_of,
)

COLUMNS = (
    Column("AE title", "ae_title"),
    Column("Address", "host"),
    Column("May", ""),
    Column("Last called", "last_seen_at"),
    Column("Last echo", "last_echo_at"),
    Column(""),
)

_SERVICES = [(name, title, words) for name, (title, words) in SERVICE_WORDS.items()]


def show_all(house: House, request: Request) -> Response:
    """Show peers and unknown callers."""
    wishes = wishes_of(request, COLUMNS, sort="ae_title")
    peers = registration.rows(house.peers)
    grid = arrange(peers, COLUMNS, wishes, words_of=_words, key_of=getattr)
    return render(
        request,
        "peers/list.html",
        grid=grid,
        peers=peers,
        callers=house.peers.unknown_callers(),
        our_ae_title=house.settings.of(DicomSettings).ae_title,
        service_words=SERVICE_WORDS,
    )


def _words(row: PeerRow) -> str:
    services = " ".join(row.services)
    return f"{row.ae_title} {row.host}:{row.port} {row.description} {services}"


def add(house: House, request: Request) -> Response:
    """Show the empty form, or register what was filled in."""
    if request.method != "POST":
        suggested = Peer(
            query_text(request, "ae_title"), query_text(request, "host"), 104, accepts_from=ITS_HOST
        )
        return _form(request, suggested, is_new=True)
    form = form_of(request)
    try:
        peer = house.peers.add(_filled_in(form), by=request.state.actor)
    except CORRECTABLE as error:
        return _form(request, _as_written(form), is_new=True, error=error)
    return redirect("/peers", f"{peer.ae_title} was registered. Echo it to see that it answers.")


def edit(house: House, request: Request) -> Response:
    """Show a peer, or change it."""
    if request.method != "POST":
        return _form(request, house.peers.need(query_text(request, "ae_title")), is_new=False)
    form = form_of(request)
    try:
        peer = house.peers.change(_filled_in(form), by=request.state.actor)
    except CORRECTABLE as error:
        return _form(request, _as_written(form), is_new=False, error=error)
    return redirect("/peers", f"{peer.ae_title} was changed; its next association sees it.")


def remove(house: House, request: Request) -> Response:
    """Forget a peer."""
    ae_title = form_of(request).text("ae_title")
    house.peers.remove(ae_title, by=request.state.actor)
    return redirect("/peers", f"{ae_title} was removed.")


async def try_echo(house: House, request: Request) -> Response:
    """Send C-ECHO and say how it went, in the row or on the page."""
    result = await echo(house, form_of(request).text("ae_title"))
    if is_inline(request):
        return render(request, "peers/echo.html", result=result)
    tone = "good" if result.succeeded else "bad"
    return redirect("/peers", f"{result.words} ({result.took_ms:g} ms)", tone=tone)


def admit(house: House, request: Request) -> Response:
    """Register an unknown caller, bound to its address."""
    form = form_of(request)
    peer = house.peers.admit_unknown(
        form.text("ae_title"), address=form.text("address"), by=request.state.actor
    )
    link = "/peers/edit?" + urlencode({"ae_title": peer.ae_title})
    return redirect(
        link, f"{peer.ae_title} may call from {peer.accepts_from} now. Check port and services."
    )


def forget(house: House, request: Request) -> Response:
    """Take an unknown caller off the list."""
    form = form_of(request)
    house.peers.forget_unknown(form.text("ae_title"), form.text("address"))
    return redirect("/peers", f"{form.text('ae_title')} was taken off the list.")


def _filled_in(form: Form) -> Peer:
    """Read the form strictly."""
    return replace(
        _as_written(form),
        port=form.number("port", title="Port"),
        max_parallel=form.number("max_parallel", title="Associations at a time", empty=0),
        services=registration.read_services(form.many("services")),
    )


def _as_written(form: Form) -> Peer:
    """Read the form as it is, to show it again with its faults."""
    return Peer(
        ae_title=form.text("ae_title"),
        host=form.text("host"),
        port=_number(form.text("port")),
        services=frozenset(form.many("services")),
        description=form.text("description"),
        default_issuer_of_patient_id=form.text("default_issuer_of_patient_id"),
        accepts_from="" if form.text("accepts") == "any" else _address(form),
        is_lenient_in_roles=form.flag("is_lenient_in_roles"),
        is_lenient_in_levels=form.flag("is_lenient_in_levels"),
        prefers_transfer_syntaxes=tuple(
            form.text("prefers_transfer_syntaxes").replace(",", " ").split()
        ),
        max_parallel=_number(form.text("max_parallel")),
    )


def _address(form: Form) -> str:
    if form.text("accepts") == ITS_HOST:
        return ITS_HOST
    return form.text("accepts_from") or ITS_HOST


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _form(
    request: Request, peer: Peer, *, is_new: bool, error: PacstewardError | None = None
) -> Response:
    accepts: dict[str, Any] = {"": "any", ITS_HOST: ITS_HOST}
    return render(
        request,
        "peers/form.html",
        status_code=400 if error else 200,
        peer=peer,
        is_new=is_new,
        error=error,
        services=_SERVICES,
        accepts=accepts.get(peer.accepts_from, "address"),
    )


PAGES = (
    Page("/peers", show_all, "peers.see", "Connections", menu=60),
    Page("/peers/new", add, "peers.change", "New peer", methods=("GET", "POST")),
    Page("/peers/edit", edit, "peers.change", "Peer", methods=("GET", "POST")),
    Page("/peers/remove", remove, "peers.change", "Remove peer", methods=("POST",)),
    Page("/peers/echo", try_echo, "peers.echo", "Echo", methods=("POST",)),
    Page("/peers/unknown/admit", admit, "peers.change", "Admit caller", methods=("POST",)),
    Page("/peers/unknown/forget", forget, "peers.change", "Forget caller", methods=("POST",)),
)
