"""People, tokens and the audit book from the command line."""

from __future__ import annotations

import io

import pytest
from tests.support.console import PASSWORD, small_house

from pacsteward.base.clock import ManualClock
from pacsteward.base.db import Database
from pacsteward.base.errors import Broken, Invalid
from pacsteward.feature import House
from pacsteward.features.access import checks, cli
from pacsteward.security import AuditFilter


def give(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def test_token_is_printed_alone(house: House) -> None:
    text = cli.token(house, "mirror", roles=("machine",))
    assert text.startswith("pst_")
    assert " " not in text
    actor = house.access.actor_of_token(text, "")
    assert actor is not None
    assert actor.roles == {"machine"}


def test_revoked_token_is_listed_as_such(house: House) -> None:
    cli.token(house, "mirror", roles=("machine,auditor",), expires="2099-12-31")
    cli.revoke(house, "mirror")
    rows = {row.name: (row.kind, row.state) for row in cli.list_accounts(house)}
    assert rows == {
        "ada": ("person", "active"),
        "tom": ("person", "active"),
        "mirror": ("token", "revoked"),
    }


def test_person_is_added_with_a_password_from_standard_input(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(monkeypatch, "a long password\nmore\n")
    cli.add_person(house, "eve", roles=("radiologist",), password_stdin=True)
    session = house.access.sign_in("eve", "a long password", "")
    assert session.has_given_password


def test_no_password_on_standard_input_is_a_fault(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(monkeypatch, "")
    with pytest.raises(Invalid, match="No password came"):
        cli.add_person(house, "eve", roles=("radiologist",), password_stdin=True)


def test_person_without_a_password_gets_a_random_one(house: House) -> None:
    said = cli.add_person(house, "eve", roles=("radiologist",))
    house.access.sign_in("eve", said.split(" password ")[1].split()[0], "")


def test_lost_administrators_password_is_reset(house: House) -> None:
    said = cli.reset_password(house, "ada")
    session = house.access.sign_in("ada", said.split(" now ")[1].split()[0], "")
    assert session.has_given_password


def test_disabled_person_is_enabled_again(house: House) -> None:
    cli.disable(house, "tom")
    assert house.access.people.need("tom").is_disabled
    cli.enable(house, "tom")
    house.access.sign_in("tom", PASSWORD, "")
    cli.change_roles(house, "tom", roles=("machine", "auditor"))
    assert house.access.people.need("tom").roles == {"machine", "auditor"}
    cli.remove_person(house, "tom")
    assert house.access.people.get("tom") is None


def test_audit_is_read_and_verified(house: House) -> None:
    assert cli.audit(house, limit=1)[0].what.endswith("added tom as auditor.")
    assert cli.verify_audit(house).startswith("The audit book is whole: 3 entries")
    read = house.audit.entries(AuditFilter(), limit=1)[0]
    assert read.actor.endswith("at the command line")
    assert read.what.endswith("read the audit book.")
    with house.database.write() as connection:
        connection.exec_driver_sql("DELETE FROM audit_entry WHERE sequence = 3")
    with pytest.raises(Broken, match="cut off"):
        cli.verify_audit(house)


def test_checks_find_broken_books_given_passwords_and_idle_accounts(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    house = small_house(sqlite_database, clock)
    house.access.ensure_administrator()
    statuses = {one.check.name: one.ask(house).status for one in checks.CHECKS}
    assert statuses == {
        "is_audit_book_whole": "ok",
        "are_passwords_own": "warning",
        "are_accounts_used": "ok",
    }
    clock.advance(61 * 86_400)
    with house.database.write() as connection:
        connection.exec_driver_sql("UPDATE audit_entry SET what = 'x'")
    found = {one.check.name: one.ask(house) for one in checks.CHECKS}
    assert {name: (one.status, one.link) for name, one in found.items()} == {
        "is_audit_book_whole": ("critical", "/audit/chain"),
        "are_passwords_own": ("warning", "/people"),
        "are_accounts_used": ("warning", "/people"),
    }
