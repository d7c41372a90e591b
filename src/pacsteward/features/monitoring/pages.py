"""Health in the console: what is wrong, why, and what to do about it."""

from __future__ import annotations

from functools import partial

from pacsteward.feature import House, Page
from pacsteward.features.monitoring.health import ask_all, read_figures
from pacsteward.security import Actor
from pacsteward.web import Request, Response, render

TONES = {"ok": "good", "warning": "warning", "critical": "bad", "unknown": "warning"}


def show(house: House, request: Request) -> Response:
    """Show findings, the worst first, and figures."""
    return render(
        request,
        "monitoring/health.html",
        answers=ask_all(house),
        figures=read_figures(house),
        kinds=house.jobs.kinds(),
        tones=TONES,
        may_open=partial(_may_open, house, request.state.actor),
    )


def _may_open(house: House, actor: Actor, link: str) -> bool:
    """Say whether a link of a figure or a finding leads to a page that this role may see."""
    path = link.partition("?")[0]
    return all(
        actor.may(page.permission)
        for room in house.rooms
        for page in room.pages
        if page.path == path
    )


PAGES = (Page("/health", show, "metrics.read", "Health", menu=30),)
