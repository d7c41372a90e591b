"""People, tokens and the own account in the console, as a visitor meets them."""

from __future__ import annotations

import contextlib
import re
import threading
from typing import Any

import pytest
from tests.support.console import PASSWORD, Visitor, bearer
from tests.support.full_disk import FullDisk

from pacsteward.feature import House
from pacsteward.security import (
    Actor,
    AuditEntry,
    AuditEvent,
    AuditEventType,
    AuditFilter,
    AuditObject,
    AuditOutcome,
)


def test_person_is_added_and_asked_for_an_own_password(console: Visitor, house: House) -> None:
    console.sign_in("ada")
    answer = console.fill_in(
        "/people/new",
        "/people/new",
        name="Eve",
        password="a first password",
        roles=["radiologist", "auditor"],
    )
    assert answer.headers["location"] == "/people"
    assert "eve was added" in console.get("/people").text
    person = house.access.people.need("eve")
    assert person.roles == {"radiologist", "auditor"}
    assert person.has_given_password
    console.sign_in("eve", "a first password")
    assert "chosen by somebody else" in console.get("/audit").text


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "a b", "password": "a first password", "roles": "auditor"}, "name cannot"),
        ({"name": "eve", "password": "short", "roles": "auditor"}, "password cannot be taken"),
        ({"name": "eve", "password": "a first password"}, "No role was given"),
        ({"name": "ada", "password": "a first password", "roles": "auditor"}, "exists already"),
        ({"name": "eve", "password": "a first password", "roles": "king"}, "There is no role"),
    ],
)
def test_fault_is_shown_without_the_password(
    console: Visitor, fields: dict[str, str], words: str
) -> None:
    console.sign_in("ada")
    answer = console.fill_in("/people/new", "/people/new", **fields)
    assert answer.status_code == 400
    assert words in answer.text
    assert fields["password"] not in answer.text


def test_roles_change_at_once(console: Visitor, house: House) -> None:
    console.sign_in("tom")
    cookie = console.cookies["pacsteward_session"]
    assert console.get("/audit").status_code == 200
    console.cookies.clear()
    console.sign_in("ada")
    console.fill_in("/people/edit?name=tom", "/people/roles", name="tom", roles="radiologist")
    console.cookies.clear()
    console.cookies.set("pacsteward_session", cookie, domain="pacs.example")
    assert console.get("/audit").status_code == 403


def test_disabled_person_is_out_at_once(console: Visitor) -> None:
    console.sign_in("tom")
    cookie = console.cookies["pacsteward_session"]
    assert console.get("/audit").status_code == 200
    console.cookies.clear()
    console.sign_in("ada")
    console.fill_in("/people/edit?name=tom", "/people/disable", name="tom", is_disabled="yes")
    console.cookies.clear()
    console.cookies.set("pacsteward_session", cookie, domain="pacs.example")
    assert console.get("/audit").status_code == 302
    console.sign_in("ada")
    console.fill_in("/people/edit?name=tom", "/people/disable", name="tom")
    console.sign_in("tom")


def test_last_administrator_stays(console: Visitor, house: House) -> None:
    console.sign_in("ada")
    for path, fields in (
        ("/people/disable", {"is_disabled": "yes"}),
        ("/people/remove", {}),
        ("/people/roles", {"roles": "auditor"}),
    ):
        answer = console.fill_in("/people/edit?name=ada", path, name="ada", **fields)
        assert answer.status_code == 400
        assert "nobody who can change people" in answer.text


def test_reset_password_is_shown_once(console: Visitor) -> None:
    console.sign_in("ada")
    answer = console.fill_in("/people/edit?name=tom", "/people/reset", name="tom")
    found = re.search(r"<code>([^<]+)</code>", answer.text)
    assert found
    assert found[1] not in console.get("/people/edit?name=tom").text
    console.sign_in("tom", found[1])


def test_removed_person_is_gone(console: Visitor, house: House) -> None:
    console.sign_in("ada")
    console.fill_in("/people/edit?name=tom", "/people/remove", name="tom")
    assert house.access.people.get("tom") is None
    assert console.get("/people/edit?name=tom").status_code == 404


