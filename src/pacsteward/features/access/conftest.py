"""What the tests of this room share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.console import PASSWORD, Visitor, cheap_passwords, small_house, visitor
from tests.support.full_disk import FullDisk

from pacsteward.base.clock import SystemClock
from pacsteward.base.db import Database
from pacsteward.feature import House
from pacsteward.features.access.feature import FEATURE


@pytest.fixture
def house(sqlite_database: Database, monkeypatch: pytest.MonkeyPatch) -> House:
    """Give a house with an administrator, ada, and an auditor, tom."""
    cheap_passwords(monkeypatch)
    house = small_house(sqlite_database, SystemClock())
    house.access.add_person("ada", PASSWORD, ["administrator"])
    house.access.add_person("tom", PASSWORD, ["auditor"])
    return house


@pytest.fixture
def console(house: House) -> Visitor:
    """Give the console of that house."""
    return visitor(house, FEATURE)


@pytest.fixture
def disk(house: House, monkeypatch: pytest.MonkeyPatch) -> Iterator[FullDisk]:
    """Give the disk of that house's database."""
    disk = FullDisk(house.database, monkeypatch)
    yield disk
    disk.is_full = disk.is_locked = False
    house.audit.close()
