"""Prepared segments: made while nobody sends, used anew only when nothing in them is needed."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import delete

from pacsteward.archive import space as space_module
from pacsteward.archive import spares as spares_module
from pacsteward.archive.containers import container_path, stored_data
from pacsteward.archive.fixtures.sender import MIB, SMALL, House, data_set, running
from pacsteward.archive.model import Space
from pacsteward.archive.rebuild import rebuild
from pacsteward.archive.segment import (
    HEAD_BYTES,
    Segment,
    container_of,
    encode_head,
    find_segments,
    reading,
    segment_path,
    walk,
)
from pacsteward.archive.segment import PREPARED as PREPARED_STATE
from pacsteward.archive.settings import ArchiveSettings
from pacsteward.archive.tables import LOCATION
from pacsteward.base.clock import SystemClock
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


def flip(path: Path, record_at: int) -> None:
    """Turn one bit of the head of a record over, or back."""
    with path.open("r+b") as file:
        file.seek(record_at + 20)
        byte = file.read(1)[0]
        file.seek(record_at + 20)
        file.write(bytes([byte ^ 1]))


def fill_segments(house: House, count: int) -> None:
    for number in range(count):
        house.store(data_set(f"1.{number}", pixels=bytes([number]) * 900_000), f"1.{number}")
    house.wait()


def lying_in(house: House, segment: Segment) -> list[str]:
    """Return which of ten objects of `fill_segments` lie in a segment."""
    uids = [f"1.{number}" for number in range(10)]
    return [uid for uid in uids if house.location(uid).container == segment.container]


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
        spares = house.keeper._spares
        spares._is_busy = lambda: True
        for _ in range(20):
            path = spares.take()
            if path is not None:
                path.unlink()
        assert spares._wanted == 8


def test_the_setting_is_what_counts_after_a_start(tmp_path: Path, database: Database) -> None:
    with running(tmp_path, database, PREPARED):
        until(lambda: len(prepared(tmp_path)) == 2)
    with running(tmp_path, database, PREPARED.model_copy(update={"prepared_segments": 1})) as house:
        # What is there is used up, and not made anew.
        assert len(prepared(tmp_path)) == 2
        house.keeper._spares.take()
        assert house.keeper._spares._wanted == 1
    with running(tmp_path, database):
        assert prepared(tmp_path) == []


def test_a_full_disk_gets_as_much_back_as_it_needs(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk on which somebody else takes room: what is prepared takes it, too."""
    size, free_bytes = SMALL.segment_bytes, [100 * SMALL.segment_bytes]

    def room(folder: Path, settings: ArchiveSettings) -> Space:
        taken = sum(path.stat().st_size for path in (folder / "landing").glob("prepared-*"))
        return Space(1000 * size, free_bytes[0] - taken, settings.reserve_of(1000 * size))

    monkeypatch.setattr(space_module, "space", room)
    monkeypatch.setattr(spares_module, "_WAIT_S", 0.05)
    with running(tmp_path, database, PREPARED) as house:
        until(lambda: len(prepared(tmp_path)) == 2)
        free_bytes[0] = size + size // 2
        until(lambda: len(prepared(tmp_path)) == 1)
        house.store(data_set("1.1"), "1.1")
        house.wait()
        # The last one was used, and there is no room for three times another.
        free_bytes[0] = 2 * size
        assert prepared(tmp_path) == []
        free_bytes[0] = 100 * size
        until(lambda: len(prepared(tmp_path)) == 2)
        assert house.uids() == ["1.1"]


