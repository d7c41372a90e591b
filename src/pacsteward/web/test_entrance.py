"""Signing in and out by the browser, and what guessing costs."""

from __future__ import annotations

import time

import pytest
from tests.support.console import PASSWORD, Visitor

from pacsteward.security import Access
from pacsteward.web.conftest import OpenDoor


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Note the waits instead of waiting."""
    waits: list[float] = []

    async def note(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("pacsteward.web.entrance.asyncio.sleep", note)
    return waits


def test_signing_in_leads_on_and_signing_out_ends_it(door: Visitor) -> None:
    data = {"username": "ada", "password": PASSWORD, "next": "/hall?words=hello"}
    answer = door.post("/login", data=data)
    assert (answer.status_code, answer.headers["location"]) == (303, "/hall?words=hello")
    assert "hello" in door.get("/hall?words=hello").text
    cookie = dict(door.cookies)
    assert door.post("/logout").headers["location"] == "/login"
    door.cookies.update(cookie)
    assert door.get("/hall").status_code == 302


def test_sign_in_needs_nothing_but_name_and_password(door: Visitor) -> None:
    """Scripts sign in with one request."""
    answer = door.post("/login", data={"username": "ada", "password": PASSWORD})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert door.get("/", follow_redirects=True).status_code == 200


def test_first_password_works_until_it_is_changed(door: Visitor, access: Access) -> None:
    password = access.people.reset_password("rob")
    door.sign_in("rob", password)
    assert "Your password was chosen by somebody else" in door.get("/hall").text
    door.sign_in("rob", password)
    assert door.get("/hall").status_code == 200


def test_wrong_password_says_neither_which(door: Visitor) -> None:
    answers = [
        door.post("/login", data={"username": name, "password": "wrong"})
        for name in ("ada", "nobody")
    ]
    assert [answer.status_code for answer in answers] == [401, 401]
    texts = [answer.text.replace("nobody", "ada") for answer in answers]
    assert texts[0] == texts[1]


def test_session_cookie_is_out_of_reach_of_scripts_and_other_sites(
    open_door: OpenDoor,
) -> None:
    data = {"username": "ada", "password": PASSWORD}
    plain = open_door().post("/login", data=data)
    secure = open_door(public_url="https://pacs.example").post("/login", data=data)
    for answer, is_secure in ((plain, False), (secure, True)):
        cookies = answer.headers.get_list("set-cookie")
        assert len(cookies) == 2
        for cookie in cookies:
            assert "HttpOnly" in cookie
            assert "SameSite=lax" in cookie
            assert ("Secure" in cookie) is is_secure


def test_planted_session_is_never_taken_over(door: Visitor) -> None:
    """S12: fixation."""
    door.cookies.set("pacsteward_session", "planted", domain="pacs.example")
    door.sign_in("ada")
    values = [cookie.value for cookie in door.cookies.jar if cookie.name == "pacsteward_session"]
    assert values != ["planted"]
    door.cookies.clear()
    door.cookies.set("pacsteward_session", "planted", domain="pacs.example")
    assert door.get("/hall").status_code == 302


def test_signing_in_again_ends_the_session_before(door: Visitor) -> None:
    door.sign_in("ada")
    first = door.cookies["pacsteward_session"]
    door.sign_in("rob")
    door.cookies.clear()
    door.cookies.set("pacsteward_session", first, domain="pacs.example")
    assert door.get("/hall").status_code == 302


def test_guessing_is_answered_later_and_later_and_then_with_429(
    door: Visitor, no_waiting: list[float]
) -> None:
    """S12: slowed within ten tries; the right password is taken all the same."""
    statuses = [
        door.post("/login", data={"username": "ada", "password": "wrong"}).status_code
        for _ in range(12)
    ]
    assert statuses[0] == 401
    assert statuses[-1] == 429
    assert no_waiting == sorted(no_waiting)
    assert len(no_waiting) >= 5
    assert no_waiting[-1] >= 1
    door.sign_in("ada")


def test_a_wait_is_a_real_wait(door: Visitor, access: Access) -> None:
    for _ in range(5):
        access.guard.note_failure("ada", "127.0.0.1")
    began = time.monotonic()
    door.sign_in("ada")
    assert time.monotonic() - began >= 0.5


def test_too_many_waiting_tries_are_turned_away(door: Visitor, access: Access) -> None:
    from contextlib import ExitStack

    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(access.guard.queue("127.0.0.1"))
        answer = door.post("/login", data={"username": "ada", "password": PASSWORD})
        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "10"
    door.sign_in("ada")


def test_readiness_is_asked(open_door: OpenDoor) -> None:
    answer = open_door(is_ready=lambda: False).get("/readyz")
    assert answer.status_code == 503
    assert answer.json() == {"status": "not ready"}


def test_strange_forms_are_refused_without_harm(door: Visitor) -> None:
    for body, kind in (
        (b"\xff\xfe", "application/x-www-form-urlencoded"),
        (b"username=a\x00b&password=%ff", "application/x-www-form-urlencoded"),
        (b"--x\r\n\r\n", "multipart/form-data; boundary=x"),
        (b"garbage", "multipart/form-data"),
        (b"&" * 5000, "application/x-www-form-urlencoded"),
        (b"{}", "application/json"),
    ):
        answer = door.post("/login", content=body, headers={"content-type": kind})
        assert answer.status_code in (400, 401), (body[:20], answer.status_code)
