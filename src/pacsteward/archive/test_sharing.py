"""Instances handed over in shared memory: byte for byte, and nobody harmed by whoever shares it."""

from __future__ import annotations

import asyncio
import json
import marshal
import os
import socket
import time
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any

import pytest
from isal.isal_zlib import crc32

from pacsteward.archive.arena import BLOCK_BYTES, Arena
from pacsteward.archive.client import answer_on, connected
from pacsteward.archive.examine import examined
from pacsteward.archive.fixtures.lender import hand_over, opened, read_back, say, sharing
from pacsteward.archive.fixtures.sender import (
    EXPLICIT,
    MIB,
    ORIGIN,
    SMALL,
    data_set,
    meta,
    running,
    serving,
)
from pacsteward.archive.messages import HEAD, STORED
from pacsteward.archive.model import Outcome, StoreResult
from pacsteward.archive.ready import LETTER, packed
from pacsteward.base.clock import SystemClock
from pacsteward.base.db import Database
from pacsteward.base.errors import Exhausted, Invalid, PacstewardError
from pacsteward.dicom.fragments import Fragments
from pacsteward.dicom.header import read_header


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
