"""A house whose archive is empty, and somebody who searches it over DICOMweb."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from tests.support.console import small_house

from pacsteward.archive import Archive, ArchiveSettings
from pacsteward.base.clock import SystemClock
from pacsteward.base.db import Database
from pacsteward.base.events import FactLog
from pacsteward.base.settings import load
from pacsteward.dicom.settings import DicomSettings
from pacsteward.feature import House
from pacsteward.features.query.feature import FEATURE
from pacsteward.security import Actor


@pytest.fixture
def house(
    sqlite_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[House]:
    """Give a house with an empty archive, which is searched on event loops, too."""
    monkeypatch.setattr("pacsteward.archive.find.AT_ONCE_S", 10.0)
    clock = SystemClock()
    small = small_house(sqlite_database, clock)
    sections: tuple[type[Any], ...] = (ArchiveSettings, DicomSettings, *FEATURE.settings)
    settings = load(sections, environ={}, overrides={})
    archive = Archive.as_reader(
        tmp_path,
        sqlite_database,
        settings.of(ArchiveSettings),
        clock,
        FactLog(clock),
        small.audit,
    )
    house = replace(small, settings=settings, archive=archive)
    # A loop opens no connection to the database; it takes that of a thread which asked before.
    sqlite_database.glance("SELECT 1")
    yield house
    house.audit.close()


@pytest.fixture
def asked_by_web() -> Request:
    """Ask for the studies of a patient."""
    return Request(
        {
            "type": "http",
            "method": "GET",
            "scheme": "http",
            "path": "/dicom-web/studies",
            "query_string": b"PatientID=nobody",
            "headers": [(b"host", b"pacs.example")],
            "path_params": {},
            "state": {"actor": Actor("person", "ada", frozenset(), "192.0.2.7")},
        }
    )
