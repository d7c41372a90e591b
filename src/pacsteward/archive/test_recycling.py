"""Segments used anew: what they held before never comes back, whoever reads and whatever breaks."""

from __future__ import annotations

import fcntl
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pacsteward.archive import containers, disk
from pacsteward.archive.fixtures.sender import MIB, SMALL, House, data_set, running
from pacsteward.archive.landing import Landed, Landing
from pacsteward.archive.model import Instance, Selection
from pacsteward.archive.read import Reader
from pacsteward.archive.rebuild import rebuild
from pacsteward.archive.record import checksum_of
from pacsteward.archive.segment import (
    HEAD_BYTES,
    IN_USE,
    PREPARED,
    encode_head,
    find_segments,
    reading,
    walk,
)
from pacsteward.archive.tables import SET_ASIDE
from pacsteward.archive.test_landing import SEGMENT_BYTES, description, opened, write_at
from pacsteward.archive.test_spares import PREPARED as WITH_SPARES
from pacsteward.archive.test_spares import change, fill_segments, prepared, until
from pacsteward.base import faults
from pacsteward.base.clock import SystemClock
from pacsteward.base.db import Database
from pacsteward.base.errors import Broken, NotFound, Unavailable

SECTOR_BYTES = 512


# --- a torn record among old ones ---------------------------------------------------------------


def test_a_torn_record_before_acknowledged_ones_is_not_replaced_by_an_old_one(
    tmp_path: Path,
) -> None:
    """The old records have the same sizes, sequences and places as the new ones."""
    landing = opened(tmp_path)
    old = [append(landing, f"1.{number}") for number in range(1, 6)]
    landing.sync()
    landing.close()
    (segment,) = find_segments(tmp_path)[0]
    head, _ = encode_head(IN_USE, segment.head.generation + 1, 1)
    write_at(segment.path, 0, head)

    again = opened(tmp_path)
    new = []
    for number in range(1, 4):
        new.append(append(again, f"2.{number}"))
        again.sync()
    again.close()
    assert [one.location.offset for one in new] == [one.location.offset for one in old[:3]]
    # The second one is torn by the disk: its head is that of the old record again.
    begin = record_offset(segment.path, 2)
    write_at(segment.path, begin, old_bytes(tmp_path, old[1], begin))
    found = list(opened(tmp_path).replay(0))
    assert [one.description.sop_instance_uid for one in found] == ["2.1", "2.3"]


def append(landing: Landing, uid: str, data: bytes = b"x" * 1001) -> Landed:
    return landing.append(
        description(uid), b"meta", [data], size_bytes=len(data), checksum=checksum_of(data)
    )


def record_offset(path: Path, sequence: int) -> int:
    with reading(path) as file:
        head = find_segments(path.parent)[0][-1].head
        return next(one.offset for one in walk(file, head) if one.sequence == sequence)


def old_bytes(folder: Path, landed: Landed, begin: int) -> bytes:
    """Make anew the bytes that an old record had before its data set."""
    twin = Landing(folder / "twin", segment_bytes=SEGMENT_BYTES)
    twin.open(0)
    for number in range(1, landed.sequence + 1):
        append(twin, f"1.{number}")
    twin.sync()
    twin.close()
    (segment,) = find_segments(folder / "twin")[0]
    return segment.path.read_bytes()[begin : landed.location.offset]


# --- what was never safe ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size_bytes", "fault"),
    # The file of a big object is synced before its record is.
    [(1000, "before-fsync:eio"), (2 * MIB, "before-fsync:eio@2+")],
    ids=["in the log", "big"],
)
def test_what_was_refused_does_not_come_back_when_the_segment_behind_it_is_used_anew(
    tmp_path: Path, database: Database, size_bytes: int, fault: str
) -> None:
    """The head of the segment behind is all that says where the one before it ended."""
    with running(tmp_path, database) as house:
        house.store(data_set("1.50"), "1.50")
        with faults.armed(fault), pytest.raises(Unavailable):
            house.store(data_set("1.66", pixels=bytes(size_bytes)), "1.66")
        fill_segments(house, 10)
        first, second = find_segments(tmp_path / "landing")[0][:2]
        assert house.location("1.50").container == first.container
        inside = [
            f"1.{n}" for n in range(10) if house.location(f"1.{n}").container == second.container
        ]
        assert inside
        looked = looks_of(house, 1)
        change(house, *inside)
        until(looked)
        left = house.uids()
    assert rebuild(tmp_path, database, SystemClock(), SMALL) == len(left)
    with running(tmp_path, database) as house:
        assert house.uids() == left
        assert house.rows(SET_ASIDE) == []


