"""Instances handed over in shared memory: byte for byte, and nobody harmed by whoever shares it."""

from __future__ import annotations

import asyncio
import json
import marshal
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any

import pytest
from isal.isal_zlib import crc32

from pacsteward.archive.arena import ARENA_BYTES, BLOCK_BYTES, Arena, Parcel, Shelf
from pacsteward.archive.client import answer_on, connected
from pacsteward.archive.containers import stored_data
from pacsteward.archive.courier import Courier, Couriers
from pacsteward.archive.examine import examined
from pacsteward.archive.fixtures.sender import (
    EXPLICIT,
    MIB,
    ORIGIN,
    SMALL,
    House,
    data_set,
    meta,
    running,
    serving,
)
from pacsteward.archive.line import Undelivered
from pacsteward.archive.messages import HEAD, STORED
from pacsteward.archive.model import Outcome, StoreResult
from pacsteward.archive.ready import LETTER, packed
from pacsteward.base.clock import SystemClock
from pacsteward.base.db import Database
from pacsteward.base.errors import Exhausted, Invalid, PacstewardError
from pacsteward.dicom.fragments import Fragments
from pacsteward.dicom.header import read_header

HEAD_BYTES = b"what stands before the data set"


def parcel_of(courier: Courier, *pieces: bytes) -> Parcel:
    """Put bytes on a shelf of their own."""
    shelf = courier.shelf()
    parcel = Parcel(shelf)
    for piece in pieces:
        assert parcel.write(memoryview(piece)) == len(piece)
    shelf.close()
    return parcel


async def hand_over(courier: Courier, uid: str, data: bytes) -> StoreResult:
    """Store one object that lies behind something else."""
    parcel = parcel_of(courier, HEAD_BYTES, data[:1000], data[1000:])
    try:
        return await courier.store(ORIGIN, meta(uid), parcel, len(HEAD_BYTES))
    finally:
        parcel.release()


async def opened(folder: Path) -> Courier:
    """Return a courier to the keeper of a folder."""
    courier = await Couriers(folder / "run", SMALL, SystemClock()).get()
    assert courier is not None
    return courier


def read_back(house: House, uid: str) -> bytes:
    house.wait()
    with stored_data(house.folder, house.location(uid)) as view:
        return bytes(view.read(0, view.size))


@contextmanager
def sharing(folder: Path, arena: Arena) -> Iterator[socket.socket]:
    """Give a connection on which an arena was offered, whatever became of that."""
    with connected(folder / "run") as connection:
        connection.settimeout(10)
        say(connection, {"call": "share"})
        assert answer_on(connection) == {"result": "ready"}
        socket.send_fds(connection, [b"\0"], [arena.descriptor])
        yield connection
    arena.close_descriptor()


def say(connection: socket.socket, request: Any, number: int = 0) -> None:
    text = json.dumps(request).encode()
    connection.sendall(HEAD.pack(len(text), number) + text)


def test_objects_of_any_size_arrive_byte_for_byte_and_at_once(
    tmp_path: Path, database: Database
) -> None:
    objects = {
        "1.1": data_set("1.1"),
        "1.2": data_set("1.2", pixels=os.urandom(BLOCK_BYTES + 10), number=2),
        "1.3": data_set("1.3", pixels=os.urandom(MIB - 5000), number=3),
        "1.4": data_set("1.4", pixels=os.urandom(100_000), number=4),
    }

    async def send_all() -> list[StoreResult]:
        courier = await opened(tmp_path)
        results = await asyncio.gather(
            *(hand_over(courier, uid, data) for uid, data in objects.items())
        )
        courier.close()
        return results

    with running(tmp_path, database) as house, serving(house):
        results = asyncio.run(send_all())
        assert [one.outcome for one in results] == [Outcome.STORED] * 4
        assert [one.sop_instance_uid for one in results] == list(objects)
        assert {uid: read_back(house, uid) for uid in objects} == objects