def test_nothing_more_is_prepared_once_the_disk_is_full(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Senders are busy while it is begun, and are then refused, so that nobody is busy."""
    is_full, is_busy, went_on = [False], [True], []
    monkeypatch.setattr(spares_module, "_WAIT_S", 0.05)
    monkeypatch.setattr(spares_module, "_BUSY_WAIT_S", 0.05)
    with running(tmp_path, database, SMALL) as house:
        spares = house.keeper._spares
        spares._has_room_for = lambda _size: not is_full[0]
        spares._is_busy = lambda: is_busy[0] or bool(went_on.append(True))
        spares._wanted = 1
        spares.reclaim([])
        until(lambda: list((tmp_path / "landing").glob("*.part")) != [])
        is_full[0], is_busy[0] = True, False
        until(lambda: list((tmp_path / "landing").glob("*.part")) == [])
        assert prepared(tmp_path) == []
        assert went_on == []


@pytest.mark.parametrize("in_the_way", ["a reader", "the index"])
def test_the_ledger_is_not_read_while_a_segment_could_not_be_taken_anyway(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch, in_the_way: str
) -> None:
    """It is looked at twice a second for as long as that lasts, and the ledger may be long."""
    with running(tmp_path, database) as house:
        fill_segments(house, 10)
        first = find_segments(tmp_path / "landing")[0][0]
        spares = house.keeper._spares
        real, reads, looks = spares._deletions, [], []
        spares._deletions = lambda: reads.append(True) or real()
        with monkeypatch.context() as patched, first.path.open("rb") as held:
            if in_the_way == "a reader":
                fcntl.flock(held, fcntl.LOCK_SH)
            else:
                patched.setattr(spares_module, "landing_position", lambda *_of: 0)
            tried = spares._tried
            spares._tried = lambda *of: looks.append(True) or tried(*of)  # type: ignore[method-assign]
            change(house, *lying_in(house, first))
            until(lambda: len(looks) >= 3)
            assert reads == []
            assert first.path.exists()
        until(lambda: not first.path.exists())
        assert reads


def test_segments_are_prepared_although_the_ledger_was_damaged_meanwhile(
    tmp_path: Path,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(spares_module, "_WAIT_S", 0.05)
    with running(tmp_path, database, PREPARED) as house:
        fill_segments(house, 10)
        first = find_segments(tmp_path / "landing")[0][0]
        inside = lying_in(house, first)
        change(house, "1.9")
        change(house, "1.8")
        (ledger,) = (tmp_path / "ledger").iterdir()
        flip(ledger, ledger.read_bytes().index(b"\n"))
        change(house, *inside)
        until(lambda: first.container in house.keeper._spares._last)
        until(lambda: len(prepared(tmp_path)) == 2)
    assert first.path.exists()
    assert "could not be looked at. The ledger is damaged" in caplog.text
    assert "No segment could be prepared" not in caplog.text


def test_a_segment_that_cannot_be_read_is_put_off_and_holds_up_no_other(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path, database) as house:
        fill_segments(house, 14)
        first, second, *_ = find_segments(tmp_path / "landing")[0]
        is_broken = [True]
        real = spares_module._is_whole

        def is_whole(segment: Segment, following: Segment | None) -> bool:
            if is_broken[0] and segment.path == first.path:
                raise OSError(errno.EIO, "Input/output error")
            return real(segment, following)

        monkeypatch.setattr(spares_module, "_is_whole", is_whole)
        change(house, *house.uids())
        # Whether the second one cuts off something of the first cannot be told, either.
        until(lambda: {first.container, second.container} <= house.keeper._spares._last)
        until(lambda: len(find_segments(tmp_path / "landing")[0]) == 3)
        is_broken[0] = False
        fill_segments(house, 10)
        until(lambda: not first.path.exists() and not second.path.exists())


def test_a_segment_of_which_a_record_cannot_be_read_is_kept(
    tmp_path: Path, database: Database
) -> None:
    """What the record held was acknowledged and not deleted, though no row names it any more."""
    with running(tmp_path, database) as house:
        fill_segments(house, 10)
        first, second, *_ = find_segments(tmp_path / "landing")[0]
        inside = lying_in(house, first)
        with reading(first.path) as file:
            *_, last = walk(file, first.head)
    assert spares_module._is_whole(first, second)
    flip(first.path, HEAD_BYTES)
    assert not spares_module._is_whole(first, second)
    flip(first.path, HEAD_BYTES)
    flip(first.path, last.offset)
    assert not spares_module._is_whole(first, second)
    rest = [f"1.{n}" for n in range(10) if f"1.{n}" not in inside]
    with running(tmp_path, database) as house:
        change(house, *inside, *rest)
        until(lambda: house.keeper._spares._cutting == {second.container})
        assert first.path.exists()
        # The second one tells how far the first one went.
        assert second.path.exists()


def test_a_segment_that_no_row_names_is_not_taken_for_a_deleted_one(
    tmp_path: Path, database: Database
) -> None:
    with running(tmp_path, database) as house:
        fill_segments(house, 10)
        first = find_segments(tmp_path / "landing")[0][0]
    away = tmp_path / "away"
    first.path.rename(away)
    rebuild(tmp_path, database, SystemClock(), SMALL)
    away.rename(first.path)
    with running(tmp_path, database) as house:
        missing = {f"1.{n}" for n in range(10)} - set(house.uids())
        assert missing
        house.store(data_set("1.50"), "1.50")
        house.wait()
        change(house, house.uids()[0])
        until(lambda: not house.keeper._spares._unneeded)
        assert first.path.exists()
    rebuild(tmp_path, database, SystemClock(), SMALL)
    with running(tmp_path, database) as house:
        assert missing <= set(house.uids())


def test_a_kill_before_a_segment_has_its_new_name_is_made_up_for(
    tmp_path: Path, database: Database
) -> None:
    with running(tmp_path, database, PREPARED) as house:
        until(lambda: len(prepared(tmp_path)) == 2)
        house.store(data_set("1.1"), "1.1")
    half_way = segment_path(tmp_path / "landing", container_of(99))
    head, _ = encode_head(PREPARED_STATE, 7, 0)
    prepared(tmp_path)[0].rename(half_way)
    with half_way.open("r+b") as file:
        file.write(head)
    inode = half_way.stat().st_ino
    with running(tmp_path, database, PREPARED) as house:
        assert inode in {path.stat().st_ino for path in prepared(tmp_path)}
        assert house.uids() == ["1.1"]


def test_a_segment_of_which_all_was_deleted_is_given_back(
    tmp_path: Path, database: Database
) -> None:
    with running(tmp_path, database) as house:
        fill_segments(house, 10)
        first = find_segments(tmp_path / "landing")[0][0]
        inside = lying_in(house, first)
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


def test_a_segment_that_was_not_given_back_before_a_stop_is_given_back_after_the_next_start(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path, database) as house:
        house.store(data_set("1.50", pixels=bytes(2 * MIB)), "1.50")
        fill_segments(house, 10)
        first, second, *_ = find_segments(tmp_path / "landing")[0]
        monkeypatch.setattr(house.keeper._spares, "reclaim", lambda _containers: None)
        change(house, *lying_in(house, first), *lying_in(house, second))
        # Not the last decision, which is repeated anyway.
        change(house, "1.9")
    with running(tmp_path, database) as house:
        until(lambda: not second.path.exists())
        # It has the only record of a big object, until that is deleted, too.
        assert first.path.exists()
        change(house, "1.50")
    with running(tmp_path, database):
        until(lambda: not first.path.exists())


def test_a_segment_is_kept_after_a_start_when_rows_are_gone_that_were_not_deleted(
    tmp_path: Path, database: Database
) -> None:
    """The ledger is asked, not only the index: what it does not name was acknowledged."""
    with running(tmp_path, database) as house:
        fill_segments(house, 10)
        first = find_segments(tmp_path / "landing")[0][0]
        deleted, *inside = lying_in(house, first)
        change(house, deleted)
        with database.write() as connection:
            connection.execute(delete(LOCATION))
    with running(tmp_path, database) as house:
        until(lambda: not house.keeper._spares._unneeded)
    assert first.path.exists()
    rebuild(tmp_path, database, SystemClock(), SMALL)
    with running(tmp_path, database) as house:
        assert set(inside) <= set(house.uids())


def test_a_segment_is_kept_when_what_was_deleted_is_in_it_anew(
    tmp_path: Path, database: Database
) -> None:
    with running(tmp_path, database) as house:
        house.store(data_set("1.50"), "1.50")
        change(house, "1.50")
        house.store(data_set("1.50"), "1.50")
        fill_segments(house, 10)
        first = find_segments(tmp_path / "landing")[0][0]
        inside = lying_in(house, first)
        with database.write() as connection:
            connection.execute(delete(LOCATION))
        change(house, *inside)
        house.keeper._spares.reclaim([first.container])
        until(lambda: not house.keeper._spares._unneeded)
    assert first.path.exists()


def test_a_reader_keeps_a_segment_and_never_reads_another_one_in_its_place(
    tmp_path: Path, database: Database
) -> None:
    with running(tmp_path, database) as house:
        fill_segments(house, 10)
        place = house.location("1.0")
        first = find_segments(tmp_path / "landing")[0][0]
        inside = lying_in(house, first)
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
        inside = lying_in(house, first)
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
        inside = lying_in(house, first)
        change(house, *inside)
        time.sleep(0.5)
        assert first.path.exists()
    rebuild(tmp_path, database, SystemClock(), SMALL)
    with running(tmp_path, database) as house:
        assert "1.50" in house.uids()