def test_token_is_shown_once_and_revoked(console: Visitor, house: House) -> None:
    console.sign_in("ada")
    answer = console.fill_in(
        "/tokens", "/tokens/make", name="mirror", roles="machine", expires="2099-12-31"
    )
    found = re.search(r"<code>(pst_[^<]+)</code>", answer.text)
    assert found
    assert house.access.actor_of_token(found[1], "") is not None
    assert found[1] not in console.get("/tokens").text
    console.fill_in("/tokens", "/tokens/revoke", name="mirror")
    assert house.access.actor_of_token(found[1], "") is None
    assert "revoked" in console.get("/tokens").text


def test_token_with_a_fault_keeps_the_form(console: Visitor) -> None:
    console.sign_in("ada")
    for fields, words in (
        ({"name": "mirror", "roles": "machine", "expires": "31.12.2099"}, "is no date"),
        ({"name": "mirror", "roles": "machine", "expires": "2001-01-01"}, "before its first use"),
        ({"name": "mirror"}, "No role was given"),
        ({"name": "", "roles": "machine"}, "name cannot be taken"),
    ):
        answer = console.fill_in("/tokens", "/tokens/make", **fields)
        assert answer.status_code == 400
        assert words in answer.text


def test_who_is_signed_out_on_a_form_with_a_fault_comes_back_to_its_page(console: Visitor) -> None:
    console.sign_in("ada")
    wrong = {"name": "mirror", "roles": "machine", "expires": "2001-01-01"}
    assert console.fill_in("/tokens", "/tokens/make", **wrong).status_code == 400
    console.cookies.clear()
    here = {"referer": "http://pacs.example/tokens/make"}
    link = console.post("/tokens/make", data=wrong, headers=here).headers["location"]
    signed_in = console.post(
        link, data={"username": "ada", "password": PASSWORD, "next": "/tokens"}
    )
    assert link == "/login?next=%2Ftokens"
    assert console.get(signed_in.headers["location"]).status_code == 200


def test_own_password_is_changed(console: Visitor, house: House) -> None:
    console.sign_in("tom")
    new = "quite another one"
    answer = console.fill_in(
        "/account", "/account/password", present=PASSWORD, password=new, again=new
    )
    assert answer.headers["location"] == "/account"
    assert console.get("/account").status_code == 200
    console.sign_in("tom", new)


@pytest.mark.parametrize(
    ("present", "password", "again"),
    [
        ("wrong", "quite another one", "quite another one"),
        (PASSWORD, "quite another one", "differs"),
        (PASSWORD, "short", "short"),
    ],
)
def test_own_password_with_a_fault_stays(
    console: Visitor, present: str, password: str, again: str
) -> None:
    console.sign_in("tom")
    answer = console.fill_in(
        "/account", "/account/password", present=present, password=password, again=again
    )
    assert answer.status_code == 400
    console.sign_in("tom")


