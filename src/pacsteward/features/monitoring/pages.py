"""Health in the console: what is wrong, why, and what to do about it."""

from __future__ import annotations

from pacsteward.feature import House, Page
from pacsteward.features.monitoring.health import ask_all, read_figures
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
    )


PAGES = (Page("/health", show, "metrics.read", "Health", menu=30),)
