"""A key of the index may be given out again: SQLite does so after the newest row was deleted.

Whoever looked before the deletion, and reads on after it, must not get the row that has it now.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from pacsteward.archive.find import CHUNK, Finder
from pacsteward.archive.fixtures.sender import MIB, House, data_set, running
from pacsteward.archive.likeness import NameBook
from pacsteward.archive.read import Reader
from pacsteward.archive.tables import INSTANCE
from pacsteward.base.db import Database
from pacsteward.base.errors import NotFound
from pacsteward.dicom.attributes import Level
from pacsteward.dicom.matching import Query, parse_criterion

STUDY_UID = 0x0020000D


def replace_newest(house: House, uid: str, data: bytes) -> None:
    """Delete the instance with the highest key, and store another one."""
    house.wait()
    newest = max(house.rows(INSTANCE), key=lambda row: int(row["instance_key"]))

    def choose(_connection: object) -> Sequence[str]:
        return [newest["sop_instance_uid"]]

    house.keeper.change("deleted", actor="admin", choose=choose)
    house.store(data, uid)
    house.wait()


def test_an_instance_that_was_deleted_is_not_read_as_the_next_one(
    tmp_path: Path, database: Database
) -> None:
    with running(tmp_path, database) as house:
        reader = Reader(database, tmp_path)
        house.store(data_set("1.1", pixels=bytes(2 * MIB)), "1.1")
        house.wait()
        held = reader.instance("", "", "1.1")
        replace_newest(house, "9.9", data_set("9.9", patient_id="P2", pixels=bytes(2 * MIB)))
        if database.is_sqlite:
            assert reader.instance("", "", "9.9").instance_key == held.instance_key
        with pytest.raises(NotFound), reader.open(held):
            pass


def test_a_long_answer_goes_on_with_what_matches(tmp_path: Path, database: Database) -> None:
    with running(tmp_path, database) as house:
        uids = [f"1.{number}" for number in range(CHUNK + 20)]
        house.store_all([(data_set(uid, pixels=b""), uid) for uid in uids])
        house.wait()
        finder = Finder(database, NameBook(time.monotonic), timeout_s=30)
        query = Query(Level.IMAGE, {STUDY_UID: parse_criterion(STUDY_UID, "UI", "1.2.1")})
        answers = finder.find(query)
        first = [next(answers) for _ in range(CHUNK)]
        replace_newest(house, "9.9", data_set("9.9", study="1.2.9", series="1.2.9.1"))
        found = [*first, *answers]
        assert {one.values[STUDY_UID] for one in found} == {"1.2.1"}
        assert len(found) in (len(uids) - 1, len(uids))