def test_the_answer_is_that_of_the_socket(tmp_path: Path, database: Database) -> None:
    """Same words for what was kept, found again, kept beside, warned of and refused."""

    def cases(first: str) -> list[tuple[str, bytes]]:
        one, two, three = (f"{first}.{number}" for number in (1, 2, 3))
        return [
            (one, data_set(one, patient_id="")),
            (one, data_set(one, patient_id="")),
            (one, data_set(one, number=2)),
            (two, data_set(three)),
            (two, data_set(two)[:-2]),
        ]

    async def hand_all() -> list[Any]:
        courier = await opened(tmp_path)
        answers: list[Any] = []
        for uid, data in cases("1.2.8"):
            try:
                answers.append(await hand_over(courier, uid, data))
            except Invalid as error:
                answers.append(str(error))
        courier.close()
        return answers

    with running(tmp_path, database) as house, serving(house) as client:
        by_socket: list[Any] = []
        for uid, data in cases("1.2.7"):
            try:
                by_socket.append(client.store(ORIGIN, meta(uid), data))
            except Invalid as error:
                by_socket.append(str(error))
        by_memory = asyncio.run(hand_all())
    outcomes = [getattr(answer, "outcome", None) for answer in by_socket]
    assert outcomes == [Outcome.STORED, Outcome.ALREADY_HERE, Outcome.CONFLICT, None, None]
    assert by_socket[0].warnings
    assert str(by_memory).replace("1.2.8.", "1.2.7.") == str(by_socket)


def test_a_refusal_is_told_and_the_connection_goes_on(tmp_path: Path, database: Database) -> None:
    async def send() -> None:
        courier = await opened(tmp_path)
        for _ in range(2):
            with pytest.raises(Exhausted):
                await hand_over(courier, "1.1", data_set("1.1"))
        courier.close()

    settings = SMALL.model_copy(update={"reserve_bytes": 1 << 60})
    with running(tmp_path, database, settings) as house, serving(house):
        asyncio.run(send())


@pytest.mark.parametrize(
    "places",
    [
        [-1, 10],
        [0, -1],
        [0, 0],
        [BLOCK_BYTES - 5, 6],
        [1 << 70, 1],
        [0, 1 << 70],
        [0],
        [0, "AAAA"],
        ["no base64 at all", 0, 10],
        [0.5, 10],
        "nonsense",
        None,
    ],
)
def test_places_outside_of_the_memory_are_refused(
    tmp_path: Path, sqlite_database: Database, places: Any
) -> None:
    arena = Arena(BLOCK_BYTES)
    data = data_set("1.1")
    block = arena.take()
    assert block is not None
    block.view[BLOCK_BYTES - len(data) :] = data
    header = read_header(Fragments([data]), EXPLICIT)
    found = examined(header, meta("1.1"), ORIGIN, SystemClock().now())

    def ask(connection: socket.socket, text: bytes) -> None:
        connection.sendall(HEAD.pack(len(text), 7) + text)

    def ready(places: Any) -> bytes:
        return packed(found, len(data), crc32(data), places)

    with (
        running(tmp_path, sqlite_database) as house,
        serving(house),
        sharing(tmp_path, arena) as connection,
    ):
        assert answer_on(connection) == {"result": "shared"}
        part = ["part", 1, json.dumps(asdict(ORIGIN)), astuple(meta("1.1")), places]
        for text in (ready(places), json.dumps(part).encode()):
            ask(connection, text)
            error = answer_on(connection)["error"]
            assert error["what"] == "A request to the keeper was not understood."
        # Up to the very end is right.
        ask(connection, ready([BLOCK_BYTES - len(data), len(data)]))
        expected = HEAD.pack(len(STORED), 7) + STORED
        assert connection.recv(len(expected), socket.MSG_WAITALL) == expected
        house.wait()
        assert house.uids() == ["1.1"]
        assert read_back(house, "1.1") == data