def test_a_segment_goes_once_there_is_nothing_before_it_to_be_cut_off(
    tmp_path: Path, database: Database
) -> None:
    with running(tmp_path, database) as house:
        house.store(data_set("1.50"), "1.50")
        with faults.armed("before-fsync:eio"), pytest.raises(Unavailable):
            house.store(data_set("1.66"), "1.66")
        fill_segments(house, 10)
        first, second = find_segments(tmp_path / "landing")[0][:2]
        looked = looks_of(house, 1)
        inside = [
            f"1.{n}" for n in range(10) if house.location(f"1.{n}").container == second.container
        ]
        change(house, *inside)
        until(looked)
        assert second.path.exists()
        change(house, "1.50")
        until(lambda: not first.path.exists() and not second.path.exists())


# --- readers ------------------------------------------------------------------------------------


def used_up(house: House, folder: Path) -> tuple[Path, list[str]]:
    """Fill segments; return the first, and what lies in it."""
    fill_segments(house, 10)
    first = find_segments(folder / "landing")[0][0]
    names = [f"1.{number}" for number in range(10)]
    return first.path, [uid for uid in names if house.location(uid).container == first.container]


def instance_of(house: House, folder: Path, uid: str) -> tuple[Reader, Instance]:
    reader = Reader(house.database, folder)
    (instance,) = reader.instances(Selection(sop_instance_uids=(uid,)))
    return reader, instance


@pytest.fixture
def no_holes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Delete without making holes, so that a segment keeps its blocks and is used anew."""
    monkeypatch.setattr(disk, "erase", lambda *_args: None)


def recycled(house: House, folder: Path, uids: Sequence[str]) -> None:
    """Delete what is in a segment, and have it used anew under others' data."""
    house.keeper._spares._is_busy = lambda: True
    change(house, *uids)
    until(lambda: prepared(folder) != [])
    for number in range(20, 30):
        house.store(data_set(f"1.{number}", pixels=bytes([number]) * 900_000), f"1.{number}")
    house.wait()
    until(lambda: prepared(folder) == [])


@pytest.mark.usefixtures("no_holes")
def test_a_reader_with_a_place_in_its_hand_never_reads_what_came_there_since(
    tmp_path: Path, database: Database
) -> None:
    with running(tmp_path, database, WITH_SPARES) as house:
        until(lambda: len(prepared(tmp_path)) == 2)
        house.keeper._spares._is_busy = lambda: True
        path, inside = used_up(house, tmp_path)
        inode = path.stat().st_ino
        reader, instance = instance_of(house, tmp_path, "1.0")
        recycled(house, tmp_path, inside)
        assert inode in {one.path.stat().st_ino for one in find_segments(tmp_path / "landing")[0]}
        with pytest.raises(NotFound, match="no longer there"), reader.open(instance):
            pass


@pytest.mark.usefixtures("no_holes")
def test_a_reader_that_reads_keeps_its_segment_from_being_used_anew(
    tmp_path: Path, database: Database
) -> None:
    with running(tmp_path, database, WITH_SPARES) as house:
        until(lambda: len(prepared(tmp_path)) == 2)
        house.keeper._spares._is_busy = lambda: True
        path, inside = used_up(house, tmp_path)
        reader, instance = instance_of(house, tmp_path, "1.0")
        with reader.open(instance) as stored:
            began = stored.read(0, 100)
            change(house, *inside)
            looked = looks_of(house, 2)
            until(looked)
            assert path.exists()
            assert prepared(tmp_path) == []
            assert stored.read(0, 100) == began
            assert stored.data_set().endswith(bytes(1000))
        until(lambda: not path.exists())


def looks_of(house: House, count: int) -> Callable[[], bool]:
    """Tell whether the recycler has looked through its segments so often since now."""
    spares = house.keeper._spares
    real, looks = spares._reclaim_all, []

    def reclaim_all() -> None:
        is_asked = bool(spares._unneeded)
        real()
        if is_asked:
            looks.append(True)

    spares._reclaim_all = reclaim_all  # type: ignore[method-assign]
    return lambda: len(looks) >= count


