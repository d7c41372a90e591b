"""Whoever dies while memory is shared: what was acknowledged is kept, nothing is half stored."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pacsteward.archive.arena import Shelf
from pacsteward.archive.courier import Courier, Couriers
from pacsteward.archive.fixtures.lender import hand_over, opened, parcel_of, read_back
from pacsteward.archive.fixtures.sender import ORIGIN, SMALL, data_set, meta, running, serving
from pacsteward.archive.line import Undelivered
from pacsteward.archive.model import Outcome
from pacsteward.base.clock import SystemClock
from pacsteward.base.db import Database


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
from pacsteward.archive.fixtures.lender import opened, parcel_of

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