@pytest.mark.parametrize(
    "text",
    [
        b"{}",
        b"[]",
        b"[1,2,3]",
        b'["whole", 1]',
        b'["part", "x", [], []]',
        b'["end", 5, 1, 1]',
        b'["part", 1, "{}", [], []]',
        b"\xff",
        b"[" * 9999,
        LETTER,
        LETTER + b"nonsense",
        LETTER + marshal.dumps(()),
        LETTER + marshal.dumps(tuple(range(21))),
    ],
)
def test_nonsense_is_refused(tmp_path: Path, sqlite_database: Database, text: bytes) -> None:
    with (
        running(tmp_path, sqlite_database) as house,
        serving(house) as client,
        sharing(tmp_path, Arena(BLOCK_BYTES)) as connection,
    ):
        assert answer_on(connection) == {"result": "shared"}
        connection.sendall(HEAD.pack(len(text), 0) + text)
        assert answer_on(connection)["error"]["kind"] == "unavailable"
        connection.sendall(HEAD.pack(1 << 31, 0))
        assert connection.recv(1) == b""
        assert client.store(ORIGIN, meta("1.1"), data_set("1.1")).outcome is Outcome.STORED


def test_memory_that_could_shrink_is_not_taken(tmp_path: Path, sqlite_database: Database) -> None:
    """Whoever touches a page behind the end of a file is killed by the system (SIGBUS)."""
    arena = Arena(BLOCK_BYTES)
    arena.close_descriptor()
    arena.descriptor = os.memfd_create("unsealed", os.MFD_ALLOW_SEALING)
    os.ftruncate(arena.descriptor, BLOCK_BYTES)
    with (
        running(tmp_path, sqlite_database) as house,
        serving(house) as client,
        sharing(tmp_path, arena) as connection,
    ):
        assert connection.recv(1) == b""
        assert client.store(ORIGIN, meta("1.1"), data_set("1.1")).outcome is Outcome.STORED


def test_an_arena_cannot_shrink() -> None:
    arena = Arena(BLOCK_BYTES)
    with pytest.raises(PermissionError):
        os.ftruncate(arena.descriptor, 0)
    arena.close_descriptor()


def test_whoever_sends_no_descriptor_is_left(tmp_path: Path, sqlite_database: Database) -> None:
    with running(tmp_path, sqlite_database) as house, serving(house) as client:
        for last in (b"x", b""):
            with connected(tmp_path / "run") as connection:
                connection.settimeout(10)
                say(connection, {"call": "share"})
                assert answer_on(connection) == {"result": "ready"}
                connection.sendall(last)
                connection.shutdown(socket.SHUT_WR)
                assert connection.recv(1) == b""
        assert client.store(ORIGIN, meta("1.1"), data_set("1.1")).outcome is Outcome.STORED


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


def test_a_sender_is_told_once_and_what_was_told_is_not_written(
    tmp_path: Path, sqlite_database: Database
) -> None:
    """When the screening fails, those who wait for another one of their UID fail with it."""

    async def send_all() -> list[Any]:
        courier = await opened(tmp_path)
        sent = [hand_over(courier, "1.1", data_set("1.1")) for _ in range(6)]
        answers = await asyncio.gather(*sent, return_exceptions=True)
        last = await hand_over(courier, "1.2", data_set("1.2"))
        assert courier.is_open
        courier.close()
        return [*answers, last]

    with running(tmp_path, sqlite_database) as house, serving(house):
        taken = house.keeper._arbiter._taken
        real, asked = taken.among, []

        def fail_first(uids: list[str]) -> Any:
            asked.append(uids)
            if len(asked) == 1:
                time.sleep(0.3)
                raise RuntimeError
            return real(uids)

        taken.among = fail_first  # type: ignore[method-assign]
        answers = asyncio.run(send_all())
        house.wait()
        kept = [one for one in answers if isinstance(one, StoreResult)]
        assert {one.sop_instance_uid for one in kept} == set(house.uids())
        assert any(isinstance(one, PacstewardError) for one in answers)
        assert "1.2" in house.uids()


def test_after_a_restart_of_the_keeper_there_is_another_arena(
    tmp_path: Path, database: Database
) -> None:
    async def send(couriers: Couriers) -> None:
        with running(tmp_path, database) as house, serving(house):
            first = await couriers.get()
            assert first is not None
            await hand_over(first, "1.1", data_set("1.1"))
            parcel = parcel_of(first, data_set("1.2"))
        while first.is_open:
            await asyncio.sleep(0.01)
        with pytest.raises(Undelivered):
            await first.store(ORIGIN, meta("1.2"), parcel, 0)
        assert Shelf(parcel.arena).put(memoryview(b"x")) is None
        assert await couriers.get() is None
        couriers._again_at = 0.0
        with running(tmp_path, database) as house, serving(house):
            second = await couriers.get()
            assert second is not None
            # What lies in the memory of another keeper is not sent to this one.
            with pytest.raises(Undelivered):
                await second.store(ORIGIN, meta("1.2"), parcel, 0)
            result = await hand_over(second, "1.2", data_set("1.2"))
            assert result.outcome is Outcome.STORED
        couriers.close()

    asyncio.run(send(Couriers(tmp_path / "run", SMALL, SystemClock())))


