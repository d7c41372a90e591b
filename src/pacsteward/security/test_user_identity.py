"""Who is at a DICOM workstation."""

from __future__ import annotations

import pytest

from pacsteward.security import Access, AuditBook, SignInFailed
from pacsteward.security.actor import Actor
from pacsteward.security.user_identity import narrowed, user_of

PASSWORD = "correct horse battery"
HERE = {"ae_title": "WORKPLACE", "address": "192.0.2.7"}


def test_a_right_password_is_looked_at_once_a_minute_and_not_after_a_change(
    access: Access, audit: AuditBook
) -> None:
    access.add_person("rita", PASSWORD, ["radiologist"])
    for _ in range(3):
        user = user_of(access, 2, b" Rita ", PASSWORD.encode(), **HERE)
        assert user is not None
        assert (user.kind, user.name) == ("person", "rita")
    assert sum(entry.title == "Login" for entry in audit.entries()) == 1
    access.people.set_password("rita", "another horse battery")
    with pytest.raises(SignInFailed):
        user_of(access, 2, b"rita", PASSWORD.encode(), **HERE)


def test_what_a_user_may_narrows_and_never_widens() -> None:
    user = Actor("person", "rita", frozenset({"studies.find", "peers.change"}))
    of_peer = frozenset({"dimse.echo", "studies.find", "studies.store"})
    assert narrowed(of_peer, user) == {"dimse.echo", "studies.find"}
    everything = Actor("person", "ada", frozenset({"*"}))
    assert narrowed(of_peer, everything) == of_peer
    assert narrowed(frozenset(), everything) == frozenset()


@pytest.mark.parametrize(
    ("name", "passcode"),
    [(b"rita", b"wrong"), (b"nobody", PASSWORD.encode()), (b"", b""), (b"\xff", b"\xff\0")],
)
def test_what_does_not_fit_is_refused(access: Access, name: bytes, passcode: bytes) -> None:
    access.add_person("rita", PASSWORD, ["radiologist"])
    with pytest.raises(SignInFailed):
        user_of(access, 2, name, passcode, **HERE)


@pytest.mark.parametrize("kind", [1, 3, 4, 5, 0, 255])
def test_other_kinds_are_nobody(access: Access, kind: int) -> None:
    assert user_of(access, kind, b"admin", b"", **HERE) is None
