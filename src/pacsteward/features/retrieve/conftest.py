"""What the tests of this room share: a house with a study, and a peer that is away."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.console import small_house
from tests.support.ports import free_port

from pacsteward.archive import Archive, ArchiveSettings
from pacsteward.archive.fixtures import sender as sent
from pacsteward.base.clock import ManualClock
from pacsteward.base.db import Database
from pacsteward.base.events import FactLog
from pacsteward.base.jobs import JobQueue
from pacsteward.base.settings import load
from pacsteward.dicom.settings import DicomSettings
from pacsteward.feature import House
from pacsteward.features.retrieve.jobs import FETCH_STUDY, SEND_STUDY
from pacsteward.features.retrieve.settings import RetrieveSettings
from pacsteward.security import Peer


@pytest.fixture
def house(sqlite_database: Database, tmp_path: Path, clock: ManualClock) -> Iterator[House]:
    """Give a house with study 1.2.1 of patient P1, and the peer GONE, which does not answer."""
    with sent.running(tmp_path, sqlite_database) as keeping:
        for uid in ("1.2.3", "1.2.4"):
            keeping.store(sent.data_set(uid), uid)
        keeping.wait()
    built = small_house(sqlite_database, clock)
    settings = load([ArchiveSettings, DicomSettings, RetrieveSettings], environ={})
    archive = Archive.as_reader(
        tmp_path,
        sqlite_database,
        settings.of(ArchiveSettings),
        clock,
        FactLog(clock),
        built.audit,
    )
    built.peers.add(Peer("GONE", "127.0.0.1", free_port()))
    yield replace(
        built,
        archive=archive,
        jobs=JobQueue(sqlite_database, clock, kinds=[SEND_STUDY.kind, FETCH_STUDY.kind]),
        settings=settings,
    )
    archive.close()
    built.audit.close()
