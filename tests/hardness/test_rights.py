"""S2, S3: every door of every room asks for credentials, and for its permission."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass

import httpx
import pytest

from pacsteward.security.permissions import PERMISSIONS, ROLES
from tests.hardness.target import Target, at_once
from tests.support.product import PACSTEWARD

LOCKED = (401, 403, 404)
USUAL = (
    "/admin", "/metrics", "/debug", "/docs", "/redoc", "/openapi.json", "/api", "/api/v1",
    "/api/v1/", "/api/docs", "/swagger", "/graphql", "/.git/config", "/.env", "/server-status",
    "/actuator", "/actuator/env", "/phpinfo.php", "/backup.zip", "/config", "/console", "/shell",
    "/system", "/tools/execute-script", "/instances", "/patients", "/series", "/modalities",
    "/changes", "/statistics", "/plugins", "/app/explorer.html", "/dicom-web", "/dicom-web/",
    "/dicom-web/servers", "/dicom-web/patients", "/wado", "/wado?requestType=WADO", "/ws",
    "/events", "/upload", "/export", "/import", "/logs", "/jobs", "/users", "/people", "/tokens",
    "/account", "/audit", "/peers", "/studies", "/viewer/", "/viewer/index.html", "/robots.txt",
    "/static/", "/fhir/Patient", "/fhir/metadata", "/api/openapi.json", "/.well-known/x",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Door:
    """One method of one address, with the permission that it names."""

    method: str
    path: str
    permission: str

    @property
    def is_page(self) -> bool:
        return not self.path.startswith(("/dicom-web", "/wado", "/api"))


@pytest.fixture(scope="module")
def doors(target: Target) -> list[Door]:
    """List all doors, as the house and the description of the API know them."""
    found = []
    for row in json.loads(_house()):
        if row["kind"] in ("page", "route", "api"):
            methods, path = row["name"].split(" ", 1)
            found += [Door(one, _filled(path), row["permission"]) for one in methods.split("/")]
    description = target.client().get("/api/openapi.json").json()
    prefix = description["servers"][0]["url"]
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            door = Door(method.upper(), _filled(prefix + path), operation["x-permission"])
            assert door in found, f"{door} is in the description and not in the house"
    assert len(found) > 60
    return found


def _house() -> str:
    asked = [*PACSTEWARD, "house", "--json"]
    return subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True).stdout


def _filled(path: str) -> str:
    """Put something into the places of a path that hurts nobody."""
    path = re.sub(r"\{\w+:(int|key)\}", "999999", path)
    path = re.sub(r"\{path(:path)?\}", "7FE00010", path)
    path = re.sub(r"\{frames?\}", "1", path)
    path = re.sub(r"\{(study|series|instance)\w*\}", "1.2.3", path)
    return re.sub(r"\{\w+\}", "nobody", path)


def knock(target: Target, door: Door, **headers: str) -> httpx.Response:
    return target.stranger.request(door.method, target.product.url + door.path, headers=headers)


def is_locked(answer: httpx.Response) -> bool:
    leads_to_sign_in = answer.status_code in (302, 303) and answer.headers["location"].startswith(
        "/login"
    )
    return leads_to_sign_in or answer.status_code in LOCKED


def test_s2_no_door_opens_without_credentials(target: Target, doors: list[Door]) -> None:
    with target.unharmed():
        answers = at_once(lambda door: knock(target, door), doors)
    opened = [
        f"{door.method} {door.path}: {answer.status_code}"
        for door, answer in zip(doors, answers, strict=True)
        if not is_locked(answer)
    ]
    assert opened == []


@pytest.mark.parametrize(
    "shown", ["Bearer x", "Bearer", "Basic YWRtaW46YWRtaW4=", "Basic YWRtaW46", "Digest x", ""]
)
def test_s2_no_door_opens_with_wrong_credentials(
    target: Target, doors: list[Door], shown: str
) -> None:
    some = doors[::5]
    answers = at_once(lambda door: knock(target, door, Authorization=shown), some)
    assert [door for door, answer in zip(some, answers, strict=True) if not is_locked(answer)] == []


def test_s2_usual_addresses_give_nothing_away(target: Target) -> None:
    answers = at_once(lambda path: knock(target, Door("GET", path, "")), USUAL)
    opened = [
        f"{path}: {answer.status_code}"
        for path, answer in zip(USUAL, answers, strict=True)
        if not is_locked(answer)
    ]
    assert opened == []


@pytest.mark.parametrize("role", sorted(ROLES))
def test_s3_each_role_opens_what_the_table_says_and_nothing_else(
    target: Target, doors: list[Door], role: str
) -> None:
    granted = frozenset(PERMISSIONS) if "*" in ROLES[role] else ROLES[role]
    headers = {"Authorization": f"Bearer {target.token(role)}"}
    with target.unharmed():
        answers = at_once(lambda door: knock(target, door, **headers), doors)
    deviating = []
    for door, answer in zip(doors, answers, strict=True):
        may = door.permission in granted
        is_refused = answer.status_code in (401, 403)
        if may == is_refused or answer.status_code >= 500:
            words = f"{door.method} {door.path} needs {door.permission}: {answer.status_code}"
            deviating.append(f"{words} {answer.text[:200]}")
    assert not deviating, "\n".join(deviating)
