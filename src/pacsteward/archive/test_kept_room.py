"""The index has room of its own when others have taken the last byte of the disk."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.support.full_disk import FullDisk

from pacsteward.archive.fixtures.sender import MIB, data_set, running
from pacsteward.archive.kept_room import KEPT_BYTES, NAME, KeptRoom
from pacsteward.archive.model import Space
from pacsteward.archive.settings import ArchiveSettings
from pacsteward.archive.space import SpaceGuard
from pacsteward.archive.test_spares import until
from pacsteward.base.clock import ManualClock
from pacsteward.base.db import Database
from pacsteward.base.errors import Exhausted


class Disk:
    """What the system says of the room, as a test wants it."""

    def __init__(self) -> None:
        self.free_bytes = 1000 * MIB
        self.held_back_bytes = 0

    def room(self) -> Space:
        return Space(2000 * MIB, self.free_bytes, reserve_bytes=10 * MIB)

    def has_room_for(self, size_bytes: int) -> bool:
        return self.free_bytes > 10 * MIB + 3 * size_bytes

    def hold_back(self, size_bytes: int) -> None:
        self.held_back_bytes = size_bytes

    def kept(self, folder: Path) -> KeptRoom:
        return KeptRoom(
            folder, room=self.room, has_room_for=self.has_room_for, hold_back=self.hold_back
        )


def test_the_room_is_taken_from_the_disk_and_given_once_when_that_is_full(tmp_path: Path) -> None:
    disk = Disk()
    room = disk.kept(tmp_path)
    assert not room.give_up()
    room.keep()
    assert (tmp_path / NAME).stat().st_blocks * 512 >= KEPT_BYTES
    assert not room.give_up()
    disk.free_bytes = 0
    assert room.give_up()
    assert not (tmp_path / NAME).exists()
    assert not room.give_up()
    room.keep()
    assert not (tmp_path / NAME).exists()
    assert disk.held_back_bytes == KEPT_BYTES
    disk.free_bytes = 1000 * MIB
    room.keep()
    assert (tmp_path / NAME).exists()
    assert disk.held_back_bytes == 0


def test_senders_do_not_get_what_is_given_to_the_index(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = SimpleNamespace(f_blocks=1024, f_frsize=MIB, f_bavail=KEPT_BYTES // MIB)
    monkeypatch.setattr(os, "statvfs", lambda _path: free)
    guard = SpaceGuard(tmp_path, ArchiveSettings(reserve_bytes=MIB), clock)
    guard.check()
    assert guard.has_room_for(0)
    guard.hold_back(KEPT_BYTES)
    with pytest.raises(Exhausted, match="17 MiB in reserve"):
        guard.check()
    # So what is prepared ahead is given back, as it is at the reserve.
    assert not guard.has_room_for(0)
    guard.hold_back(0)
    guard.check()


def test_a_file_that_takes_no_room_is_none(tmp_path: Path) -> None:
    """A run that was killed leaves it empty, and a copy of the folder may have it with a hole."""
    with (tmp_path / NAME).open("wb") as file:
        file.truncate(KEPT_BYTES)
    disk = Disk()
    disk.kept(tmp_path).keep()
    assert (tmp_path / NAME).stat().st_blocks * 512 >= KEPT_BYTES
    disk.free_bytes = 0
    (tmp_path / NAME).write_bytes(b"")
    assert not disk.kept(tmp_path).give_up()


def test_a_file_that_somebody_has_removed_is_made_again(tmp_path: Path) -> None:
    disk = Disk()
    room = disk.kept(tmp_path)
    room.keep()
    (tmp_path / NAME).unlink()
    assert not room.give_up()
    assert disk.held_back_bytes == KEPT_BYTES
    room.keep()
    assert (tmp_path / NAME).stat().st_blocks * 512 >= KEPT_BYTES
    assert disk.held_back_bytes == 0


def test_the_room_is_given_when_a_quota_is_used_up_although_the_disk_has_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_descriptor: int, _offset: int, _size: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    room = Disk().kept(tmp_path)
    room.keep()
    assert not room.give_up()
    # Looking for it takes nothing.
    assert (tmp_path / NAME).stat().st_size == KEPT_BYTES
    monkeypatch.setattr(os, "posix_fallocate", refused)
    assert room.give_up()
    assert not (tmp_path / NAME).exists()


def test_a_quota_is_asked_for_only_where_it_may_be_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    disk = Disk()
    room = disk.kept(tmp_path)
    room.keep()
    monkeypatch.setattr(os, "posix_fallocate", lambda *_of: asked.append(1))
    assert not room.give_up(may_be_quota=False)
    assert asked == []
    assert not room.give_up(may_be_quota=True)
    assert asked == [1]
    # Its server may be away since the disk that they share is full.
    disk.free_bytes = 0
    assert room.give_up(may_be_quota=False)


def test_a_server_that_is_away_is_no_reason_to_ask_for_a_quota(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def give_up(_room: KeptRoom, *, may_be_quota: bool) -> bool:
        asked.append(may_be_quota)
        return False

    monkeypatch.setattr(KeptRoom, "give_up", give_up)
    disk = FullDisk(database, monkeypatch)
    with running(tmp_path, database) as house:
        disk.is_locked = True
        house.store(data_set("1.1"), "1.1")
        until(lambda: len(asked) > 1)
        assert set(asked) == {database.is_sqlite}
        disk.is_locked, disk.is_full = False, True
        until(lambda: asked[-1])
        disk.is_full = False
        house.wait()


def test_a_file_that_cannot_be_cut_off_again_costs_no_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failed(_descriptor: int, _size: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    room = Disk().kept(tmp_path)
    room.keep()
    before = set(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patched:
        patched.setattr(os, "ftruncate", failed)
        assert not room.give_up()
    assert set(os.listdir("/proc/self/fd")) == before


def test_as_much_is_kept_from_senders_after_a_start_on_a_full_disk(tmp_path: Path) -> None:
    disk = Disk()
    disk.free_bytes = 20 * MIB
    room = disk.kept(tmp_path)
    room.keep()
    assert disk.held_back_bytes == KEPT_BYTES
    disk.free_bytes = 1000 * MIB
    room.keep()
    assert disk.held_back_bytes == 0


def test_nothing_is_kept_from_senders_when_the_room_cannot_be_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_path: Path, **_more: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    disk = Disk()
    room = disk.kept(tmp_path)
    room.keep()
    disk.free_bytes = 0
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refused)
        assert not room.give_up()
    assert disk.held_back_bytes == 0
    assert room.give_up()
    assert disk.held_back_bytes == KEPT_BYTES


def test_what_an_earlier_run_has_kept_is_given_too(tmp_path: Path) -> None:
    disk = Disk()
    disk.kept(tmp_path).keep()
    disk.free_bytes = 0
    assert disk.kept(tmp_path).give_up()
    assert not (tmp_path / NAME).exists()


def test_a_disk_that_does_not_take_it_is_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int, _offset: int, _size: int) -> None:
        raise OSError(28, "No space left on device")

    room = Disk().kept(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", full)
        room.keep()
        room.keep()
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr("pacsteward.archive.kept_room._RETRY_S", 0.0)
    again = Disk().kept(tmp_path)
    again.keep()
    assert (tmp_path / NAME).exists()


def test_what_has_landed_is_found_although_others_have_filled_the_disk(
    tmp_path: Path, sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = FullDisk(sqlite_database, monkeypatch)
    give_up = KeptRoom.give_up

    def given(room: KeptRoom, *, may_be_quota: bool) -> bool:
        is_given = give_up(room, may_be_quota=may_be_quota)
        database.is_full = database.is_full and not is_given
        return is_given

    monkeypatch.setattr(KeptRoom, "give_up", given)
    with running(tmp_path, sqlite_database) as house:
        with monkeypatch.context() as patched:
            nearly_full = SimpleNamespace(f_blocks=1024, f_frsize=MIB, f_bavail=1)
            patched.setattr(os, "statvfs", lambda _path: nearly_full)
            database.is_full = True
            house.store(data_set("1.1"), "1.1")
            house.wait()
            assert house.uids() == ["1.1"]
            assert not (tmp_path / NAME).exists()
        deadline = time.monotonic() + 60
        for number in itertools.count(2):
            # Refused until the disk is asked again.
            with contextlib.suppress(Exhausted):
                house.store(data_set(f"1.{number}"), f"1.{number}")
                house.wait()
            if (tmp_path / NAME).exists():
                break
            assert time.monotonic() < deadline
            time.sleep(0.05)
