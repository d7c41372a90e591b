"""People, tokens and the audit book by the JSON API."""

from __future__ import annotations

import pytest
from tests.support.console import Visitor

from pacsteward.feature import House


@pytest.fixture
def script(console: Visitor, house: House) -> Visitor:
    token = house.access.make_token("script", ["administrator"])
    console.headers["authorization"] = f"Bearer {token}"
    return console


def test_caller_learns_who_it_is(script: Visitor) -> None:
    assert script.get("/api/v1/me").json() == {
        "kind": "token",
        "name": "script",
        "roles": ["administrator"],
        "permissions": ["*"],
    }


def test_person_lives_a_life_through_the_api(script: Visitor) -> None:
    eve = {"name": "eve", "password": "a first password", "roles": ["auditor"]}
    assert script.post("/api/v1/people", json=eve).json()["has_given_password"]
    changed = script.patch("/api/v1/people/eve", json={"roles": ["radiologist"]})
    assert changed.json()["roles"] == ["radiologist"]
    assert script.patch("/api/v1/people/eve", json={"is_disabled": True}).json()["is_disabled"]
    names = [person["name"] for person in script.get("/api/v1/people").json()]
    assert names == ["ada", "eve", "tom"]
    assert "password" not in script.get("/api/v1/people").text.replace("has_given_password", "")
    assert script.delete("/api/v1/people/eve").status_code == 200
    assert script.delete("/api/v1/people/eve").status_code == 404


def test_token_lives_a_life_through_the_api(script: Visitor) -> None:
    made = script.post("/api/v1/tokens", json={"name": "mirror", "roles": ["machine"]}).json()
    assert made["token"].startswith("pst_")
    listed = script.get("/api/v1/tokens").text
    assert made["token"] not in listed
    headers = {"authorization": f"Bearer {made['token']}"}
    assert script.get("/api/v1/me", headers=headers).json()["name"] == "mirror"
    assert script.delete("/api/v1/tokens/mirror").status_code == 200
    assert script.get("/api/v1/me", headers=headers).status_code == 401


def test_fault_never_quotes_a_password(script: Visitor) -> None:
    answer = script.post("/api/v1/people", json={"name": 5, "password": ["hunter2hunter2"]})
    assert answer.status_code == 400
    assert "hunter2" not in answer.text


def test_audit_is_paged(script: Visitor) -> None:
    page = script.get("/api/v1/audit", params={"limit": 2}).json()
    assert len(page["entries"]) == 2
    rest = script.get("/api/v1/audit", params={"before": page["before"]}).json()
    assert rest["entries"][0]["sequence"] == page["entries"][-1]["sequence"] - 1
    assert script.get("/api/v1/audit", params={"limit": 5000}).status_code == 400
    chain = script.get("/api/v1/audit/chain").json()
    assert chain["faults"] == []
    message = script.get("/api/v1/audit/1/message")
    assert message.headers["content-type"].startswith("application/xml")
    assert b"<AuditMessage>" in message.content


def test_roles_other_than_administrator_change_nobody(console: Visitor, house: House) -> None:
    for role in ("radiologist", "technologist", "auditor", "machine"):
        token = house.access.make_token(f"of-{role}", [role])
        headers = {"authorization": f"Bearer {token}"}
        for method, path in (
            ("POST", "/api/v1/people"),
            ("PATCH", "/api/v1/people/ada"),
            ("DELETE", "/api/v1/people/ada"),
            ("POST", "/api/v1/tokens"),
            ("DELETE", "/api/v1/tokens/x"),
        ):
            assert console.request(method, path, headers=headers, json={}).status_code == 403
