"""People: the first administrator, names and passwords that are taken, and who may not go."""

from __future__ import annotations

import pytest

from pacsteward.base.errors import Conflict, Invalid, NotFound
from pacsteward.security import Access, AuditBook

PASSWORD = "correct horse battery"


def test_first_start_makes_one_administrator_with_a_random_password(access: Access) -> None:
    """S1: no default password; the secret is given once."""
    password = access.ensure_administrator()
    assert password is not None
    assert len(password) >= 20
    assert access.ensure_administrator() is None
    assert access.sign_in("admin", password, "127.0.0.1").has_given_password


def test_first_start_finds_people_and_makes_nobody(access: Access) -> None:
    access.add_person("ada", PASSWORD, ["administrator"])
    assert access.ensure_administrator() is None
    assert [person.name for person in access.people.all()] == ["ada"]


def test_first_start_finds_people_but_no_administrator_and_makes_one(access: Access) -> None:
    access.add_person("rob", PASSWORD, ["radiologist"])
    assert access.ensure_administrator() is not None
    assert access.people.need("admin").roles == {"administrator"}


def test_passwords_are_kept_as_argon2_only(access: Access, database) -> None:
    access.add_person("ada", PASSWORD, ["radiologist"])
    with database.read() as connection:
        row = connection.exec_driver_sql("SELECT password_hash FROM person").one()
    assert row.password_hash.startswith("$argon2id$")
    assert PASSWORD not in row.password_hash


@pytest.mark.parametrize("name", ["", "a b", "ä", "x" * 65, "-x", "a/b", "a\nb", "<b>"])
def test_strange_names_are_refused(access: Access, name: str) -> None:
    with pytest.raises(Invalid):
        access.add_person(name, PASSWORD, ["radiologist"])


@pytest.mark.parametrize(
    "password", ["", "short", "aaaaaaaaaaaaaaaa", "ada-lovelace-1843", "x" * 300]
)
def test_weak_passwords_are_refused(access: Access, password: str) -> None:
    with pytest.raises(Invalid):
        access.add_person("ada-lovelace", password, ["radiologist"])


def test_a_name_is_taken_once_whatever_its_case(access: Access) -> None:
    access.add_person("Ada", PASSWORD, ["radiologist"])
    with pytest.raises(Conflict):
        access.add_person("ada", PASSWORD, ["radiologist"])


def test_unknown_roles_and_no_roles_are_refused(access: Access) -> None:
    for roles in (["emperor"], []):
        with pytest.raises(Invalid):
            access.add_person("ada", PASSWORD, roles)


def test_last_administrator_cannot_be_shut_out(access: Access) -> None:
    access.add_person("ada", PASSWORD, ["administrator"])
    access.add_person("bob", PASSWORD, ["radiologist"])
    for act in (
        lambda: access.people.remove("ada"),
        lambda: access.people.set_disabled("ada", is_disabled=True),
        lambda: access.people.change_roles("ada", ["auditor"]),
    ):
        with pytest.raises(Conflict):
            act()
    assert access.people.need("ada").roles == {"administrator"}
    assert not access.people.need("ada").is_disabled


def test_whoever_does_not_exist_cannot_be_changed(access: Access) -> None:
    with pytest.raises(NotFound):
        access.people.set_disabled("nobody", is_disabled=True)
    with pytest.raises(NotFound):
        access.people.reset_password("nobody")


def test_every_change_of_people_is_in_the_audit_book(access: Access, audit: AuditBook) -> None:
    access.ensure_administrator()
    access.add_person("ada", PASSWORD, ["radiologist"])
    access.people.change_roles("ada", ["auditor"])
    access.people.set_disabled("ada", is_disabled=True)
    access.people.reset_password("ada")
    access.people.remove("ada")
    sentences = [entry.what for entry in audit.entries()]
    assert len(sentences) == 6
    assert not any(PASSWORD in sentence for sentence in sentences)


def test_a_hash_of_weaker_parameters_is_renewed_at_sign_in(access: Access, database) -> None:
    import argon2

    access.add_person("ada", PASSWORD, ["radiologist"])
    weak = argon2.PasswordHasher(time_cost=1, memory_cost=16, parallelism=1).hash(PASSWORD)
    with database.write() as connection:
        connection.exec_driver_sql(f"UPDATE person SET password_hash = '{weak}'")
    access.sign_in("ada", PASSWORD, "127.0.0.1")
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT password_hash FROM person").scalar() != weak
