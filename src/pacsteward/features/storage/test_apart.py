"""STOW-RS requests whose metadata and bulk data come apart: many at once, and what fails."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from tests.support.console import small_house
from tests.support.samples import small

from pacsteward.archive import Archive, ArchiveSettings, Space
from pacsteward.archive.fixtures import sender as sent
from pacsteward.base.clock import ManualClock
from pacsteward.base.db import Database
from pacsteward.base.errors import Exhausted, Unavailable
from pacsteward.base.events import FactLog
from pacsteward.base.settings import load
from pacsteward.dicom.web.bodies import IN_MEMORY_BYTES
from pacsteward.dicom.web.errors import TooLarge
from pacsteward.dicom.web.negotiation import parse_media_type
from pacsteward.feature import House
from pacsteward.features.storage import apart
from pacsteward.features.storage.settings import StorageSettings
from pacsteward.features.storage.stow import Failed, Stored, Verdict
from pacsteward.security import HOUSE

JSON = parse_media_type("application/dicom+json")
LARGE = IN_MEMORY_BYTES + 1


@pytest.fixture
def house(sqlite_database: Database, tmp_path: Path, clock: ManualClock) -> Iterator[House]:
    """Give a house whose archive takes instances."""
    built = small_house(sqlite_database, clock)
    settings = load([ArchiveSettings, StorageSettings], environ={})
    archive = Archive.as_reader(
        tmp_path,
        sqlite_database,
        settings.of(ArchiveSettings),
        clock,
        FactLog(clock),
        built.audit,
    )
    with sent.running(tmp_path, sqlite_database) as keeping, sent.serving(keeping):
        yield replace(built, archive=archive, settings=settings)
        archive.close()
    built.audit.close()


class Sender:
    """One request, whose body comes when it may.

    Parameters
    ----------
    announced
        Its Content-Length; None for none.
    """

    def __init__(self, *models: dict[str, Any], announced: int | None = None) -> None:
        self._body = json.dumps(models).encode()
        self._headers = []
        if announced is not None:
            self._headers.append((b"content-length", b"%d" % announced))
        self.may_send = asyncio.Event()
        self.is_awaited = asyncio.Event()

    async def _receive(self) -> dict[str, Any]:
        self.is_awaited.set()
        await self.may_send.wait()
        return {"type": "http.request", "body": self._body, "more_body": False}

    async def send(self, house: House) -> list[Verdict]:
        scope = {
            "type": "http",
            "method": "POST",
            "headers": self._headers,
            "state": {"actor": HOUSE},
        }
        return await apart.store_apart(house, Request(scope, self._receive), JSON, "")


def _model(number: int) -> dict[str, Any]:
    model: dict[str, Any] = small(44, 1, number).to_json_dict()
    return model


def test_of_many_requests_a_few_are_received_at_a_time(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is spooled whole, and together they could fill the disk that images are kept on."""
    monkeypatch.setattr(apart, "_SPOOLS", asyncio.Semaphore(3))

    async def run() -> list[list[Verdict]]:
        senders = [Sender(_model(number)) for number in range(1, 6)]
        sending = [asyncio.create_task(sender.send(house)) for sender in senders]
        for sender in senders[:3]:
            await sender.is_awaited.wait()
        assert [sender.is_awaited.is_set() for sender in senders] == [True] * 3 + [False] * 2
        senders[1].may_send.set()
        await senders[3].is_awaited.wait()
        assert not senders[4].is_awaited.is_set()
        for sender in senders:
            sender.may_send.set()
        return await asyncio.gather(*sending)

    for verdicts in asyncio.run(run()):
        assert [type(verdict) for verdict in verdicts] == [Stored]


def test_a_small_request_waits_for_no_large_one(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It never lies on the disk; a few slow senders must not close the door to all."""
    monkeypatch.setattr(apart, "_SPOOLS", asyncio.Semaphore(0))
    monkeypatch.setattr(apart, "WAIT_S", 0.01)
    sender = Sender(_model(10), announced=IN_MEMORY_BYTES)
    sender.may_send.set()
    (verdict,) = asyncio.run(sender.send(house))
    assert isinstance(verdict, Stored)


@pytest.mark.parametrize("announced", [None, LARGE])
def test_a_large_request_is_told_to_come_again_when_it_waited_for_long(
    house: House, monkeypatch: pytest.MonkeyPatch, announced: int | None
) -> None:
    monkeypatch.setattr(apart, "_SPOOLS", asyncio.Semaphore(0))
    monkeypatch.setattr(apart, "WAIT_S", 0.01)
    with pytest.raises(Unavailable, match="announce their length"):
        asyncio.run(Sender(announced=announced).send(house))


def test_what_is_too_large_in_any_case_is_refused_without_waiting(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apart, "_SPOOLS", asyncio.Semaphore(0))
    monkeypatch.setattr(apart, "WAIT_S", 0.01)
    with pytest.raises(TooLarge):
        asyncio.run(Sender(announced=1 << 60).send(house))


@pytest.mark.parametrize(
    ("announced", "free_bytes", "is_taken"),
    [
        (LARGE, 1000 + 2 * LARGE, True),
        (LARGE, 1000 + 2 * LARGE - 1, False),
        (None, 1001, True),
        (None, 1000, False),
        (1000, 1000, True),  # it needs no room there; the archive refuses its instances
    ],
)
def test_what_would_use_up_the_reserve_is_refused_before_it_is_received(
    house: House,
    monkeypatch: pytest.MonkeyPatch,
    announced: int | None,
    free_bytes: int,
    is_taken: bool,
) -> None:
    places = asyncio.Semaphore(1)
    monkeypatch.setattr(apart, "_SPOOLS", places)
    monkeypatch.setattr(house.archive, "space", lambda: Space(1 << 40, free_bytes, 1000))
    sender = Sender(_model(11), announced=announced)
    sender.may_send.set()
    if is_taken:
        (verdict,) = asyncio.run(sender.send(house))
        assert isinstance(verdict, Stored)
    else:
        with pytest.raises(Exhausted, match="twice its length"):
            asyncio.run(sender.send(house))
    assert sender.is_awaited.is_set() is is_taken
    assert not places.locked()


def test_what_nobody_foresaw_is_the_failure_of_one_instance(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The sender is to know that the others are safe."""
    store = apart.store_instance
    calls: list[int] = []

    def fail_once(*given: Any, **more: Any) -> Verdict:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("Nobody foresaw this.")
        return store(*given, **more)

    monkeypatch.setattr(apart, "store_instance", fail_once)

    async def run() -> list[Verdict]:
        sender = Sender(*(_model(number) for number in (7, 8, 9)))
        sender.may_send.set()
        return await sender.send(house)

    with caplog.at_level(logging.ERROR):
        first, second, third = asyncio.run(run())
    assert isinstance(first, Stored)
    assert isinstance(second, Failed)
    assert (second.reason, second.sop_instance_uid) == (0x0110, "2.25.99.44.1.8")
    assert isinstance(third, Stored)
    assert "Nobody foresaw this." in caplog.text