def test_guessing_the_present_password_is_as_slow_as_signing_in(
    console: Visitor, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that somebody left open must not give the password away."""
    waits: list[float] = []

    async def note(seconds: float) -> None:
        waits.append(seconds)

    console.sign_in("tom")
    monkeypatch.setattr("pacsteward.features.access.pages.asyncio.sleep", note)
    new = {"password": "quite another one", "again": "quite another one"}
    for number in range(8):
        console.fill_in("/account", "/account/password", present=f"guess {number}", **new)
    assert waits == [0, 0, 0, 0, 0, 0.5, 0.5, 0.5]
    entry = house.audit.entries(AuditFilter(only_failures=True))[0]
    assert "tom gave a wrong present password" in entry.what
    answer = console.fill_in("/account", "/account/password", present=PASSWORD, **new)
    assert answer.headers["location"] == "/account"
    assert waits[8:] == [2.0]


def test_present_passwords_are_tried_by_few_at_a_time(console: Visitor, house: House) -> None:
    console.sign_in("tom")
    with contextlib.ExitStack() as others:
        for _ in range(4):
            others.enter_context(house.access.guard.queue("127.0.0.1"))
        new = {"password": "quite another one", "again": "quite another one"}
        answer = console.fill_in("/account", "/account/password", present=PASSWORD, **new)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "10")
    assert "Too many people" in answer.text
    console.sign_in("tom")


def test_own_passwords_are_hashed_in_threads_of_their_own(
    console: Visitor, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crowd that changes its passwords keeps nobody else's requests out of the common ones."""
    threads: list[str] = []
    change = house.access.change_own_password

    def note(*values: Any, **more: Any) -> None:
        threads.append(threading.current_thread().name.partition("_")[0])
        change(*values, **more)

    console.sign_in("tom")
    monkeypatch.setattr(house.access, "change_own_password", note)
    new = {"password": "quite another one", "again": "quite another one"}
    answer = console.fill_in("/account", "/account/password", present=PASSWORD, **new)
    assert answer.headers["location"] == "/account"
    assert threads == ["passwords"]


@pytest.mark.parametrize(
    ("page", "path", "fields"),
    [
        (
            "/account",
            "/account/password",
            {"present": PASSWORD, "password": "quite another one", "again": "quite another one"},
        ),
        ("/people/new", "/people/new", {"name": "eve", "password": PASSWORD, "roles": "auditor"}),
        ("/people/edit?name=tom", "/people/roles", {"name": "tom", "roles": "machine"}),
        ("/people/edit?name=tom", "/people/remove", {"name": "tom"}),
        ("/tokens", "/tokens/make", {"name": "mirror", "roles": "machine"}),
    ],
)
def test_what_a_full_disk_does_not_take_is_no_fault_of_who_asked(
    console: Visitor,
    house: House,
    monkeypatch: pytest.MonkeyPatch,
    page: str,
    path: str,
    fields: dict[str, str],
) -> None:
    console.sign_in("ada")
    token = console.form_token(page)
    disk = FullDisk(house.database, monkeypatch)
    disk.is_full = True
    answer = console.post(path, data={"form_token": token, **fields})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "is full" in answer.text
    disk.is_full = False
    assert console.post(path, data={"form_token": token, **fields}).status_code < 400


def test_token_changes_no_password(console: Visitor, house: House) -> None:
    """It counts as no wrong try either, since a person may have the same name."""
    token = house.access.make_token("tom", ["administrator"])
    with bearer(console, token):
        new = {"password": "quite another one", "again": "quite another one"}
        headers = {"content-type": "application/x-www-form-urlencoded"}
        for _ in range(6):
            answer = console.post(
                "/account/password", data={"present": PASSWORD, **new}, headers=headers
            )
    assert answer.status_code == 400
    assert "is a token" in answer.text
    assert house.access.wait_s("tom", "127.0.0.1") == 0
    console.sign_in("tom")


def test_auditor_sees_which_roles_a_person_has(console: Visitor) -> None:
    console.sign_in("tom")
    page = console.get("/people/edit?name=ada").text
    assert '<span class="badge">administrator</span>' in page
    assert "Save roles" not in page


def test_audit_is_listed_filtered_and_paged(console: Visitor, house: House) -> None:
    bob = Actor("peer", "<b>BOB</b>", frozenset(), "10.0.0.1")
    for number in range(120):
        house.audit.record_access(bob, [f"1.2.{number}"], patient_ids=[f"P{number}"])
    house.audit.record_refusal(bob, "No.", event_type=AuditEventType.USE_OF_RESTRICTED_FUNCTION)
    console.sign_in("tom")
    text = console.get("/audit").text
    assert "<b>BOB" not in text
    assert "&lt;b&gt;BOB" in text
    older = re.search(r'rel="next" href="([^"]+)"', text)
    assert older
    assert "1.2.5<" in console.get(older[1].replace("&amp;", "&")).text
    one = console.get("/audit", params={"object": "1.2.7"}).text
    assert one.count("data-open-row") == 1
    assert console.get("/audit", params={"failures": "yes"}).text.count("data-open-row") == 1
    assert "No entry" in console.get("/audit", params={"q": "nothing like this"}).text
    for strange in (
        {"event": "x", "since": "x", "before": "x"},
        {"actor": "\x00", "q": "%_\\"},
        {"since": "2026-13-45", "until": "9999-12-31", "before": "9" * 30},
    ):
        assert console.get("/audit", params=strange).status_code == 200


def test_entry_is_shown_with_its_message(console: Visitor) -> None:
    console.sign_in("tom")
    text = console.get("/audit/1").text
    assert "&lt;AuditMessage&gt;" in text
    assert console.get("/audit/99999").status_code == 404


def test_chain_is_walked_on_demand(console: Visitor, house: House) -> None:
    console.sign_in("tom")
    assert "The audit book is whole." in console.get("/audit/chain").text
    with house.database.write() as connection:
        connection.exec_driver_sql("UPDATE audit_entry SET actor = 'x' WHERE sequence = 1")
    text = console.get("/audit/chain").text
    assert "The audit book is broken." in text
    assert "Entry 1 is not what was recorded" in text


def test_book_is_read_while_the_disk_is_full_and_says_what_is_missing_in_it(
    console: Visitor, house: House, disk: FullDisk
) -> None:
    disk.is_full = True
    console.sign_in("tom")
    page = console.get("/audit")
    assert page.status_code == 200
    assert "The book cannot be written." in page.text
    assert "tom signed in" not in page.text
    assert console.get("/audit/1").status_code == 200
    assert "The audit book is whole." in console.get("/audit/chain").text
    assert console.get("/api/v1/audit").status_code == 200
    assert console.get("/api/v1/audit/1/message").status_code == 200
    disk.is_full = False
    page = console.get("/audit")
    assert "The book cannot be written." not in page.text
    assert "tom signed in" in page.text
    assert "tom read the audit book" in page.text


def test_book_of_a_locked_database_is_waited_for_once_and_is_not_called_full(
    console: Visitor, house: House, disk: FullDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    console.sign_in("tom")
    assert console.get("/audit").status_code == 200
    tries = []
    flush = house.audit._later.flush

    def counted() -> object:
        if threading.current_thread().name != "audit":
            tries.append(1)
        return flush()

    monkeypatch.setattr(house.audit._later, "flush", counted)
    assert console.get("/audit").status_code == 200
    assert len(tries) == 1
    disk.is_locked = True
    tom = Actor("person", "tom", frozenset())
    house.audit.record_query(tom, level="STUDY", keys=(), matches=1)
    page = console.get("/audit")
    assert page.status_code == 503
    assert "disk has space" in page.text
    assert 'href="">Try again</a>' in page.text
    assert "Make room" not in page.text
    assert len(tries) == 2
    disk.is_locked = False
    assert "tom searched" in console.get("/audit").text


@pytest.mark.parametrize("path", ["/audit", "/audit/1", "/api/v1/audit", "/api/v1/audit/1/message"])
def test_reading_the_book_is_an_entry_itself(console: Visitor, house: House, path: str) -> None:
    console.sign_in("tom")
    assert console.get(path).status_code == 200
    (entry,) = house.audit.entries(AuditFilter(event=AuditEvent.AUDIT_LOG_USED))
    assert (entry.actor, entry.action) == ("tom", "R")


@pytest.mark.parametrize("number", ["0", "4711", "9" * 30])
def test_an_entry_that_cannot_be_is_not_there(console: Visitor, number: str) -> None:
    console.sign_in("tom")
    assert console.get(f"/audit/{number}", headers={"accept": "text/html"}).status_code == 404


def test_transfers_are_filtered_by_event_outcome_and_job_like_all_else(
    console: Visitor, house: House
) -> None:
    ada = Actor("person", "ada", frozenset())
    for number, outcome in enumerate((AuditOutcome.SUCCESS, AuditOutcome.MINOR_FAILURE), start=1):
        house.audit.record(
            AuditEntry(
                event=AuditEvent.INSTANCES_TRANSFERRED,
                action="C",
                actor=ada,
                what=f"Sending {number}.",
                outcome=outcome,
                objects=(AuditObject("other", f"jobs/{number}"),),
            )
        )
    console.sign_in("tom")
    page = console.get("/audit?event=110104").text
    assert "<td>DICOM Instances Transferred</td>" in page
    assert "Sending 1." in page
    assert '<span class="badge bad">failed</span> Sending 2.' in page
    assert "Sending 1." not in console.get("/audit?event=110104&failures=yes").text
    assert "Sending 1." not in console.get("/audit?object=jobs/2").text
    assert "Sending 2." in console.get("/audit?object=jobs/2").text
