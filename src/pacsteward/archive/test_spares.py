"""Prepared segments: made while nobody sends, used anew only when nothing in them is needed."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pacsteward.archive import spares as spares_module
from pacsteward.archive.containers import container_path, stored_data
from pacsteward.archive.fixtures.sender import MIB, SMALL, House, data_set, running
from pacsteward.archive.segment import Segment, find_segments
from pacsteward.base.db import Database
from pacsteward.base.errors import NotFound

PREPARED = SMALL.model_copy(update={"prepared_segments": 2})


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def prepared(folder: Path) -> list[Path]:
    return list((folder / "landing").glob("prepared-*.segment"))


def change(house: House, *uids: str) -> None:
    house.keeper.change("deleted", actor="admin", choose=lambda _connection: uids)


def fill_segments(house: House, count: int) -> None:
    for number in range(count):
        house.store(data_set(f"1.{number}", pixels=bytes([number]) * 900_000), f"1.{number}")
    house.wait()


def test_segments_are_prepared_and_used(tmp_path: Path, database: Database) -> None:
    with running(tmp_path, database, PREPARED) as house:
        until(lambda: len(prepared(tmp_path)) == 2)
        inodes = {path.stat().st_ino for path in prepared(tmp_path)}
        house.store(data_set("1.1"), "1.1")
        house.wait()
        (segment,) = find_segments(tmp_path / "landing")[0]
        assert segment.path.stat().st_ino in inodes
        assert segment.path.stat().st_size == SMALL.segment_bytes
    # A stop in the middle leaves nothing half prepared, and the next start uses what is there.
    assert list((tmp_path / "landing").glob("*.part")) == []
    with running(tmp_path, database, PREPARED) as house:
        assert house.uids() == ["1.1"]
        until(lambda: len(prepared(tmp_path)) == 2)


def test_none_are_prepared_where_the_disk_has_no_room(tmp_path: Path, database: Database) -> None:
    settings = PREPARED.model_copy(update={"reserve_bytes": 1 << 60})
    with running(tmp_path, database, settings):
        time.sleep(0.3)
        assert prepared(tmp_path) == []


def test_the_stock_grows_by_what_a_burst_found_missing(tmp_path: Path, database: Database) -> None:
    with running(tmp_path, database, PREPARED) as house:
        until(lambda: len(prepared(tmp_path)) == 2)
        usual, house.keeper._spares._is_busy = house.keeper._spares._is_busy, lambda: True
        fill_segments(house, 14)
        missing = len(find_segments(tmp_path / "landing")[0]) - 2
        assert 1 <= missing <= 3
        house.keeper._spares._is_busy = usual
        until(lambda: len(prepared(tmp_path)) == 2 + missing)
    with running(tmp_path, database, PREPARED) as house:
        # And stays so over a stop, up to four times its first size.
        house.store(data_set("1.50"), "1.50")
        until(lambda: len(prepared(tmp_path)) == 2 + missing)
        spares = house.keeper._spares
        for _ in range(20):
            path = spares.take()
            if path is not None:
                path.unlink()
        assert spares._wanted == 8


def test_a_full_disk_gets_what_is_prepared_back(tmp_path: Path, database: Database) -> None:
    with running(tmp_path, database, PREPARED) as house:
        until(lambda: len(prepared(tmp_path)) == 2)
        is_full = [True]
        house.keeper._spares._has_room_for = lambda _size: not is_full[0]
        house.keeper._spares.reclaim([])
        until(lambda: prepared(tmp_path) == [])
        house.store(data_set("1.1"), "1.1")
        is_full[0] = False
        house.keeper._spares.reclaim([])
        until(lambda: len(prepared(tmp_path)) == 2)
        assert house.uids() == ["1.1"]


def test_a_segment_that_could_not_be_looked_at_is_looked_at_again(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path, database) as house:
        fill_segments(house, 10)
        first = find_segments(tmp_path / "landing")[0][0]
        spares = house.keeper._spares
        monkeypatch.setattr(spares_module, "_WAIT_S", 0.05)
        failures = iter([OSError(errno.EIO, "Input/output error")])
        real = spares._reclaim

        def reclaim(segment: Segment, before: Segment | None) -> bool:
            for failure in failures:
                raise failure
            return real(segment, before)

        monkeypatch.setattr(spares, "_reclaim", reclaim)
        change(house, *house.uids())
        until(lambda: not first.path.exists())
        assert next(failures, None) is None


def test_a_segment_that_was_unneeded_when_the_keeper_ended_is_given_back_later(
    tmp_path: Path, database: Database
) -> None:
    with running(tmp_path, database) as house:
        fill_segments(house, 10)
        house.store(data_set("1.50", pixels=bytes(2 * MIB)), "1.50")
        house.wait()
        first, *_, last = find_segments(tmp_path / "landing")[0]
        descriptor = os.open(first.path, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        change(house, *(f"1.{number}" for number in range(10)))
    os.close(descriptor)
    assert first.path.exists()
    with running(tmp_path, database) as house:
        until(lambda: not first.path.exists())
        assert last.path.exists()
        assert house.uids() == ["1.50"]


def test_a_segment_of_which_all_was_deleted_is_given_back(
    tmp_path: Path, database: Database
) -> None:
    with running(tmp_path, database) as house:
        fill_segments(house, 10)
        first = find_segments(tmp_path / "landing")[0][0]
        inside = [
            f"1.{n}" for n in range(10) if house.location(f"1.{n}").container == first.container
        ]
        assert len(inside) > 2
        change(house, *inside[1:])
        time.sleep(0.3)
        assert first.path.exists()
        change(house, inside[0])
        until(lambda: not first.path.exists())
        assert len(house.uids()) == 10 - len(inside)
    with running(tmp_path, database) as house:
        assert len(house.uids()) == 10 - len(inside)


def test_a_segment_from_which_all_was_deleted_while_it_was_the_last_is_given_back(
    tmp_path: Path, database: Database
) -> None:
    with running(tmp_path, database) as house:
        fill_segments(house, 4)
        (first,) = find_segments(tmp_path / "landing")[0]
        change(house, *house.uids())
        until(lambda: not house.keeper._spares._unneeded)
        fill_segments(house, 10)
        until(lambda: not first.path.exists())
        assert len(house.uids()) == 10


def test_a_reader_keeps_a_segment_and_never_reads_another_one_in_its_place(
    tmp_path: Path, database: Database
) -> None:
    with running(tmp_path, database) as house:
        fill_segments(house, 10)
        place = house.location("1.0")
        first = find_segments(tmp_path / "landing")[0][0]
        inside = [
            f"1.{n}" for n in range(10) if house.location(f"1.{n}").container == first.container
        ]
        descriptor = os.open(first.path, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        change(house, *inside)
        time.sleep(0.5)
        assert first.path.exists()
        os.close(descriptor)
        until(lambda: not first.path.exists())
        with pytest.raises(NotFound), stored_data(tmp_path, place):
            pass


def test_a_segment_used_anew_keeps_its_blocks_and_changes_its_generation(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pacsteward.archive import disk

    # Where bytes are moved to packs instead of deleted, no holes are made.
    monkeypatch.setattr(disk, "erase", lambda *_args: None)
    with running(tmp_path, database, PREPARED) as house:
        until(lambda: len(prepared(tmp_path)) == 2)
        house.keeper._spares._is_busy = lambda: True
        fill_segments(house, 10)
        assert prepared(tmp_path) == []
        first = find_segments(tmp_path / "landing")[0][0]
        inode = first.path.stat().st_ino
        place = house.location("1.0")
        inside = [
            f"1.{n}" for n in range(10) if house.location(f"1.{n}").container == first.container
        ]
        with container_path(tmp_path, place).open("rb") as held:
            change(house, *inside)
            until(lambda: prepared(tmp_path) != [])
            assert prepared(tmp_path)[0].stat().st_ino == inode
            from pacsteward.archive.segment import read_generation

            assert read_generation(held.fileno()) != place.generation
        for number in range(20, 30):
            house.store(data_set(f"1.{number}", pixels=bytes(900_000)), f"1.{number}")
        house.wait()
        assert inode in {s.path.stat().st_ino for s in find_segments(tmp_path / "landing")[0]}
    with running(tmp_path, database, PREPARED) as house:
        assert house.uids() == sorted(
            [f"1.{n}" for n in range(10) if f"1.{n}" not in inside]
            + [f"1.{n}" for n in range(20, 30)]
        )


def test_the_only_record_of_a_big_object_keeps_its_segment(
    tmp_path: Path, database: Database
) -> None:
    with running(tmp_path, database) as house:
        house.store(data_set("1.50", pixels=bytes(2 * MIB)), "1.50")
        fill_segments(house, 10)
        first = find_segments(tmp_path / "landing")[0][0]
        inside = [
            f"1.{n}" for n in range(10) if house.location(f"1.{n}").container == first.container
        ]
        change(house, *inside)
        time.sleep(0.5)
        assert first.path.exists()
        change(house, "1.50")
