"""A big object: a file of its own, bounded memory, never half there."""

from __future__ import annotations

import asyncio
import os
import time
import tracemalloc
from pathlib import Path

import pytest
from pydicom import dcmread

from pacsteward.archive.containers import container_path, stored_data
from pacsteward.archive.fixtures.sender import (
    CT,
    EXPLICIT,
    MIB,
    ORIGIN,
    SMALL,
    House,
    data_set,
    meta,
    running,
)
from pacsteward.archive.model import StoreResult
from pacsteward.archive.storage.local import object_path
from pacsteward.archive.verify import verify
from pacsteward.base import faults
from pacsteward.base.db import Database
from pacsteward.base.errors import Exhausted, Invalid, Unavailable

SIZE = 40 * MIB


async def send_in_pieces(house: House, data: bytes) -> StoreResult:
    incoming = house.keeper.receive(ORIGIN, meta("1.1"))
    for offset in range(0, len(data), 128 << 10):
        # A copy each, as a receiver's buffer is; it can go when it was written.
        incoming.write(memoryview(bytearray(data[offset : offset + (128 << 10)])))
        await asyncio.sleep(0)
        if incoming.is_behind():  # as the door asks
            await incoming.catch_up()
    return await incoming.finish()


def test_a_big_object_is_an_ordinary_file(tmp_path: Path, database: Database) -> None:
    data = data_set("1.1", pixels=b"\1\2" * MIB)
    with running(tmp_path, database) as house:
        house.store(data, "1.1")
        house.wait()
        location = house.location("1.1")
        assert location.container_kind == "object"
        with stored_data(tmp_path, location) as view:
            assert view.read(0, view.size) == data
        path = container_path(tmp_path, location)
    assert path.stat().st_size == location.offset + len(data)
    dataset = dcmread(path)
    assert dataset.SOPInstanceUID == "1.1"
    assert dataset.file_meta.TransferSyntaxUID == EXPLICIT
    assert dataset.file_meta.MediaStorageSOPClassUID == CT


def test_memory_is_bounded_while_a_big_object_arrives(tmp_path: Path, database: Database) -> None:
    data = data_set("1.1", pixels=bytes(SIZE))
    with running(tmp_path, database) as house:
        tracemalloc.start()
        asyncio.run(send_in_pieces(house, data))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        # Sixteen mebibytes may wait for the disk.
        assert peak < 20 * MIB
        house.wait()
        with stored_data(tmp_path, house.location("1.1")) as view:
            assert view.read(0, view.size) == data


@pytest.mark.parametrize("missing", [1, 5000, SIZE // 2])
def test_a_big_object_that_was_cut_short_is_never_stored(
    tmp_path: Path, database: Database, missing: int
) -> None:
    with running(tmp_path, database) as house:
        with pytest.raises(Invalid):
            asyncio.run(send_in_pieces(house, data_set("1.1", pixels=bytes(SIZE))[:-missing]))
        house.wait()
        assert house.uids() == []
    assert list((tmp_path / "objects").glob("*/*")) == []


def test_an_object_beyond_the_limit_is_refused_and_not_kept(
    tmp_path: Path, database: Database
) -> None:
    settings = SMALL.model_copy(update={"largest_object_bytes": 4 * MIB})
    with running(tmp_path, database, settings) as house, pytest.raises(Invalid):
        asyncio.run(send_in_pieces(house, data_set("1.1", pixels=bytes(8 * MIB))))
    assert list((tmp_path / "objects").glob("*/*")) == []


@pytest.mark.parametrize("fault", ["after-write:enospc", "after-open:eio@1", "before-fsync:eio@1"])
def test_a_failing_disk_while_a_big_object_arrives(
    tmp_path: Path, database: Database, fault: str
) -> None:
    with running(tmp_path, database) as house:
        house.store(data_set("1.0"), "1.0")
        house.wait()
        data = data_set("1.1", pixels=bytes(4 * MIB))
        with faults.armed(fault), pytest.raises((Exhausted, Unavailable)):
            asyncio.run(send_in_pieces(house, data))
        asyncio.run(send_in_pieces(house, data))
        house.wait()
        assert house.uids() == ["1.0", "1.1"]
    assert len(list((tmp_path / "objects").glob("??/*"))) == 1
    assert list((tmp_path / "objects" / "incoming").iterdir()) == []


def test_files_that_nothing_names_are_found_and_are_no_damage(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def age(folder: Path) -> None:
        """Have all files be of yesterday: what has just been written may be on its way."""
        for path in folder.rglob("*.dcm"):
            os.utime(path, (time.time() - 86400,) * 2)

    with running(tmp_path, database) as house:
        for uid in ("1.1", "1.2"):
            house.store(data_set(uid, pixels=bytes(2 * MIB)), uid)
        house.wait()
        place = house.location("1.1")
        # What is safe, and the index never hears of.
        monkeypatch.setattr(house.keeper._committer, "_follow", lambda _landed: None)
        house.store(data_set("1.3", pixels=bytes(2 * MIB)), "1.3")
    age(tmp_path)
    assert verify(tmp_path, database).unnamed_files == ()
    stray = object_path(tmp_path, "ab" * 16)
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"half an object")
    assert verify(tmp_path, database).unnamed_files == ()
    age(tmp_path)
    report = verify(tmp_path, database)
    assert report.unnamed_files == (f"objects/ab/{stray.name}",)
    assert report.is_sound
    # A deletion whose file stays.
    with running(tmp_path, database) as house:
        assert house.uids() == ["1.1", "1.2", "1.3"]
        monkeypatch.setattr(house.keeper, "_free", lambda _locations: None)
        house.keeper.change("deleted", actor="admin", choose=lambda _connection: ["1.1"])
        age(tmp_path)
        path = container_path(tmp_path, place)
        assert set(verify(tmp_path, database).unnamed_files) == {
            f"objects/ab/{stray.name}",
            str(path.relative_to(tmp_path)),
        }
