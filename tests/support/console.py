"""Rooms behind the real HTTP door, over a house without an archive; for tests of pages and API."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import argon2
import pytest
from starlette.testclient import TestClient

from pacsteward.app import FLOOR_SETTINGS, Place
from pacsteward.application import build_application
from pacsteward.base.clock import Clock
from pacsteward.base.db import Database
from pacsteward.base.secrets import Secrets
from pacsteward.base.settings import load
from pacsteward.feature import Feature, House
from pacsteward.security import Access, AuditBook, PeerBook, SecuritySettings

PASSWORD = "correct horse battery"


def cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash passwords with parameters that take no time."""
    cheap = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr("pacsteward.security.passwords.PasswordHasher", lambda: cheap)


def small_house(database: Database, clock: Clock, **settings: Any) -> House:
    """Put together what rooms without images need.

    Parameters
    ----------
    settings
        By full name, with two underscores for the dot: ``web__public_url="https://…"``.
    """
    overrides = {name.replace("__", "."): value for name, value in settings.items()}
    loaded = load(FLOOR_SETTINGS, environ={}, overrides=overrides)
    audit = AuditBook(database, clock)
    parts: dict[str, Any] = {field.name: None for field in fields(House)}
    return House(
        **parts
        | {
            "settings": loaded,
            "database": database,
            "clock": clock,
            "peers": PeerBook(database, clock, audit),
            "access": Access(database, clock, audit, loaded.of(SecuritySettings)),
            "audit": audit,
            "secrets": Secrets(Path(tempfile.mkdtemp(prefix="secrets-"))),
        }
    )


class Visitor(TestClient):
    """A browser, or a script, in front of the door."""

    def sign_in(self, name: str, password: str = PASSWORD) -> Visitor:
        answer = self.post("/login", data={"username": name, "password": password})
        assert answer.status_code == 303, answer.text
        return self

    def form_token(self, path: str) -> str:
        found = re.search(r'name="form_token" value="([0-9a-f]+)"', self.get(path).text)
        assert found, f"{path} has no form"
        return found[1]

    def fill_in(self, page: str, path: str, **fields: Any) -> Any:
        """Fill in a form of `page` and send it to `path`."""
        return self.post(path, data={"form_token": self.form_token(page), **fields})


def visitor(house: House, *rooms: Feature, **more: Any) -> Visitor:
    """Open the door of a house with these rooms."""
    application = build_application(Place(house.settings, rooms), house)
    return Visitor(
        application,
        base_url="http://pacs.example",
        follow_redirects=False,
        client=("127.0.0.1", 50000),
        raise_server_exceptions=False,
        **more,
    )


@contextlib.contextmanager
def bearer(client: Visitor, token: str) -> Iterator[Visitor]:
    """Have `client` show a token, and no cookies, for a while."""
    cookies = dict(client.cookies)
    client.cookies.clear()
    client.headers["authorization"] = f"Bearer {token}"
    try:
        yield client
    finally:
        del client.headers["authorization"]
        client.cookies.update(cookies)
