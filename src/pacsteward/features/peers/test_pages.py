"""Connections in the console: forms, unknown callers, and the echo that explains itself."""

from __future__ import annotations

import pytest
from tests.support.console import Visitor

from pacsteward.feature import House
from pacsteward.features.peers.echo import EchoResult
from pacsteward.security import Peer, decide

FILLED = {
    "ae_title": "CT1",
    "host": "10.1.2.3",
    "port": "104",
    "services": ["echo", "store"],
    "accepts": "host",
    "description": "CT, emergency",
    "max_parallel": "0",
}


def test_empty_list_says_what_to_do(console: Visitor) -> None:
    text = console.sign_in("ada").get("/peers").text
    assert "No machine is registered yet" in text
    assert "Register the first peer" in text
    assert "PACSTEWARD" in text


def test_peer_is_registered_by_form(console: Visitor, house: House) -> None:
    console.sign_in("ada")
    answer = console.fill_in("/peers/new", "/peers/new", **FILLED)
    assert (answer.status_code, answer.headers["location"]) == (303, "/peers")
    assert house.peers.need("CT1") == Peer(
        "CT1", "10.1.2.3", 104, frozenset({"echo", "store"}), "CT, emergency"
    )
    text = console.get("/peers").text
    assert "CT1 was registered." in text
    assert "10.1.2.3:104" in text
    assert house.audit.entries()[0].what.startswith("ada registered the peer CT1")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ae_title": "A\\B"}, "is no AE title"),
        ({"host": "not a host"}, "is no host"),
        ({"port": "x"}, "Port must be a whole number"),
        ({"port": "70000"}, "is no port"),
        ({"services": ["delete"]}, "There is no service delete"),
        ({"accepts": "address", "accepts_from": "10.0.0.0/99"}, "no address to accept calls from"),
    ],
)
def test_fault_is_shown_with_what_was_filled_in(
    console: Visitor, house: House, change: dict[str, str], words: str
) -> None:
    console.sign_in("ada")
    answer = console.fill_in("/peers/new", "/peers/new", **{**FILLED, **change})
    assert answer.status_code == 400
    assert words in answer.text
    assert "CT, emergency" in answer.text
    assert house.peers.all() == []


@pytest.mark.parametrize(
    ("accepts", "written", "kept"),
    [("host", "", "host"), ("any", "", ""), ("address", "10.1.0.0/16", "10.1.0.0/16")],
)
def test_form_says_where_a_peer_may_call_from(
    console: Visitor, house: House, accepts: str, written: str, kept: str
) -> None:
    console.sign_in("ada")
    fields = {**FILLED, "accepts": accepts, "accepts_from": written}
    console.fill_in("/peers/new", "/peers/new", **fields)
    assert house.peers.need("CT1").accepts_from == kept


def test_peer_is_changed_and_removed_by_form(console: Visitor, house: House) -> None:
    house.peers.add(Peer("CT 1&x", "10.1.2.3", 104))
    console.sign_in("ada")
    page = "/peers/edit?ae_title=CT%201%26x"
    console.fill_in(page, "/peers/edit", **{**FILLED, "ae_title": "CT 1&x", "port": "11112"})
    assert house.peers.need("CT 1&x").port == 11112
    console.fill_in(page, "/peers/remove", ae_title="CT 1&x")
    assert house.peers.all() == []


def test_a_number_that_few_machines_need_may_be_emptied(console: Visitor, house: House) -> None:
    console.sign_in("ada")
    console.fill_in("/peers/new", "/peers/new", **{**FILLED, "max_parallel": ""})
    assert house.peers.need("CT1").max_parallel == 0


def test_list_is_searched(console: Visitor, house: House) -> None:
    for title in ("CT1", "CT2", "MR1"):
        house.peers.add(Peer(title, "10.1.2.3", 104))
    text = console.sign_in("ada").get("/peers?q=ct").text
    assert "CT2" in text
    assert "MR1" not in text
    assert "No peer matches" in console.get("/peers?q=zz").text


def test_unknown_caller_is_admitted_with_one_click(console: Visitor, house: House) -> None:
    decide(house.peers, calling_ae_title="US<b>", address="10.0.0.7", admit_unknown="never")
    console.sign_in("ada")
    text = console.get("/peers").text
    assert "US&lt;b&gt;" in text
    answer = console.fill_in("/peers", "/peers/unknown/admit", ae_title="US<b>", address="10.0.0.7")
    assert answer.headers["location"] == "/peers/edit?ae_title=US%3Cb%3E"
    assert house.peers.need("US<b>").accepts_from == "10.0.0.7"
    assert house.peers.unknown_callers() == []


def test_unknown_caller_is_forgotten(console: Visitor, house: House) -> None:
    decide(house.peers, calling_ae_title="US1", address="10.0.0.7", admit_unknown="never")
    console.sign_in("ada")
    console.fill_in("/peers", "/peers/unknown/forget", ae_title="US1", address="10.0.0.7")
    assert house.peers.unknown_callers() == []
    assert house.peers.all() == []


def test_echo_says_how_it_went_on_the_page_and_in_the_row(
    console: Visitor, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.peers.add(Peer("CT1", "10.1.2.3", 104))

    async def refused(peer: Peer, calling: str) -> EchoResult:
        return EchoResult(peer.ae_title, False, f"No {calling} <i>.", "Why.", "Do this.", 1.5)

    monkeypatch.setattr("pacsteward.features.peers.echo.echo_peer", refused)
    console.sign_in("ada")
    answer = console.fill_in("/peers", "/peers/echo", ae_title="CT1")
    assert answer.headers["location"] == "/peers"
    assert "No PACSTEWARD &lt;i&gt;. Why. Do this. (1.5 ms)" in console.get("/peers").text
    token = console.form_token("/peers")
    part = console.post(
        "/peers/echo",
        data={"ae_title": "CT1", "form_token": token},
        headers={"hx-request": "true"},
    )
    assert "<html" not in part.text
    assert "Do this." in part.text
    assert house.peers.states()["CT1"].last_echo_succeeded is False


def test_technologist_sees_and_echoes_but_changes_nothing(console: Visitor, house: House) -> None:
    house.peers.add(Peer("CT1", "10.1.2.3", 104))
    console.sign_in("tom")
    text = console.get("/peers").text
    assert "Echo CT1" in text
    assert "/peers/new" not in text
    assert console.get("/peers/new").status_code == 403
    token = console.form_token("/peers")
    for path in ("/peers/remove", "/peers/edit", "/peers/unknown/admit"):
        sent = console.post(path, data={"ae_title": "CT1", "form_token": token})
        assert sent.status_code == 403
    assert house.peers.get("CT1") is not None


def test_peer_that_is_gone_is_404(console: Visitor) -> None:
    console.sign_in("ada")
    assert console.get("/peers/edit?ae_title=GONE").status_code == 404
    assert console.get("/peers/edit?ae_title=%00%0a").status_code == 404
    assert console.fill_in("/peers/new", "/peers/echo", ae_title="GONE").status_code == 404
