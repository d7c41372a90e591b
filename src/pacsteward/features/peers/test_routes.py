"""Peers and unknown callers by the JSON API."""

from __future__ import annotations

import pytest
from tests.support.console import Visitor

from pacsteward.feature import House
from pacsteward.security import decide

CT1 = {"ae_title": "CT1", "host": "10.1.2.3", "port": 104, "services": ["store", "echo"]}


@pytest.fixture
def script(console: Visitor, house: House) -> Visitor:
    token = house.access.make_token("script", ["administrator"])
    console.headers["authorization"] = f"Bearer {token}"
    return console


def test_peer_lives_its_life_through_the_api(script: Visitor) -> None:
    made = script.post("/api/v1/peers", json=CT1)
    assert made.status_code == 200
    assert made.json()["services"] == ["echo", "store"]
    assert made.json()["accepts_from"] == "host"
    assert script.post("/api/v1/peers", json=CT1).status_code == 409
    changed = script.put("/api/v1/peers/CT1", json={"host": "10.1.2.4", "port": 11112})
    assert changed.json()["port"] == 11112
    assert [peer["ae_title"] for peer in script.get("/api/v1/peers").json()] == ["CT1"]
    assert script.get("/api/v1/peers/CT1").json()["host"] == "10.1.2.4"
    assert script.delete("/api/v1/peers/CT1").status_code == 200
    assert script.get("/api/v1/peers/CT1").status_code == 404


@pytest.mark.parametrize(
    "change",
    [{"port": "x"}, {"port": 0}, {"services": ["delete"]}, {"ae_title": "X" * 17}, {"host": None}],
)
def test_what_cannot_be_right_is_400(script: Visitor, change: dict[str, object]) -> None:
    answer = script.post("/api/v1/peers", json={**CT1, **change})
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"


def test_unknown_caller_is_admitted(script: Visitor, house: House) -> None:
    decide(house.peers, calling_ae_title="US1", address="10.0.0.7", admit_unknown="never")
    callers = script.get("/api/v1/unknown-callers").json()
    assert [(caller["ae_title"], caller["calls"]) for caller in callers] == [("US1", 1)]
    made = script.post("/api/v1/unknown-callers/admit", json={"ae_title": "US1", "port": 11112})
    assert made.json()["accepts_from"] == "10.0.0.7"
    assert script.get("/api/v1/unknown-callers").json() == []