@pytest.mark.usefixtures("no_holes")
def test_a_segment_used_anew_between_opening_and_lease_is_not_believed(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader has the file open and not yet locked when the recycler comes by."""
    with running(tmp_path, database, WITH_SPARES) as house:
        until(lambda: len(prepared(tmp_path)) == 2)
        house.keeper._spares._is_busy = lambda: True
        _path, inside = used_up(house, tmp_path)
        reader, instance = instance_of(house, tmp_path, "1.0")
        real = fcntl.flock

        class Late:
            LOCK_SH = fcntl.LOCK_SH

            @staticmethod
            def flock(descriptor: int, how: int) -> None:
                monkeypatch.setattr(containers, "fcntl", fcntl)
                recycled(house, tmp_path, inside)
                real(descriptor, how)

        monkeypatch.setattr(containers, "fcntl", Late)
        with pytest.raises(NotFound), reader.open(instance):
            pass


def test_a_reader_of_what_is_deleted_meanwhile_gets_no_wrong_bytes(
    tmp_path: Path, database: Database
) -> None:
    with running(tmp_path, database) as house:
        data = data_set("1.1", pixels=bytes(range(256)) * 4000)
        house.store(data, "1.1")
        house.wait()
        reader, instance = instance_of(house, tmp_path, "1.1")
        with reader.open(instance) as stored:
            assert stored.size > 1_000_000
            change(house, "1.1")
            with pytest.raises(Broken):
                stored.data_set()


# --- seeded stories -----------------------------------------------------------------------------


class Stock:
    """Used segments that may be written over."""

    def __init__(self) -> None:
        self.paths: list[Path] = []
        self.taken = 0

    def take(self) -> Path | None:
        if not self.paths:
            return None
        self.taken += 1
        return self.paths.pop(0)


@dataclass
class Story:
    """A log whose segments are used anew, on a disk that loses what was not synced."""

    folder: Path
    chance: random.Random
    stock: Stock = field(default_factory=Stock)
    safe: dict[str, bytes] = field(default_factory=dict)
    """Acknowledged and not deleted."""
    doubtful: dict[str, bytes] = field(default_factory=dict)
    """Sent, and the answer never came."""
    deleted: set[str] = field(default_factory=set)
    on_disk: dict[int, bytes] = field(default_factory=dict)
    """The bytes of each file that are surely on the disk, by inode."""
    number: int = 0

    def open(self) -> Landing:
        landing = Landing(self.folder, segment_bytes=SEGMENT_BYTES, spares=self.stock)
        landing.open(0)
        return landing

    def add(self, landing: Landing) -> None:
        self.number += 1
        uid = f"1.{self.number}"
        # Few sizes, so that new records often lie exactly where old ones lay.
        size = self.chance.choice((997, 997, 997, 3000, 9000))
        data = bytes([self.number % 251]) * size
        before = landing.safe_sequence
        append(landing, uid, data)
        if landing.safe_sequence > before:
            # Another segment was begun, and the one before it synced.
            self.safe |= self.doubtful
            self.doubtful.clear()
            self.note()
        self.doubtful[uid] = data

    def acknowledge(self, landing: Landing) -> None:
        landing.sync()
        self.safe |= self.doubtful
        self.doubtful.clear()
        self.note()

    def note(self) -> None:
        self.on_disk = {path.stat().st_ino: path.read_bytes() for path in self.files()}

    def files(self) -> list[Path]:
        return sorted(self.folder.glob("*.segment"))

    def recycle(self) -> None:
        """Delete all that is in the first segments, and give them back."""
        segments = find_segments(self.folder)[0]
        for segment in segments[:-2]:
            with reading(segment.path) as file:
                for record in walk(file, segment.head):
                    uid = record.description.sop_instance_uid
                    self.deleted.add(uid)
                    self.safe.pop(uid, None)
            used = self.folder / f"prepared-{segment.head.generation:016x}.segment"
            head, _ = encode_head(PREPARED, self.chance.getrandbits(63) or 1, 0)
            write_at(segment.path, 0, head)
            segment.path.rename(used)
            self.stock.paths.append(used)
        self.note()

    def crash(self, landing: Landing) -> None:
        """Lose any of the sectors that were not synced."""
        if self.chance.random() < 0.7:
            landing.write()
        landing.close()
        for path in self.files():
            before, after = self.on_disk.get(path.stat().st_ino, b""), path.read_bytes()
            mixed = bytearray(after)
            for at in range(HEAD_BYTES, len(after), SECTOR_BYTES):
                old = before[at : at + SECTOR_BYTES].ljust(SECTOR_BYTES, b"\0")
                if old != after[at : at + SECTOR_BYTES] and self.chance.random() < 0.4:
                    mixed[at : at + SECTOR_BYTES] = old[: len(after) - at]
            path.write_bytes(mixed)
        self.note()

    def survey(self, landing: Landing) -> None:
        found: dict[str, bytes] = {}
        for landed in landing.replay(0):
            uid = landed.description.sop_instance_uid
            assert not landed.is_damaged
            assert uid not in found
            with containers.stored_data(self.folder.parent, landed.location) as data:
                found[uid] = bytes(data.read(0, data.size))
        known = self.safe | self.doubtful
        assert not self.deleted & set(found)
        assert {uid: known.get(uid) for uid in found} == found
        assert set(self.safe) <= set(found)
        # What was written and came through whole counts from now on.
        self.safe, self.doubtful = found, {}


@pytest.mark.parametrize("seed", range(10))
def test_no_old_record_returns_and_no_acknowledged_one_is_lost(tmp_path: Path, seed: int) -> None:
    story = Story(tmp_path / "landing", random.Random(seed))
    story.folder.mkdir()
    crashes = 0
    landing = story.open()
    for _ in range(120):
        deed = story.chance.random()
        if deed < 0.70:
            for _ in range(story.chance.randint(1, 4)):
                story.add(landing)
            if story.chance.random() < 0.85:
                story.acknowledge(landing)
        elif deed < 0.85:
            story.acknowledge(landing)
            story.recycle()
        else:
            story.crash(landing)
            landing = story.open()
            story.survey(landing)
            crashes += 1
    story.acknowledge(landing)
    story.survey(landing)
    landing.close()
    assert crashes > 5
    assert story.stock.taken > 2
