"""A door with one page, one route and one operation of each kind, for the tests of this floor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from tests.support.console import PASSWORD, Visitor, cheap_passwords

from pacsteward.base.clock import ManualClock
from pacsteward.base.db import Database
from pacsteward.base.errors import Exhausted, NotFound
from pacsteward.security import Access, AuditBook, SecuritySettings
from pacsteward.web import (
    ApiOperation,
    BoundRoute,
    JSONResponse,
    Parts,
    PlainTextResponse,
    Request,
    Response,
    WebSettings,
    build_server,
    form_of,
    redirect,
    render,
)


@pytest.fixture(autouse=True)
def _cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    cheap_passwords(monkeypatch)


@pytest.fixture
def audit(sqlite_database: Database, clock: ManualClock) -> AuditBook:
    """Give the audit book."""
    return AuditBook(sqlite_database, clock)


@pytest.fixture
def access(sqlite_database: Database, clock: ManualClock, audit: AuditBook) -> Access:
    """Give people: ada, an administrator, rob, a radiologist, and tom, an auditor."""
    access = Access(sqlite_database, clock, audit, SecuritySettings.model_validate({}))
    access.add_person("ada", PASSWORD, ["administrator"])
    access.add_person("rob", PASSWORD, ["radiologist"])
    access.add_person("tom", PASSWORD, ["auditor"])
    return access


OpenDoor = Callable[..., Visitor]


@pytest.fixture
def open_door(access: Access, audit: AuditBook, tmp_path: Path) -> OpenDoor:
    """Give a way to open the door with some settings of ``[web]``."""
    (tmp_path / "hall.html").write_text(
        "{% extends 'layout.html' %}{% import 'kit.html' as kit %}{% block title %}Hall"
        "{% endblock %}{% block content %}<p>{{ words }}</p>"
        "<form method='post'>{{ kit.token(form_token) }}</form>{% endblock %}"
    )

    def open_(is_ready: Callable[[], bool] = lambda: True, **settings: Any) -> Visitor:
        application = build_server(
            Parts(
                access=access,
                audit=audit,
                settings=WebSettings.model_validate(settings),
                routes=ROUTES,
                operations=OPERATIONS,
                template_folders={"hall": tmp_path},
                is_ready=is_ready,
                version="1.2.3",
            )
        )
        return Visitor(
            application,
            base_url="http://pacs.example",
            follow_redirects=False,
            client=("127.0.0.1", 50000),
            raise_server_exceptions=False,
        )

    return open_


@pytest.fixture
def door(open_door: OpenDoor) -> Visitor:
    """Give the door as it is without any settings."""
    return open_door()


def _hall(request: Request) -> Response:
    if request.method == "POST":
        return redirect("/hall", f"{form_of(request).text('words')} was kept.")
    return render(request, "hall/hall.html", words=request.query_params.get("words", ""))


async def _whole_body(request: Request) -> Response:
    body = await request.body()
    return PlainTextResponse(str(len(body)))


def _links(request: Request) -> Response:
    client = request.client.host if request.client else ""
    return JSONResponse({"base": str(request.base_url), "client": client})


def _missing(_request: Request) -> Response:
    raise NotFound("Study 1.2.3 is not here.", why="Nobody sent it.", remedy="Send it.")


def _full(_request: Request) -> Response:
    raise Exhausted("The disk is full.")


def _broken(_request: Request) -> Response:
    raise ZeroDivisionError("patient MUELLER^HANS")


def _live(_request: Request) -> Response:
    return Response("<script>alert(1)</script>", media_type="text/html")


def _operation(request: Request, number: int = 1) -> dict[str, Any]:
    return {"number": number, "actor": request.state.actor.name}


ROUTES = (
    BoundRoute(("GET", "POST"), "/hall", _hall, "studies.find", "page", "Hall", 10),
    BoundRoute(("POST",), "/hall/keep", _hall, "studies.find", "page", "Keep"),
    BoundRoute(("GET",), "/office", _hall, "people.see", "page", "Office", 20),
    BoundRoute(("GET",), "/book", _hall, "audit.read", "page", "Book", 30, is_start=True),
    BoundRoute(("GET",), "/dicom-web/links", _links, "studies.find"),
    BoundRoute(("GET",), "/dicom-web/missing", _missing, "studies.find"),
    BoundRoute(("GET",), "/dicom-web/full", _full, "studies.find"),
    BoundRoute(("GET",), "/dicom-web/broken", _broken, "studies.find"),
    BoundRoute(("GET",), "/dicom-web/live", _live, "studies.find"),
    BoundRoute(("POST",), "/dicom-web/studies", _whole_body, "studies.find"),
    BoundRoute(("POST",), "/body", _whole_body, "studies.find"),
    BoundRoute(("DELETE",), "/dicom-web/studies", _whole_body, "peers.change"),
)
OPERATIONS = (
    ApiOperation("GET", "/things", _operation, "studies.find", "List things.", "hall"),
    ApiOperation("POST", "/things", _operation, "studies.find", "Add a thing.", "hall"),
    ApiOperation("DELETE", "/things", _operation, "peers.change", "Remove things.", "hall"),
)


@pytest.fixture
def token(access: Access, door: TestClient) -> dict[str, str]:
    """Give headers with the token of a radiologist's script."""
    return {"authorization": f"Bearer {access.make_token('script', ['radiologist'])}"}
