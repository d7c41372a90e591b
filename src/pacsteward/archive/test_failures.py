"""R4: the disk fails at any call: the sender hears it, nothing acknowledged is lost."""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlalchemy import Connection, delete, update
from tests.support.full_disk import FullDisk

from pacsteward.archive import keeper as keeping
from pacsteward.archive.completeness import CompletenessWatch
from pacsteward.archive.containers import stored_data
from pacsteward.archive.fixtures.sender import MIB, SMALL, House, data_set, running
from pacsteward.archive.indexer import Indexer
from pacsteward.archive.landing import Landed
from pacsteward.archive.model import Outcome, StoreResult
from pacsteward.archive.segment import find_segments, reading, walk
from pacsteward.archive.tables import (
    CONFLICT,
    INSTANCE,
    LANDING_POSITION,
    LOCATION,
    PATIENT,
    SERIES,
    SET_ASIDE,
    STUDY,
)
from pacsteward.archive.watermark import Watermark
from pacsteward.base import faults
from pacsteward.base.clock import SystemClock
from pacsteward.base.db import METADATA, Database, Question, open_database
from pacsteward.base.errors import Exhausted, PacstewardError, Unavailable
from pacsteward.base.events import FactLog

# Enough for two segments of four mebibytes, a big object, the same again, and a conflict.
OBJECTS = [
    *((data_set(f"1.{number}", pixels=bytes(900_000)), f"1.{number}") for number in range(5)),
    (data_set("1.9", pixels=b"\7" * (2 * MIB)), "1.9"),
    (data_set("1.0", pixels=bytes(900_000)), "1.0"),
    (data_set("1.1", number=77), "1.1"),
    (data_set("1.8"), "1.8"),
]


class FailingDisk:
    """Raises an error at the n-th call, once or from then on."""

    def __init__(self, first: int, number: int, *, lasts: bool) -> None:
        self._first = first
        self._number = number
        self._lasts = lasts
        self.calls = 0
        self.is_armed = True

    def reach(self, _point: str) -> None:
        if not self.is_armed:
            return
        self.calls += 1
        if self.calls == self._first or (self._lasts and self.calls > self._first):
            raise OSError(self._number, os.strerror(self._number))


def survey(house: House, acknowledged: list[tuple[bytes, str, StoreResult]]) -> None:
    """Check that what was acknowledged is there, byte for byte, and nothing half."""
    house.wait()
    for data, uid, result in acknowledged:
        if result.outcome is Outcome.CONFLICT:
            assert [row for row in house.rows(CONFLICT) if row["sop_instance_uid"] == uid]
            continue
        with stored_data(house.folder, house.location(uid)) as view:
            assert view.read(0, view.size) == data
    uids = house.uids()
    assert len(uids) == len(set(uids))
    for uid in uids:
        with stored_data(house.folder, house.location(uid)) as view:
            assert any(view.read(0, view.size) == data for data, other in OBJECTS if other == uid)
    assert house.study()["number_of_study_related_instances"] == len(uids)


@pytest.mark.parametrize(
    ("number", "lasts"), [(errno.EIO, False), (errno.ENOSPC, True), (errno.EDQUOT, False)]
)
def test_r4_the_nth_call_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, lasts: bool
) -> None:
    template = tmp_path / "template.db"
    made = open_database(template)
    METADATA.create_all(made.engine)
    made.close()
    logging.disable(logging.CRITICAL)
    refusals: set[type[PacstewardError]] = set()
    try:
        # The start itself has its own test; every fourth call keeps the loop short.
        for first in itertools.count(1, 4):
            folder = tmp_path / f"{first}"
            folder.mkdir()
            shutil.copyfile(template, folder / "index.db")
            database = open_database(folder / "index.db")
            disk = FailingDisk(first, number, lasts=lasts)
            acknowledged: list[tuple[bytes, str, StoreResult]] = []
            with running(folder, database) as house:
                monkeypatch.setattr(faults, "reach", disk.reach)
                for data, uid in OBJECTS:
                    try:
                        acknowledged.append((data, uid, house.store(data, uid)))
                    except (Exhausted, Unavailable) as error:
                        refusals.add(type(error))
                disk.is_armed = False
                # It came back: the process is up and takes instances again at once.
                again = house.store(data_set("1.7"), "1.7")
                assert again.outcome is Outcome.STORED
                house.wait()
            monkeypatch.undo()
            with running(folder, database) as house:
                uids = house.uids()
                assert "1.7" in uids
                survey_without(house, acknowledged, "1.7")
            database.close()
            if disk.calls < first:
                assert len(acknowledged) == len(OBJECTS)
                break
    finally:
        logging.disable(logging.NOTSET)
    assert first > 20
    assert refusals == {Unavailable if number == errno.EIO else Exhausted}


