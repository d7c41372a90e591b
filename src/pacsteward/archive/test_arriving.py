"""Instances that arrive beside the keeper: what their sender hears is what it would hear there."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pacsteward.archive import hand_in
from pacsteward.archive.arena import ReceivingArena, SharedChunk
from pacsteward.archive.arriving import (
    AHEAD_MAX,
    INLINE_MAX,
    PART_BYTES,
    Arrivals,
    ArrivingInstance,
    Pieces,
)
from pacsteward.archive.containers import stored_data
from pacsteward.archive.fixtures.sender import (
    MIB,
    ORIGIN,
    SMALL,
    House,
    data_set,
    meta,
    running,
    serving,
)
from pacsteward.archive.incoming import IncomingInstance
from pacsteward.archive.line import Undelivered
from pacsteward.archive.messages import TEXT_MAX
from pacsteward.archive.model import Incoming, Outcome, StoreResult
from pacsteward.archive.settings import ArchiveSettings
from pacsteward.base.clock import SystemClock
from pacsteward.base.db import Database
from pacsteward.base.errors import Broken, Exhausted, Invalid, PacstewardError, Unavailable

CHUNK = 2 * MIB


@asynccontextmanager
async def arrivals(
    folder: Path, settings: ArchiveSettings = SMALL, *, has_keeper: bool = True
) -> AsyncIterator[Arrivals]:
    """Give a door beside the keeper of a folder."""
    door = Arrivals(folder / "run", settings, SystemClock())
    await door.open(CHUNK)
    try:
        if has_keeper:
            # On a machine with much to do it may be greeted too slowly, and is then asked again.
            await found(door)
        yield door
    finally:
        await door.close()


async def found(door: Arrivals) -> None:
    """Wait until a door has found the keeper."""
    async with asyncio.timeout(60):
        while door._line is None:
            await asyncio.sleep(0.02)


class Wire:
    """Receives into the shared memory, as an association does."""

    def __init__(self, door: Arrivals) -> None:
        self._door = door
        self._chunk: SharedChunk | None = None
        self._filled = CHUNK

    def fragments(self, data: bytes, size: int) -> Iterator[memoryview]:
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            if self._filled + len(piece) + 6 > CHUNK:
                self._chunk = self._door.begin_chunk()
                assert self._chunk is not None
                self._filled = 0
            # The head of each fragment lies between them.
            place = self._filled + 6
            view = memoryview(self._chunk.memory).cast("B")[place : place + len(piece)]
            view[:] = piece
            self._filled = place + len(piece)
            yield view


async def send(incoming: Incoming, fragments: Iterator[memoryview]) -> StoreResult:
    for fragment in fragments:
        incoming.write(fragment)
        if incoming.is_behind():
            await incoming.catch_up()
    return await incoming.finish()


Send = Callable[[Incoming, Iterator[memoryview]], Awaitable[StoreResult]]


async def send_promptly(incoming: Incoming, fragments: Iterator[memoryview]) -> StoreResult:
    """Send as the DIMSE door does: without a task that waits, where that can be had."""
    assert isinstance(incoming, ArrivingInstance)
    for fragment in fragments:
        incoming.write(fragment)
        if incoming.is_behind():
            await incoming.catch_up()
    told: asyncio.Future[StoreResult | PacstewardError] = asyncio.Future()
    if not incoming.hand_in(told.set_result):
        return await incoming.finish()
    answer = await told
    if isinstance(answer, PacstewardError):
        raise answer
    return answer


def read_back(house: House, uid: str) -> bytes:
    house.wait()
    with stored_data(house.folder, house.location(uid)) as view:
        return bytes(view.read(0, view.size))


SIZES = {
    "1.1": (300, 16_384),
    "1.2": (500_000, 131_066),
    "1.3": (MIB - 2_000, 700),
    # Beyond the size from which an object gets a file of its own.
    "1.4": (MIB + 1, 100_000),
    "1.5": (3 * PART_BYTES + 7, 131_066),
    # Fragments so small that they travel in the message.
    "1.6": (1_000, 1),
    "1.7": (2 * INLINE_MAX + 5, 250),
    "1.8": (MIB + 500, 256),
    # So many that a message cannot name them all.
    "1.9": (20_000 * 260, 257),
}


@pytest.mark.parametrize("is_shared", [True, False])
def test_objects_of_any_size_arrive_byte_for_byte(
    tmp_path: Path, database: Database, is_shared: bool
) -> None:
    """Also those that found no room in the shared memory."""
    objects = {
        uid: data_set(uid, pixels=os.urandom(size // 2 * 2), number=number)
        for number, (uid, (size, _)) in enumerate(SIZES.items())
    }

    async def send_all() -> list[StoreResult]:
        async with arrivals(tmp_path) as door:
            wire = Wire(door)

            def fragments(uid: str) -> Iterator[memoryview]:
                data, size = objects[uid], SIZES[uid][1]
                if is_shared:
                    return wire.fragments(data, size)
                own = bytearray(data)
                return (memoryview(own)[at : at + size] for at in range(0, len(data), size))

            return await asyncio.gather(
                *(send(door.receive(ORIGIN, meta(uid)), fragments(uid)) for uid in objects)
            )

    with running(tmp_path, database) as house, serving(house):
        results = asyncio.run(send_all())
        assert [one.outcome for one in results] == [Outcome.STORED] * len(objects)
        assert [one.sop_instance_uid for one in results] == list(objects)
        assert {uid: read_back(house, uid) for uid in objects} == objects
        kinds = {uid: house.location(uid).container_kind for uid in objects}
        assert kinds["1.2"] == kinds["1.3"] == "landing"
        assert kinds["1.4"] == kinds["1.5"] == "object"


def cases(first: str) -> list[tuple[str, bytes]]:
    one, two, three, big = (f"{first}.{number}" for number in (1, 2, 3, 4))
    pixels = bytes(2 * MIB)
    return [
        (one, data_set(one, patient_id="")),
        (one, data_set(one, patient_id="")),
        (one, data_set(one, number=2)),
        (two, data_set(three)),
        (two, data_set(two)[:-2]),
        (two, data_set(two, study="1..A")),
        (two, b""),
        (big, data_set(big, pixels=pixels)),
        (big, data_set(big, pixels=pixels)),
        (big, data_set(big, pixels=pixels, number=7)),
        (two, data_set(three, pixels=pixels)),
        (two, data_set(two, pixels=pixels)[:-2]),
    ]


def said(answer: StoreResult | PacstewardError) -> str:
    return f"{type(answer).__name__} {answer!s}"


def test_f038_the_answer_is_the_same_as_in_the_keepers_own_process(
    tmp_path: Path, database: Database
) -> None:
    async def send_here(house: House) -> list[str]:
        return [
            await answered(house.keeper.receive(ORIGIN, meta(uid)), [data])
            for uid, data in cases("1.2.7")
        ]

    async def send_beside(first: str, how: Send) -> list[str]:
        async with arrivals(tmp_path) as door:
            wire = Wire(door)
            return [
                await answered(
                    door.receive(ORIGIN, meta(uid)), list(wire.fragments(data, 130_000)), how
                )
                for uid, data in cases(first)
            ]

    async def answered(
        incoming: Incoming, pieces: Sequence[bytes | memoryview], how: Send = send
    ) -> str:
        try:
            return said(await how(incoming, map(memoryview, pieces)))
        except PacstewardError as error:
            return said(error)

    with running(tmp_path, database) as house, serving(house):
        expected = asyncio.run(send_here(house))
        found = asyncio.run(send_beside("1.2.8", send))
        prompt = asyncio.run(send_beside("1.2.9", send_promptly))
    assert [one.replace("1.2.8.", "1.2.7.") for one in found] == expected
    assert [one.replace("1.2.9.", "1.2.7.") for one in prompt] == expected
    assert [one.split(" ")[0] for one in found] == [
        *["StoreResult"] * 3,
        "DoesNotMatch",
        *["Invalid"] * 3,
        *["StoreResult"] * 3,
        "DoesNotMatch",
        "Invalid",
    ]


def test_an_ordinary_object_is_handed_in_without_a_task(
    tmp_path: Path, sqlite_database: Database
) -> None:
    async def hand_in_two() -> None:
        async with arrivals(tmp_path) as door:
            wire = Wire(door)
            told: list[StoreResult | PacstewardError] = []
            for uid in ("1.1", "1.2"):
                incoming = door.receive(ORIGIN, meta(uid))
                for fragment in wire.fragments(data_set(uid), 300):
                    incoming.write(fragment)
                assert incoming.hand_in(told.append)
            # Neither was said to the keeper yet: both will be with one write.
            assert told == []
            async with asyncio.timeout(20):
                while len(told) < 2:
                    await asyncio.sleep(0.005)
            assert [one.sop_instance_uid for one in told if isinstance(one, StoreResult)] == [
                "1.1",
                "1.2",
            ]

    with running(tmp_path, sqlite_database) as house, serving(house):
        asyncio.run(hand_in_two())
        house.wait()
        assert house.uids() == ["1.1", "1.2"]


def test_whoever_handed_in_is_told_that_the_keeper_went_away(
    tmp_path: Path, sqlite_database: Database
) -> None:
    async def lose_the_keeper() -> StoreResult | PacstewardError:
        async with arrivals(tmp_path) as door:
            incoming = door.receive(ORIGIN, meta("1.1"))
            for fragment in Wire(door).fragments(data_set("1.1"), 300):
                incoming.write(fragment)
            told: asyncio.Future[StoreResult | PacstewardError] = asyncio.Future()
            assert incoming.hand_in(told.set_result)
            assert door._line is not None
            door._line.connection_lost(None)
            async with asyncio.timeout(20):
                return await told

    with running(tmp_path, sqlite_database) as house, serving(house):
        assert isinstance(asyncio.run(lose_the_keeper()), Unavailable)


def test_what_was_handed_in_reaches_the_keeper_although_the_door_closes(
    tmp_path: Path, sqlite_database: Database
) -> None:
    async def hand_in_and_close() -> None:
        async with arrivals(tmp_path) as door:
            incoming = door.receive(ORIGIN, meta("1.1"))
            for fragment in Wire(door).fragments(data_set("1.1"), 300):
                incoming.write(fragment)
            assert incoming.hand_in(lambda _answer: None)
            assert door._line is not None
            door._line.close()
            async with asyncio.timeout(20):
                while not house.uids():
                    await asyncio.sleep(0.005)

    with running(tmp_path, sqlite_database) as house, serving(house):
        asyncio.run(hand_in_and_close())
        assert house.uids() == ["1.1"]


@pytest.mark.parametrize("how", [send, send_promptly])
@pytest.mark.parametrize("size", [300, 3 * MIB])
def test_the_reserve_of_the_disk_is_told_and_nothing_is_left(
    tmp_path: Path, sqlite_database: Database, size: int, how: Send
) -> None:
    settings = SMALL.model_copy(update={"reserve_bytes": 1 << 60})

    async def try_twice() -> None:
        async with arrivals(tmp_path, settings) as door:
            wire = Wire(door)
            for _ in range(2):
                fragments = wire.fragments(data_set("1.1", pixels=bytes(size)), 130_000)
                with pytest.raises(Exhausted):
                    await how(door.receive(ORIGIN, meta("1.1")), fragments)

    with running(tmp_path, sqlite_database, settings) as house, serving(house):
        asyncio.run(try_twice())
        assert house.uids() == []
    assert not [one for one in (tmp_path / "objects").rglob("*") if one.is_file()]


def test_an_object_that_is_too_large_is_refused_before_all_of_it_is_here(
    tmp_path: Path, sqlite_database: Database
) -> None:
    settings = SMALL.model_copy(update={"largest_object_bytes": 4 * MIB})

    async def send_large() -> None:
        async with arrivals(tmp_path, settings) as door:
            wire = Wire(door)
            fragments = wire.fragments(data_set("1.1", pixels=bytes(5 * MIB)), 130_000)
            with pytest.raises(Invalid, match="largest_object_bytes"):
                await send(door.receive(ORIGIN, meta("1.1")), fragments)

    with running(tmp_path, sqlite_database, settings) as house, serving(house):
        asyncio.run(send_large())


def test_an_object_that_is_too_large_is_called_so_also_while_the_keeper_is_away(
    tmp_path: Path, sqlite_database: Database
) -> None:
    """Else its sender would try again for ever."""
    settings = SMALL.model_copy(update={"largest_object_bytes": 4 * MIB})

    async def send_large() -> None:
        async with arrivals(tmp_path, settings, has_keeper=False) as door:
            with running(tmp_path, sqlite_database, settings) as house, serving(house):
                await found(door)
                data = data_set("1.1", pixels=bytes(5 * MIB))
                fragments = iter(list(Wire(door).fragments(data, 130_000)))
                incoming = door.receive(ORIGIN, meta("1.1"))
                for _ in range(4 * MIB // 130_000):
                    incoming.write(next(fragments))
                await asyncio.wait(incoming._parts)
                door._line.close()
            with pytest.raises(Invalid, match="largest_object_bytes"):
                await send(incoming, fragments)

    asyncio.run(send_large())


def test_what_is_abandoned_leaves_nothing(tmp_path: Path, sqlite_database: Database) -> None:
    async def begin_and_leave() -> None:
        async with arrivals(tmp_path) as door:
            wire = Wire(door)
            for size in (300, 5 * MIB):
                incoming = door.receive(ORIGIN, meta("1.1"))
                for fragment in wire.fragments(bytes(size), 100_000):
                    incoming.write(fragment)
                incoming.abandon()
            data = data_set("1.2")
            await send(door.receive(ORIGIN, meta("1.2")), wire.fragments(data, 100))
            # The door closes in the middle of this one.
            for fragment in wire.fragments(bytes(5 * MIB), 100_000):
                incoming.write(fragment)

    with running(tmp_path, sqlite_database) as house, serving(house):
        asyncio.run(begin_and_leave())
        house.wait()
        assert house.uids() == ["1.2"]
    assert not [one for one in (tmp_path / "objects").rglob("*") if one.is_file()]


def test_a_sender_waits_while_the_keeper_is_behind(
    tmp_path: Path, sqlite_database: Database
) -> None:
    async def send_fast() -> int:
        most = 0
        async with arrivals(tmp_path) as door:
            wire = Wire(door)
            incoming = door.receive(ORIGIN, meta("1.1"))
            data = data_set("1.1", pixels=bytes(40 * MIB))
            for fragment in wire.fragments(data, 131_066):
                incoming.write(fragment)
                most = max(most, incoming._ahead_bytes)
                if incoming.is_behind():
                    await incoming.catch_up()
                    assert not incoming.is_behind()
            assert (await incoming.finish()).outcome is Outcome.STORED
        return most

    with running(tmp_path, sqlite_database) as house, serving(house):
        most = asyncio.run(send_fast())
    assert AHEAD_MAX < most <= AHEAD_MAX + PART_BYTES + 131_066


def test_while_the_keeper_is_away_senders_are_told_to_try_again(
    tmp_path: Path, sqlite_database: Database
) -> None:
    """Then the door finds the next one by itself, and shares other memory with it."""

    async def live_through_a_restart() -> None:
        async with arrivals(tmp_path, has_keeper=False) as door:
            with pytest.raises(Unavailable):
                door.receive(ORIGIN, meta("1.1"))
            assert door.begin_chunk() is None
            with running(tmp_path, sqlite_database) as house, serving(house):
                await found(door)
                wire = Wire(door)
                fragments = wire.fragments(data_set("1.1"), 100)
                await send(door.receive(ORIGIN, meta("1.1")), fragments)
                begun = door.receive(ORIGIN, meta("1.2"))
                half = list(wire.fragments(data_set("1.2"), 300))
            with pytest.raises(Unavailable):
                await send(begun, iter(half))
            assert wire._chunk is not None
            assert wire._chunk.is_retired
            with pytest.raises(Unavailable):
                door.receive(ORIGIN, meta("1.2"))
            with running(tmp_path, sqlite_database) as house, serving(house):
                await found(door)
                fragments = Wire(door).fragments(data_set("1.2"), 300)
                await send(door.receive(ORIGIN, meta("1.2")), fragments)
                house.wait()
                assert house.uids() == ["1.1", "1.2"]

    asyncio.run(live_through_a_restart())


def test_memory_that_is_emptied_goes_back_to_the_system() -> None:
    arena = ReceivingArena(MIB)

    def held_bytes() -> int:
        return os.fstat(arena.descriptor).st_blocks * 512

    chunks = [arena.begin_chunk() for _ in range(4)]
    for chunk in chunks:
        assert chunk is not None
        memoryview(chunk.memory).cast("B")[:] = b"x" * MIB
    assert held_bytes() == 4 * MIB
    assert chunks[1] is not None
    chunks[1].empty()
    assert held_bytes() == 3 * MIB
    assert [chunk.memory[MIB - 1] for chunk in chunks if chunk] == [b"x", b"\0", b"x", b"x"]
    arena.close_descriptor()


def test_a_header_too_long_for_one_message_is_told_in_parts(
    tmp_path: Path, sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hand_in, "TEXT_MAX", 500)
    data = data_set("1.1", pixels=bytes(100_000))

    async def send_both() -> None:
        async with arrivals(tmp_path) as door:
            fragments = Wire(door).fragments(data, 10_000)
            result = await send(door.receive(ORIGIN, meta("1.1")), fragments)
            assert result.outcome is Outcome.STORED

    with running(tmp_path, sqlite_database) as house, serving(house):
        asyncio.run(send_both())
        assert read_back(house, "1.1") == data
        assert house.location("1.1").container_kind == "landing"


def test_a_text_that_the_keeper_would_not_read_is_not_sent(
    tmp_path: Path, sqlite_database: Database
) -> None:
    """It would close the line, and fail all that others have under way on it."""

    async def try_it() -> None:
        async with arrivals(tmp_path) as door:
            assert door._line is not None
            with pytest.raises(Undelivered):
                door._line.ask(b"[" + b" " * TEXT_MAX, Pieces())
            fragments = Wire(door).fragments(data_set("1.1"), 100)
            await send(door.receive(ORIGIN, meta("1.1")), fragments)

    with running(tmp_path, sqlite_database) as house, serving(house):
        asyncio.run(try_it())


def test_doors_that_had_no_descriptor_left_try_again(
    tmp_path: Path, sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    real = os.memfd_create

    def refuse_twice(name: str, flags: int) -> int:
        tried.append(name)
        if len(tried) <= 2:
            raise OSError(errno.EMFILE, "Too many open files")
        return real(name, flags)

    monkeypatch.setattr(os, "memfd_create", refuse_twice)

    async def wait_for_it() -> None:
        async with arrivals(tmp_path) as door:
            assert door.begin_chunk() is not None

    with running(tmp_path, sqlite_database) as house, serving(house):
        asyncio.run(wait_for_it())
    assert len(tried) == 3


def test_an_object_of_which_a_part_was_not_taken_is_not_stored(
    tmp_path: Path, sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = data_set("1.1", pixels=bytes(7 * MIB))
    real = IncomingInstance.write
    written: list[int] = []

    def fail_once(self: IncomingInstance, fragment: memoryview) -> None:
        written.append(len(fragment))
        if len(written) == 20:
            raise MemoryError
        real(self, fragment)

    monkeypatch.setattr(IncomingInstance, "write", fail_once)

    async def send_twice() -> None:
        async with arrivals(tmp_path) as door:
            wire = Wire(door)
            with pytest.raises((Broken, Unavailable)):
                await send(door.receive(ORIGIN, meta("1.1")), wire.fragments(data, 131_066))
            result = await send(door.receive(ORIGIN, meta("1.1")), wire.fragments(data, 131_066))
            assert result.outcome is Outcome.STORED

    with running(tmp_path, sqlite_database) as house, serving(house):
        asyncio.run(send_twice())
        assert read_back(house, "1.1") == data


def test_a_place_is_told_only_of_what_lies_in_the_memory() -> None:
    first, second = ReceivingArena(MIB), ReceivingArena(MIB)
    chunks = [first.begin_chunk(), first.begin_chunk(), second.begin_chunk()]
    views = [memoryview(chunk.memory).cast("B") for chunk in chunks if chunk is not None]
    assert [first.place_of(view[5:7]) for view in views] == [5, MIB + 5, None]
    assert second.place_of(views[2][MIB - 1 :]) == MIB - 1
    assert first.place_of(memoryview(bytearray(9))) is None
    first.retire()
    assert first.begin_chunk() is None
    for arena in (first, second):
        arena.close_descriptor()
