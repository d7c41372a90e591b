"""R1: SIGKILL in mid-ingest: nothing acknowledged is lost, nothing is half there, nothing twice."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import select

from pacsteward.archive.containers import stored_data
from pacsteward.archive.fixtures.sender import data_set, running
from pacsteward.base.db import Database
from pacsteward.base.events.tables import FACT

SENDER = """
import sys
from pathlib import Path
from pacsteward.archive.fixtures.sender import data_set, running, MIB
from pacsteward.base import faults
from pacsteward.base.db import open_database

folder, url, first = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
with running(folder, open_database(url)) as house:
    faults.arm_from_environment()
    print("ready", flush=True)
    number = first
    while True:
        objects = []
        for _ in range(4):
            number += 1
            pixels = bytes([number % 251]) * (1_200_000 if number % 25 == 0 else 20_000)
            objects.append((data_set(f"1.{number}", pixels=pixels, number=number), f"1.{number}"))
        for result, (_, uid) in zip(house.store_all(objects), objects):
            print(uid, result.outcome, flush=True)
"""


def expected(uid: str) -> bytes:
    number = int(uid.partition(".")[2])
    size = 1_200_000 if number % 25 == 0 else 20_000
    return data_set(uid, pixels=bytes([number % 251]) * size, number=number)


def url_of(database: Database) -> str:
    if database.is_sqlite:
        return str(database.engine.url.database)
    url = database.engine.url.render_as_string(hide_password=False)
    return url.replace("postgresql+psycopg", "postgresql")


def send_until_killed(
    folder: Path, database: Database, first: int, lives_s: float, armed: str = ""
) -> list[str]:
    """Run a keeper that stores as fast as it can, kill it, and return what it acknowledged."""
    import os

    process = subprocess.Popen(
        [sys.executable, "-c", SENDER, str(folder), url_of(database), str(first)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PACSTEWARD_FAULTS": armed},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    if not armed:
        time.sleep(lives_s)
        process.send_signal(signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    whole_lines = output.split("\n")[:-1]
    return [line.split()[0] for line in whole_lines]


def survey(folder: Path, database: Database, acknowledged: set[str]) -> None:
    with running(folder, database) as house:
        uids = house.uids()
        lost = acknowledged - set(uids)
        assert not lost
        assert len(uids) == len(set(uids))
        for uid in uids:
            with stored_data(folder, house.location(uid)) as view:
                assert view.read(0, view.size) == expected(uid)
        if uids:
            assert house.study()["number_of_study_related_instances"] == len(uids)
            assert house.series()[0]["number_of_series_related_instances"] == len(uids)
        with database.read() as connection:
            bodies = connection.execute(
                select(FACT.c.body).where(FACT.c.name == "instances_stored")
            ).scalars()
            told = [uid for body in bodies for uid in json.loads(body)["sop_instance_uids"]]
        # Each stored instance was announced exactly once.
        assert sorted(told) == uids
    assert list((folder / "objects" / "incoming").iterdir()) == []


def test_r1_killed_at_random_moments(tmp_path: Path, database: Database) -> None:
    chance = random.Random(7)
    folder = tmp_path / "data"
    acknowledged: set[str] = set()
    for turn in range(4):
        acknowledged.update(
            send_until_killed(folder, database, turn * 100_000, chance.uniform(0.05, 0.5))
        )
        survey(folder, database, acknowledged)
    assert len(acknowledged) > 20


@pytest.mark.parametrize(
    "point",
    [
        "after-write",
        "before-fsync",
        "after-fsync",
        "after-rename",
        "after-dirsync",
        "before-commit",
        "after-commit",
        "before-answer",
    ],
)
def test_r2_killed_at_a_fault_point(tmp_path: Path, database: Database, point: str) -> None:
    folder = tmp_path / "data"
    # Renames and synced folders come with segments and big objects only.
    turn = 2 if point in ("after-rename", "after-dirsync") else 5
    acknowledged = send_until_killed(folder, database, 0, 0, f"{point}:kill@{turn}")
    survey(folder, database, set(acknowledged))
