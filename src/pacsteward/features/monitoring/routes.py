"""Monitoring for programs: figures in the format of Prometheus, findings as JSON."""

from __future__ import annotations

from pacsteward.base.metrics import CONTENT_TYPE
from pacsteward.feature import ApiRoute, CurrentHouse, House, Route
from pacsteward.features.monitoring.health import Answered, ask_all
from pacsteward.web import Request, Response


def metrics(house: House, _request: Request) -> Response:
    """Give the figures of all processes."""
    return Response(house.snapshots.text(), media_type=CONTENT_TYPE)


def checks(house: CurrentHouse) -> list[Answered]:
    """Ask every check; the worst findings come first."""
    return ask_all(house)


ROUTES = (Route("GET", "/metrics", metrics, "metrics.read"),)
API = (ApiRoute("GET", "/checks", checks, "metrics.read", "Ask every check of the house"),)