def survey_without(
    house: House, acknowledged: list[tuple[bytes, str, StoreResult]], extra: str
) -> None:
    house.keeper.change("deleted", actor="test", choose=lambda _connection: [extra])
    if acknowledged or house.uids():
        survey(house, acknowledged)


@pytest.mark.parametrize("point", ["after-open", "after-write", "before-fsync", "after-dirsync"])
def test_r4_a_failure_while_starting_is_said_and_the_next_start_succeeds(
    tmp_path: Path, database: Database, point: str
) -> None:
    with running(tmp_path, database) as house:
        house.store(data_set("1.1"), "1.1")
    house = House(tmp_path, database)
    with faults.armed(f"{point}:eio"):
        try:
            house.keeper.start()
        except PacstewardError as error:
            assert isinstance(error, Unavailable)  # noqa: PT017
        else:
            # This start had no need of the call.
            house.keeper.stop()
    with running(tmp_path, database) as house:
        assert house.uids() == ["1.1"]


def test_while_the_index_is_away_nothing_is_acknowledged_and_nothing_is_lost(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R6: the database is stopped and comes back."""
    with running(tmp_path, database) as house:
        house.store(data_set("1.1"), "1.1")
        house.wait()

        def away(*_args: object, **_more: object) -> object:
            raise Unavailable("The database did not answer.")

        with monkeypatch.context() as patch:
            patch.setattr(database, "read", away)
            patch.setattr(database, "write", away)
            patch.setattr(Question, "ask", away)
            for _ in range(3):
                with pytest.raises(Unavailable):
                    house.store(data_set("1.2", series="1.2.1.2"), "1.2")
        assert house.store(data_set("1.2", series="1.2.1.2"), "1.2").outcome is Outcome.STORED
        house.wait()
        assert house.uids() == ["1.1", "1.2"]


def test_what_is_surely_new_needs_no_index_to_be_kept(
    tmp_path: Path, sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path, sqlite_database) as house:
        house.store(data_set("1.1"), "1.1")

        def away(*_args: object) -> object:
            raise Unavailable("The database did not answer.")

        with monkeypatch.context() as patch:
            patch.setattr(Question, "ask", away)
            assert house.store(data_set("1.2"), "1.2").outcome is Outcome.STORED
            house.wait()
            # What came meanwhile may be in the index, so it is asked.
            with pytest.raises(Unavailable):
                house.store(data_set("1.2"), "1.2")
        assert house.store(data_set("1.2"), "1.2").outcome is Outcome.ALREADY_HERE
        house.wait()
        assert house.uids() == ["1.1", "1.2"]


def test_where_success_waits_for_the_index_a_sender_is_refused_while_that_is_away(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with what is surely new: it would wait for as long as the index is away."""
    settings = SMALL.model_copy(update={"acknowledge": "indexed"})
    with running(tmp_path, database, settings) as house:
        house.store(data_set("1.1"), "1.1")

        def away(*_args: object) -> object:
            raise Unavailable("The database did not answer.")

        with monkeypatch.context() as patch:
            patch.setattr(Question, "ask", away)
            with pytest.raises(Unavailable):
                house.store(data_set("1.2"), "1.2")
        assert house.store(data_set("1.2"), "1.2").outcome is Outcome.STORED


def test_what_landed_before_the_index_went_away_is_indexed_when_it_is_back(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path, database) as house:
        real = database.write
        is_away = True

        def write(*args: object, **more: object) -> object:
            if is_away:
                raise Unavailable("The database did not answer.")
            return real(*args, **more)  # type: ignore[arg-type]

        monkeypatch.setattr(database, "write", write)
        assert house.store(data_set("1.1"), "1.1").outcome is Outcome.STORED
        # The arbiter knows it although the index does not.
        assert house.store(data_set("1.1"), "1.1").outcome is Outcome.ALREADY_HERE
        with pytest.raises(Unavailable):
            house.keeper.watermark.wait_until_indexed(0.3)
        is_away = False
        house.wait()
        assert house.uids() == ["1.1"]


def forget(house: House) -> None:
    """Have the index as it was before anything was stored, as after a crash of its server."""
    with house.database.write() as connection:
        for table in (LOCATION, INSTANCE, SERIES, STUDY, PATIENT):
            connection.execute(delete(table))
        connection.execute(update(LANDING_POSITION).values(sequence=0))


def test_what_a_crashed_database_has_forgotten_is_indexed_again_with_the_next_instance(
    tmp_path: Path, database: Database
) -> None:
    with running(tmp_path, database) as house:
        for number in range(3):
            house.store(data_set(f"1.{number}"), f"1.{number}")
        house.wait()
        forget(house)
        # Sent once more by a modality that is told it is new: it must not be there twice.
        assert house.store(data_set("1.1"), "1.1").outcome is Outcome.STORED
        assert house.store(data_set("1.3"), "1.3").outcome is Outcome.STORED
        house.wait()
        assert house.uids() == ["1.0", "1.1", "1.2", "1.3"]
        assert house.study()["number_of_study_related_instances"] == 4
        assert house.rows(CONFLICT) == []


def test_what_a_crashed_server_has_forgotten_is_indexed_again_although_nothing_comes(
    tmp_path: Path, postgres_database: Database
) -> None:
    with running(tmp_path, postgres_database) as house:
        for number in range(3):
            house.store(data_set(f"1.{number}"), f"1.{number}")
        house.wait()
        forget(house)
        with pytest.raises(Unavailable):
            house.keeper.change("deleted", actor="admin", choose=lambda _connection: ["1.1"])
        deadline = time.monotonic() + 60
        while len(house.uids()) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_decision_is_not_made_up_for_in_an_index_that_has_forgotten_what_it_is_about(
    tmp_path: Path, postgres_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it counts as carried out, and then the instance is indexed again from the log."""
    look = Indexer._look
    monkeypatch.setattr(Indexer, "_look", lambda _indexer: None)

    def fail(*_arguments: object) -> None:
        raise Unavailable("The database did not answer.")

    with running(tmp_path, postgres_database) as house:
        house.store(data_set("1.1"), "1.1")
        with monkeypatch.context() as patch:
            patch.setattr(keeping, "apply_entry", fail)
            with pytest.raises(Unavailable):
                house.keeper.change("deleted", actor="admin", choose=lambda _connection: ["1.1"])
        forget(house)
        with pytest.raises(Unavailable):
            house.store(data_set("1.2"), "1.2")
        monkeypatch.setattr(Indexer, "_look", look)
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(Unavailable):
                house.store(data_set("1.2"), "1.2")
                break
            assert time.monotonic() < deadline
            time.sleep(0.02)
        house.wait()
        assert house.uids() == ["1.2"]
        assert house.rows(SET_ASIDE) == []


def test_nobody_waits_for_what_neither_the_index_nor_the_log_has_any_more(
    tmp_path: Path, postgres_database: Database
) -> None:
    """The server has crashed, and the disk has lost the last record."""
    with running(tmp_path, postgres_database) as house:
        for number in range(3):
            house.store(data_set(f"1.{number}"), f"1.{number}")
        house.wait()
        (segment,) = find_segments(tmp_path / "landing")[0]
        with reading(segment.path) as file:
            *_, last = walk(file, segment.head)
        lose(segment.path, last.offset)
        forget(house)
        deadline = time.monotonic() + 60
        while not (len(house.uids()) == 2 and house.keeper.watermark.is_caught_up):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        house.keeper.change("deleted", actor="admin", choose=lambda _connection: ["1.1"])
        assert house.store(data_set("1.2"), "1.2").outcome is Outcome.STORED
        house.wait()
        assert house.uids() == ["1.0", "1.2"]
    with running(tmp_path, postgres_database) as house:
        assert house.uids() == ["1.0", "1.2"]


def test_a_loss_is_told_once_however_often_the_database_is_tried(
    tmp_path: Path,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    disk = FullDisk(database, monkeypatch)
    watermark = Watermark(tmp_path / "run")
    indexer = Indexer(
        tmp_path,
        database,
        SystemClock(),
        node="here",
        study_quiet_s=None,
        facts=None,
        audit=None,
        watermark=watermark,
    )
    indexer.begin_at(0)
    disk.is_locked = True
    for _ in range(3):
        with pytest.raises(Unavailable):
            indexer.go_on_behind(5)
    assert "are lost" not in caplog.text
    disk.is_locked = False
    indexer.go_on_behind(5)
    assert caplog.text.count("5 instances at most are lost") == 1
    watermark.close()


def test_decisions_are_made_after_a_start_although_index_and_log_have_lost_what_the_ledger_is_about(
    tmp_path: Path, database: Database
) -> None:
    """As when the index of a backup is put in place, and the disk has lost the last record."""
    with running(tmp_path, database) as house:
        for number in range(3):
            house.store(data_set(f"1.{number}"), f"1.{number}")
        house.wait()
        house.keeper.change("deleted", actor="admin", choose=lambda _connection: ["1.0"])
        (segment,) = find_segments(tmp_path / "landing")[0]
        with reading(segment.path) as file:
            *_, last = walk(file, segment.head)
    lose(segment.path, last.offset)
    forget(house)
    with running(tmp_path, database) as house:
        house.keeper.change("deleted", actor="admin", choose=lambda _connection: ["1.1"])
        assert "1.1" not in house.uids()
        assert house.store(data_set("1.2"), "1.2").outcome is Outcome.STORED
        house.wait()
        assert "1.2" in house.uids()


def lose(path: Path, offset: int) -> None:
    """Have the disk lose a record, from its head on."""
    with path.open("r+b") as damaged:
        damaged.seek(offset)
        damaged.write(bytes(16))


def test_a_commit_that_was_made_and_not_confirmed_is_not_made_twice(
    tmp_path: Path, database: Database
) -> None:
    with running(tmp_path, database) as house:
        house.store(data_set("1.1"), "1.1")
        house.wait()
        real = house.keeper._indexer._wrote
        lost: list[int] = []

        def wrote(sequence: int) -> None:
            if not lost:
                lost.append(sequence)
                raise OSError(errno.ECONNRESET, "the answer to the commit was lost")
            real(sequence)

        house.keeper._indexer._wrote = wrote  # type: ignore[method-assign]
        assert house.store(data_set("1.1", number=2), "1.1").outcome is Outcome.CONFLICT
        house.wait()
        assert lost
        assert len(house.rows(CONFLICT)) == 1


def test_a_full_disk_does_not_keep_the_archive_from_starting(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock needs no room; only who holds it is written down, for whoever is refused."""
    with running(tmp_path, database) as house:
        house.store(data_set("1.1"), "1.1")

    def full(*_args: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with running(tmp_path, database) as house:
        assert house.uids() == ["1.1"]


def test_a_file_that_cannot_be_removed_does_not_hide_why_the_object_was_not_stored(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object, **_more: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with running(tmp_path, database) as house:
        with monkeypatch.context() as patch, faults.armed("before-fsync:enospc"):
            patch.setattr(os, "unlink", refuse)
            with pytest.raises(Exhausted):
                house.store(data_set("1.9", pixels=bytes(2 * MIB)), "1.9")
        assert house.store(data_set("1.1"), "1.1").outcome is Outcome.STORED
    with running(tmp_path, database):
        assert list((tmp_path / "objects" / "incoming").iterdir()) == []


def test_a_fault_of_ours_does_not_end_the_indexing(
    tmp_path: Path, sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, ours = Indexer.index, iter([ZeroDivisionError()])

    def index(indexer: Indexer, batch: Sequence[Landed]) -> None:
        for fault in ours:
            raise fault
        real(indexer, batch)

    with running(tmp_path, sqlite_database) as house:
        monkeypatch.setattr(Indexer, "index", index)
        house.store(data_set("1.1"), "1.1")
        house.wait()
        assert house.uids() == ["1.1"]
    assert next(ours, None) is None


def test_a_fault_of_ours_while_nothing_arrives_does_not_end_the_indexing(
    tmp_path: Path, postgres_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, looked = Indexer._check, threading.Event()

    def check(indexer: Indexer, connection: Connection) -> None:
        if not looked.is_set():
            looked.set()
            raise ZeroDivisionError
        real(indexer, connection)

    monkeypatch.setattr(Indexer, "_check", check)
    monkeypatch.setattr("pacsteward.archive.indexer._LOOK_S", 0.01)
    with running(tmp_path, postgres_database) as house:
        assert looked.wait(60)
        house.store(data_set("1.1"), "1.1")
        house.wait()
        assert house.uids() == ["1.1"]


def test_a_fault_of_ours_does_not_end_the_watch_for_quiet_studies(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, again = iter([ZeroDivisionError()]), threading.Event()

    def look(_watch: CompletenessWatch) -> int:
        for fault in looked:
            raise fault
        again.set()
        return 0

    monkeypatch.setattr(CompletenessWatch, "look", look)
    monkeypatch.setattr("pacsteward.archive.completeness.LOOK_EVERY_S", 0.01)
    watch = CompletenessWatch(sqlite_database, FactLog(), SystemClock())
    watch.start()
    assert again.wait(60)
    watch.stop()
