"""Memory that is shared cannot shrink, and is lent again only when nobody needs it any more."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from pacsteward.archive.arena import ARENA_BYTES, BLOCK_BYTES, Arena, Parcel, Shelf
from pacsteward.archive.courier import Courier
from pacsteward.archive.fixtures.lender import hand_over, opened, parcel_of
from pacsteward.archive.fixtures.sender import ORIGIN, data_set, meta, running, serving
from pacsteward.archive.model import Outcome
from pacsteward.base.db import Database
from pacsteward.base.errors import Invalid


def test_an_arena_cannot_shrink() -> None:
    arena = Arena(BLOCK_BYTES)
    with pytest.raises(PermissionError):
        os.ftruncate(arena.descriptor, 0)
    arena.close_descriptor()


def test_a_block_is_lent_again_only_when_nobody_holds_it() -> None:
    arena = Arena(2 * BLOCK_BYTES)
    arena.close_descriptor()
    shelf = Shelf(arena)
    first, second = Parcel(shelf), Parcel(shelf)
    assert first.write(memoryview(b"one")) == 3
    assert second.write(memoryview(bytes(BLOCK_BYTES))) == BLOCK_BYTES
    assert first.places() == [0, 3]
    assert second.places(1) == [4, BLOCK_BYTES - 4, BLOCK_BYTES, 3]
    assert b"".join(first.views(1)) == b"ne"
    shelf.close()
    assert arena.take() is None
    second.hold()
    second.release()
    first.release()
    assert arena.take() is None
    second.release()
    assert arena.take() is not None
    assert arena.take() is not None


def test_a_full_arena_takes_what_it_can() -> None:
    arena = Arena(BLOCK_BYTES)
    arena.close_descriptor()
    parcel = Parcel(Shelf(arena))
    assert parcel.write(memoryview(bytes(BLOCK_BYTES + 1))) == BLOCK_BYTES
    assert parcel.write(memoryview(b"x")) == 0


def test_what_is_received_on_a_shelf_is_not_copied() -> None:
    arena = Arena(3 * BLOCK_BYTES)
    arena.close_descriptor()
    shelf = Shelf(arena)
    parcel = Parcel(shelf)
    received = []
    while len(received) < 3:
        room = shelf.room()
        assert room is not None
        count = min(len(room), 300_000)
        room[:count] = bytes([len(received)]) * count
        shelf.received(count)
        received.append(count)
        assert parcel.write(room[:count]) == count
    left = BLOCK_BYTES - 300_000
    assert received == [300_000, left, 300_000]
    assert parcel.places() == [0, BLOCK_BYTES, BLOCK_BYTES, 300_000]
    # What lies elsewhere comes behind it.
    assert parcel.write(memoryview(b"more")) == 4
    assert parcel.places() == [0, BLOCK_BYTES, BLOCK_BYTES, 300_004]
    assert bytes(list(parcel.views())[1][-5:]) == b"\2more"
    shelf.close()
    parcel.release()
    assert all(arena.take() is not None for _ in range(3))


def test_what_was_received_before_stays_until_the_next_is_there() -> None:
    """The end of a block may have to be looked at together with the beginning of the next one."""
    arena = Arena(2 * BLOCK_BYTES)
    arena.close_descriptor()
    shelf = Shelf(arena)
    for _ in range(2):
        room = shelf.room()
        assert room is not None
        assert len(room) == BLOCK_BYTES
        shelf.received(BLOCK_BYTES)
    assert arena.take() is None
    # The first may be written over now, and the second may not.
    assert shelf.room() is not None
    assert arena.take() is None
    shelf.close()
    assert [arena.take() is not None for _ in range(3)] == [True, True, False]


def test_what_was_received_last_stays_however_often_there_is_no_other_block() -> None:
    arena = Arena(2 * BLOCK_BYTES)
    arena.close_descriptor()
    shelf, other = Shelf(arena), Shelf(arena)
    room = shelf.room()
    assert room is not None
    room[:] = b"a" * BLOCK_BYTES
    shelf.received(BLOCK_BYTES)
    assert other.room() is not None
    for _ in range(3):
        assert shelf.room() is None
    other.close()
    again = shelf.room()
    assert again is not None
    again[:] = b"b" * BLOCK_BYTES
    assert bytes(room) == b"a" * BLOCK_BYTES
    shelf.close()
    assert [arena.take() is not None for _ in range(3)] == [True, True, False]


def test_parts_of_a_parcel_that_do_not_touch_are_two() -> None:
    arena = Arena(BLOCK_BYTES)
    arena.close_descriptor()
    shelf = Shelf(arena)
    parcel = Parcel(shelf)
    room = shelf.room()
    assert room is not None
    room[:6] = b"one--2"
    shelf.received(6)
    parcel.write(room[:3])
    parcel.write(room[5:6])
    assert parcel.places() == [0, 3, 5, 1]
    assert b"".join(parcel.views()) == b"one2"


def test_memory_is_the_keepers_until_it_has_answered(
    tmp_path: Path, sqlite_database: Database
) -> None:
    """Also when the one who waits gives up, or the connection breaks."""

    async def give_up() -> None:
        courier = await opened(tmp_path)
        parcel = parcel_of(courier, data_set("1.1"))
        (offset, _) = parcel.places()
        waiting = asyncio.create_task(courier.store(ORIGIN, meta("1.1"), parcel, 0))
        await asyncio.sleep(0)
        waiting.cancel()
        parcel.release()
        assert offset not in offsets_lent(courier)
        while not await asyncio.to_thread(house.uids):
            await asyncio.sleep(0.01)
        # The answer comes behind the index.
        while offset not in offsets_lent(courier):
            await asyncio.sleep(0.01)
        courier.close()

    def offsets_lent(courier: Courier) -> set[int]:
        taken = []
        while (block := courier.memory.take()) is not None:
            taken.append(block)
        for block in reversed(taken):
            courier.memory.give(block)
        return {block.offset for block in taken}

    with running(tmp_path, sqlite_database) as house, serving(house):
        asyncio.run(give_up())


def test_what_is_refused_gives_its_blocks_back(tmp_path: Path, sqlite_database: Database) -> None:
    async def send_bad_ones() -> None:
        courier = await opened(tmp_path)
        for _ in range(2 * ARENA_BYTES // BLOCK_BYTES):
            with pytest.raises(Invalid):
                await hand_over(courier, "1.2", data_set("1.2", study="no UID"))
        assert (await hand_over(courier, "1.1", data_set("1.1"))).outcome is Outcome.STORED
        free = 0
        while courier.memory.take() is not None:
            free += 1
        assert free == ARENA_BYTES // BLOCK_BYTES
        courier.close()

    with running(tmp_path, sqlite_database) as house, serving(house):
        asyncio.run(send_bad_ones())
