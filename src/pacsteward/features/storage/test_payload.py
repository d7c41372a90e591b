"""Parts in shared memory: their sender hears what it would hear of a part in a spool."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from pacsteward.archive import Archive, Courier, Origin, Outcome
from pacsteward.archive.arena import BLOCK_BYTES, Arena, Shelf
from pacsteward.archive.client import KeeperClient
from pacsteward.archive.courier import Couriers
from pacsteward.archive.fixtures.sender import MIB, SMALL, data_set, meta, running, serving
from pacsteward.archive.settings import ArchiveSettings
from pacsteward.base.clock import SystemClock
from pacsteward.base.db import Database
from pacsteward.dicom.part10 import FileMeta, encode_part10_head
from pacsteward.dicom.web.bodies import IN_MEMORY_BYTES
from pacsteward.dicom.web.errors import TooLarge
from pacsteward.features.storage.payload import Payload
from pacsteward.features.storage.settings import StorageSettings
from pacsteward.features.storage.stow import (
    Failed,
    Stored,
    Verdict,
    http_status,
    store_instance,
    store_parcels,
)

SETTINGS = StorageSettings()
ORIGIN = Origin(door="stow", actor="gateway", address="192.0.2.9")
PRINTER = "1.2.840.10008.5.1.1.16"


def file_of(first: str, last: int, said: FileMeta | None = None, **more: Any) -> bytes:
    uid = f"{first}.{last}"
    data = data_set(uid, **{"study": f"{first}.9", **more})
    return encode_part10_head(said or meta(uid)) + data


def cases(first: str) -> list[tuple[bytes, str]]:
    """Give files, and the study that the request names for each."""
    named = meta(f"{first}.5")
    return [
        (file_of(first, 1), ""),
        (file_of(first, 1), ""),
        (file_of(first, 1, number=8), ""),
        (file_of(first, 2, pixels=os.urandom(2 * MIB)), f"{first}.9"),
        (file_of(first, 8, patient_id=""), ""),
        (file_of(first, 3), f"{first}.8"),
        (file_of(first, 4, meta(f"{first}.77")), ""),
        (file_of(first, 5, replace(named, media_storage_sop_class_uid="")), ""),
        (file_of(first, 5, replace(named, media_storage_sop_instance_uid="")), ""),
        (file_of(first, 5, replace(named, media_storage_sop_class_uid=PRINTER)), ""),
        (file_of(first, 6, t00080016=("UI", PRINTER)), ""),
        (file_of(first, 6, meta(f"{first}.6", sop_class=PRINTER), t00080016=("UI", PRINTER)), ""),
        (file_of(first, 7)[:-3], ""),
        (file_of(first, 7)[:300], f"{first}.9"),
        (file_of(first, 7)[:140], ""),
        (file_of(first, 7, study="1..A"), ""),
        (b"no DICOM file", ""),
        (b"", ""),
    ]


PLAIN = 5
"""So many of the cases are stored without a second look."""


def by_socket(folder: Path, given: bytes | memoryview, study: str) -> Verdict:
    client = KeeperClient(folder)
    try:
        return store_instance(
            cast(Archive, client), SETTINGS, ORIGIN, memoryview(given), study_instance_uid=study
        )
    finally:
        client.close()


async def by_memory(
    folder: Path,
    given: Sequence[tuple[bytes, str]],
    before: int = 0,
    settings: ArchiveSettings | None = None,
) -> tuple[list[Verdict], int]:
    """Return the verdicts, and how many needed no second look."""
    couriers = Couriers(folder / "run", settings or ArchiveSettings(), SystemClock())
    # On a machine with much to do the keeper may greet too slowly, and is then asked again.
    while (courier := await couriers.get()) is None:
        await asyncio.sleep(0.02)
    verdicts, at_once = [], 0
    for data, study in given:
        shelf = courier.shelf()
        filler = payload_on(shelf, bytes(before))
        payload = payload_on(shelf, data)
        verdict = await _at_once(courier, payload, study)
        at_once += verdict is not None
        verdicts.append(
            verdict or await asyncio.to_thread(by_socket, folder, payload.value(), study)
        )
        payload.close()
        filler.close()
        shelf.close()
    couriers.close()
    return verdicts, at_once


async def _at_once(courier: Courier, payload: Payload, study: str) -> Verdict | None:
    assert payload.parcel is not None
    (verdict,) = await store_parcels(
        courier, SETTINGS, ORIGIN, [payload.parcel], study_instance_uid=study
    )
    return verdict


def payload_on(shelf: Shelf | None, data: bytes, folder: Path = Path("nowhere")) -> Payload:
    payload = Payload(shelf, lambda: folder, max_bytes=1 << 30)
    payload.write(data)
    return payload


def words(verdict: Verdict) -> str:
    if isinstance(verdict, Failed):
        named = f"{verdict.sop_class_uid} {verdict.sop_instance_uid}"
        return f"{verdict.reason:04x} {verdict.error!s} {named}"
    return str(verdict)


def test_c66_the_verdicts_are_those_of_the_other_way(tmp_path: Path, database: Database) -> None:
    with running(tmp_path, database) as house, serving(house):
        expected = [by_socket(tmp_path, *case) for case in cases("1.2.7")]
        verdicts, at_once = asyncio.run(by_memory(tmp_path, cases("1.2.8")))
        house.wait()
        kept = [uid.removeprefix("1.2.8") for uid in house.uids() if uid.startswith("1.2.8.")]
        assert kept == [uid.removeprefix("1.2.7") for uid in house.uids() if "1.2.7." in uid]
    assert [words(one).replace("1.2.8.", "1.2.7.") for one in verdicts] == list(
        map(words, expected)
    )
    assert [type(one) for one in expected] == [Stored] * 5 + [Failed] + [Stored] * 4 + [Failed] * 8
    assert at_once == PLAIN


def test_a_head_that_is_cut_by_a_block_is_read_whole(
    tmp_path: Path, sqlite_database: Database
) -> None:
    """Wherever it is cut: the file meta information must not seem to end there."""
    given = [(file_of("1.2.7", 1), "")]
    with running(tmp_path, sqlite_database) as house, serving(house):
        for count in range(130, 420, 2):
            (verdict,), _ = asyncio.run(by_memory(tmp_path, given, BLOCK_BYTES - count))
            assert isinstance(verdict, Stored), count
            # What is left of it would be taken for other content.
            assert verdict.result.outcome is not Outcome.CONFLICT


def test_the_reserve_of_the_disk_is_told_as_such(tmp_path: Path, sqlite_database: Database) -> None:
    settings = SMALL.model_copy(update={"reserve_bytes": 1 << 60})
    with running(tmp_path, sqlite_database, settings) as house, serving(house):
        expected = by_socket(tmp_path, file_of("1.2.7", 1), "")
        (verdict,), at_once = asyncio.run(by_memory(tmp_path, [(file_of("1.2.7", 1), "")]))
    free = re.compile(r"\d+ MiB free")
    assert free.sub("", words(verdict)) == free.sub("", words(expected))
    assert isinstance(verdict, Failed)
    assert at_once == 1


def test_an_object_that_is_too_large_is_not_to_be_sent_again(
    tmp_path: Path, sqlite_database: Database
) -> None:
    # Also where the limit is below that of those that get a file of their own.
    settings = SMALL.model_copy(
        update={"largest_object_bytes": 4 * MIB, "big_object_bytes": 8 * MIB}
    )
    data = file_of("1.2.7", 1, pixels=bytes(5 * MIB))
    with running(tmp_path, sqlite_database, settings) as house, serving(house):
        expected = by_socket(tmp_path, data, "")
        (verdict,), _ = asyncio.run(by_memory(tmp_path, [(data, "")], 0, settings))
    assert words(verdict) == words(expected)
    assert isinstance(verdict, Failed)
    assert (verdict.reason, http_status([verdict])) == (0xC000, 409)


def test_when_the_keeper_goes_away_the_other_way_is_taken(
    tmp_path: Path, sqlite_database: Database
) -> None:
    async def send() -> tuple[Verdict | None, bytes]:
        couriers = Couriers(tmp_path / "run", ArchiveSettings(), SystemClock())
        with running(tmp_path, sqlite_database) as house, serving(house):
            courier = await couriers.get()
            assert courier is not None
            payload = payload_on(courier.shelf(), file_of("1.2.7", 1))
        while courier.is_open:
            await asyncio.sleep(0.01)
        return await _at_once(courier, payload, ""), bytes(payload.value())

    assert asyncio.run(send()) == (None, file_of("1.2.7", 1))


@pytest.mark.parametrize("blocks", [0, 1, 3])
@pytest.mark.parametrize("size", [10, BLOCK_BYTES, 2 * BLOCK_BYTES + 7, IN_MEMORY_BYTES + 1])
def test_what_finds_no_room_goes_to_a_spool(tmp_path: Path, blocks: int, size: int) -> None:
    arena = Arena(max(1, blocks) * BLOCK_BYTES)
    arena.close_descriptor()
    if not blocks:
        assert arena.take() is not None
    data = os.urandom(size)
    payload = Payload(Shelf(arena), lambda: tmp_path, max_bytes=1 << 30)
    for start in range(0, size, 200_000):
        payload.write(data[start : start + 200_000])
    assert payload.value() == data
    assert (payload.parcel is not None) == (size <= blocks * BLOCK_BYTES)
    payload.close()
    assert list(tmp_path.iterdir()) == []


def test_what_moved_to_a_spool_leaves_its_blocks(tmp_path: Path) -> None:
    arena = Arena(BLOCK_BYTES)
    arena.close_descriptor()
    shelf = Shelf(arena)
    payload = Payload(shelf, lambda: tmp_path, max_bytes=1 << 30)
    payload.write(bytes(BLOCK_BYTES + 1))
    shelf.close()
    assert arena.take() is not None
    assert payload.value() == bytes(BLOCK_BYTES + 1)


def test_a_part_that_is_too_large_is_refused(tmp_path: Path) -> None:
    payload = Payload(None, lambda: tmp_path, max_bytes=10)
    with pytest.raises(TooLarge):
        payload.write(bytes(11))
