"""What the tests of this floor share."""

from __future__ import annotations

import pytest
from tests.support.console import cheap_passwords

from pacsteward.base.clock import ManualClock
from pacsteward.base.db import Database
from pacsteward.security import Access, AuditBook, PeerBook, SecuritySettings


@pytest.fixture(autouse=True)
def _cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    cheap_passwords(monkeypatch)


@pytest.fixture
def audit(database: Database, clock: ManualClock) -> AuditBook:
    """Give the audit book of `database`."""
    return AuditBook(database, clock)


@pytest.fixture
def access(database: Database, clock: ManualClock, audit: AuditBook) -> Access:
    """Give people, tokens and sessions of `database`."""
    return Access(database, clock, audit, SecuritySettings.model_validate({}))


@pytest.fixture
def peers(database: Database, clock: ManualClock, audit: AuditBook) -> PeerBook:
    """Give the book of peers of `database`."""
    return PeerBook(database, clock, audit)