KEEPER = """
import asyncio, sys
from pathlib import Path
from pacsteward.archive.fixtures.sender import running
from pacsteward.base import faults
from pacsteward.base.db import open_database

async def serve(house):
    await house.keeper.serve()
    faults.arm_from_environment()
    print("ready", flush=True)
    await asyncio.Event().wait()

with running(Path(sys.argv[1]), open_database(sys.argv[2])) as house:
    asyncio.run(serve(house))
"""


@pytest.mark.parametrize("point", ["after-write", "before-fsync", "after-fsync", "before-answer"])
def test_r2_a_keeper_that_is_killed_loses_nothing_it_acknowledged(
    tmp_path: Path, sqlite_database: Database, point: str
) -> None:
    url = str(sqlite_database.engine.url.database)
    process = subprocess.Popen(
        [sys.executable, "-c", KEEPER, str(tmp_path), url],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PACSTEWARD_FAULTS": f"{point}:kill@5"},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    objects = {
        f"1.{number}": data_set(f"1.{number}", pixels=os.urandom(200_000), number=number)
        for number in range(1, 60)
    }
    kept: list[str] = []

    async def send(courier: Courier, uids: list[str]) -> None:
        for uid in uids:
            await hand_over(courier, uid, objects[uid])
            kept.append(uid)

    async def send_all() -> list[Any]:
        courier = await opened(tmp_path)
        uids = list(objects)
        shares = (uids[start::4] for start in range(4))
        return await asyncio.gather(
            *(send(courier, share) for share in shares), return_exceptions=True
        )

    ends = asyncio.run(send_all())
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert [type(end) for end in ends] == [Undelivered] * 4
    assert 0 < len(kept) < len(objects)
    with running(tmp_path, sqlite_database) as house, serving(house):
        house.wait()
        assert set(kept) <= set(house.uids())
        for uid in house.uids():
            assert read_back(house, uid) == objects[uid]

        async def send_again() -> None:
            courier = await opened(tmp_path)
            for uid, data in objects.items():
                outcome = (await hand_over(courier, uid, data)).outcome
                assert outcome in (Outcome.STORED, Outcome.ALREADY_HERE)
            courier.close()

        asyncio.run(send_again())
        house.wait()
        assert house.study()["number_of_study_related_instances"] == len(objects)


SENDER = """
import asyncio, os, signal, sys
from pathlib import Path
from pacsteward.archive.fixtures.sender import ORIGIN, data_set, meta
from pacsteward.archive.test_sharing import opened, parcel_of

async def send():
    courier = await opened(Path(sys.argv[1]))
    parcel = parcel_of(courier, data_set("1.1", pixels=bytes(400_000)))
    half = parcel_of(courier, data_set("1.2", pixels=bytes(400_000))[:200_000])
    tasks = [
        asyncio.create_task(courier.store(ORIGIN, meta("1.1"), parcel, 0)),
        asyncio.create_task(courier.store(ORIGIN, meta("1.2"), half, 0)),
    ]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(send())
"""


def test_a_process_that_dies_leaves_nothing_half_stored(
    tmp_path: Path, sqlite_database: Database
) -> None:
    with running(tmp_path, sqlite_database) as house, serving(house) as client:
        done = subprocess.run([sys.executable, "-c", SENDER, str(tmp_path)], check=False)
        assert done.returncode == -signal.SIGKILL
        client.store(ORIGIN, meta("1.3"), data_set("1.3"))
        house.wait()
        # What had been asked for as a whole may be here; then it is whole.
        assert set(house.uids()) - {"1.1"} == {"1.3"}
        if "1.1" in house.uids():
            assert read_back(house, "1.1") == data_set("1.1", pixels=bytes(400_000))
