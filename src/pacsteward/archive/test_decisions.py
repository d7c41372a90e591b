"""What was interrupted, or not confirmed, is done once, told of once, and never too late."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from pacsteward.archive import keeper as keeping
from pacsteward.archive.fixtures.sender import SMALL, House, data_set, running
from pacsteward.archive.keeper import Keeper
from pacsteward.archive.kept_room import KeptRoom
from pacsteward.archive.landing import Landed
from pacsteward.archive.ledger import LedgerEntry
from pacsteward.archive.model import Outcome
from pacsteward.archive.rebuild import rebuild
from pacsteward.archive.remove import teller
from pacsteward.archive.tables import CONFLICT, SET_ASIDE
from pacsteward.archive.test_failures import forget
from pacsteward.archive.ticket import Ticket
from pacsteward.base import faults
from pacsteward.base.clock import SystemClock
from pacsteward.base.db import Database
from pacsteward.base.errors import Unavailable
from pacsteward.base.events import FactLog
from pacsteward.security.audit_entry import AuditEntry


class Told:
    """What the audit book was given, and where from facts come."""

    def __init__(self) -> None:
        self.audited: list[str] = []
        self.tell = teller(FactLog(SystemClock()), self.audit)

    def audit(self, _connection: Connection, entries: Sequence[AuditEntry]) -> None:
        self.audited += [f"{entry.actor.kind} {entry.what}" for entry in entries]


def delete(house: House, *uids: str) -> None:
    house.keeper.change(
        "deleted",
        actor="anne",
        choose=lambda _connection: uids,
        details={"actor_kind": "token", "address": "192.0.2.9"},
    )


@contextmanager
def failing_index(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have the index fail when the ledger is written."""

    def fail(*_args: object) -> None:
        raise Unavailable("The database did not answer.")

    with patch.context() as inner:
        inner.setattr(keeping, "apply_entry", fail)
        yield


@contextmanager
def losing_the_answer(
    database: Database, patch: pytest.MonkeyPatch, thread: str = "MainThread"
) -> Iterator[None]:
    """Have a thread's next commit kept, and the thread told that the connection was lost."""
    real = database.write
    lost = []

    @contextmanager
    def write(**more: Any) -> Iterator[Connection]:
        with real(**more) as connection:
            yield connection
        if threading.current_thread().name != thread or lost:
            return
        lost.append(thread)
        raise Unavailable("The connection to the database was lost.")

    with patch.context() as inner:
        inner.setattr(database, "write", write)
        yield


def test_a_decision_that_is_carried_out_at_the_next_start_is_announced_and_in_the_audit_book(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path, database) as house:
        house.store(data_set("1.1"), "1.1")
        with failing_index(monkeypatch), pytest.raises(Unavailable):
            delete(house, "1.1")
        assert house.uids() == ["1.1"]
    told = Told()
    for _ in range(2):
        with running(tmp_path, database, tell=told.tell) as house:
            assert house.uids() == []
            assert house.facts().count("instances_deleted") == 1
    assert told.audited == ["token anne: 1 instance(s) were deleted for good."]


def test_what_is_sent_again_while_its_deletion_is_undone_is_stored_anew(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sender must not hear that it is here, and see it go with the next decision."""
    with running(tmp_path, database) as house:
        for uid in ("1.1", "1.2"):
            house.store(data_set(uid), uid)
        with failing_index(monkeypatch), pytest.raises(Unavailable):
            delete(house, "1.1")
        assert house.store(data_set("1.1"), "1.1").outcome is Outcome.STORED
        delete(house, "1.2")
        assert house.uids() == ["1.1"]
    with running(tmp_path, database) as house:
        assert house.uids() == ["1.1"]


def test_a_decision_that_a_start_has_to_carry_out_gets_the_room_that_was_kept(
    tmp_path: Path, sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path, sqlite_database) as house:
        house.store(data_set("1.1"), "1.1")
        house.wait()
        with failing_index(monkeypatch), pytest.raises(Unavailable):
            delete(house, "1.1")
    full = [True]
    apply_entry = keeping.apply_entry

    def apply_if_there_is_room(*arguments: Any) -> None:
        if full:
            raise Unavailable("The index could not be written.", why="The disk is full.")
        apply_entry(*arguments)

    def give_up(_room: KeptRoom, *, may_be_quota: bool) -> bool:
        assert may_be_quota
        return bool(full) and full.pop()

    monkeypatch.setattr(keeping, "apply_entry", apply_if_there_is_room)
    monkeypatch.setattr(KeptRoom, "give_up", give_up)
    with running(tmp_path, sqlite_database) as house:
        assert house.uids() == []


def test_a_decision_that_was_interrupted_while_another_one_waited_is_carried_out_before_it(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the index would pass it over as done, and its bytes would go all the same."""
    with running(tmp_path, database) as house:
        for uid in ("1.1", "1.2"):
            house.store(data_set(uid), uid)
        real = house.keeper._make_up

        def make_up_and_be_overtaken() -> None:
            real()
            monkeypatch.setattr(house.keeper, "_make_up", real)
            with failing_index(monkeypatch), pytest.raises(Unavailable):
                delete(house, "1.1")

        monkeypatch.setattr(house.keeper, "_make_up", make_up_and_be_overtaken)
        delete(house, "1.2")
        assert house.uids() == []


def test_a_deletion_whose_commit_was_not_confirmed_does_not_take_what_is_stored_later(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told()
    with running(tmp_path, database, tell=told.tell) as house:
        for uid in ("1.1", "1.2"):
            house.store(data_set(uid), uid)
        house.wait()
        with losing_the_answer(database, monkeypatch), pytest.raises(Unavailable):
            delete(house, "1.1")
        assert house.uids() == ["1.2"]
        assert house.store(data_set("1.1"), "1.1").outcome is Outcome.STORED
        delete(house, "1.2")
        house.wait()
        assert house.uids() == ["1.1"]
        # Each deletion is told of once.
        assert house.facts().count("instances_deleted") == 2
    assert len(told.audited) == 2


def test_a_decision_is_carried_out_although_the_ledger_has_lost_those_before_it(
    tmp_path: Path, database: Database
) -> None:
    """As when the folder came from a backup that is older than that of a PostgreSQL."""
    with running(tmp_path, database) as house:
        for uid in ("1.1", "1.2"):
            house.store(data_set(uid), uid)
        delete(house, "1.1")
    for path in (tmp_path / "ledger").iterdir():
        path.unlink()
    with running(tmp_path, database) as house:
        delete(house, "1.2")
        assert house.uids() == []


def test_a_conflict_whose_commit_was_not_confirmed_is_kept_and_told_of_once(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path, database) as house:
        house.store(data_set("1.1"), "1.1")
        house.wait()
        with losing_the_answer(database, monkeypatch, "indexer"):
            assert house.store(data_set("1.1", number=2), "1.1").outcome is Outcome.CONFLICT
            house.wait()
        assert len(house.rows(CONFLICT)) == 1
        assert house.facts().count("content_conflicted") == 1
        assert house.store(data_set("1.1", number=2), "1.1").outcome is Outcome.CONFLICT
        house.wait()
        assert len(house.rows(CONFLICT)) == 1


def test_a_sender_hears_of_a_clash_that_only_the_index_sees_although_its_commit_was_not_confirmed(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with what another node has stored since the arbiter looked."""
    settings = SMALL.model_copy(update={"acknowledge": "indexed"})
    with running(tmp_path, database, settings) as house:
        house.store(data_set("1.1"), "1.1")
        monkeypatch.setattr(house.keeper._arbiter._taken, "among", lambda _uids: (set(), {}))
        for number in (2, 3):
            with losing_the_answer(database, monkeypatch, "indexer" if number == 3 else ""):
                result = house.store(data_set("1.1", number=number), "1.1")
            assert result.outcome is Outcome.CONFLICT
        assert len(house.rows(CONFLICT)) == 2


def test_a_clash_that_is_found_at_each_attempt_is_noted_once(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    with running(tmp_path, database) as house:
        house.store(data_set("1.1"), "1.1")
        house.wait()
        monkeypatch.setattr(house.keeper._arbiter._taken, "among", lambda _uids: (set(), {}))
        indexer = house.keeper._indexer
        real = indexer._on_indexed

        def indexed(landed: Sequence[Landed], clashed: Sequence[Landed]) -> None:
            told.extend(one.sequence for one in clashed)
            real(landed, clashed)

        indexer._on_indexed = indexed
        with faults.armed("before-commit:eio@1"):
            house.store(data_set("1.1", number=2), "1.1")
            house.wait()
        assert told == [2]


def test_a_decision_is_not_carried_out_at_a_start_during_which_the_database_forgets(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it counts as done, and the next start reads from the log what it was about."""
    with running(tmp_path, database) as house:
        for uid in ("1.1", "1.2"):
            house.store(data_set(uid), uid)
        with failing_index(monkeypatch), pytest.raises(Unavailable):
            delete(house, "1.1")
    real = Keeper._decide

    def crash_and_decide(keeper: Keeper, entry: LedgerEntry) -> None:
        forget(house)
        real(keeper, entry)

    with monkeypatch.context() as patch:
        patch.setattr(Keeper, "_decide", crash_and_decide)
        with pytest.raises(Unavailable, match="lost its last transactions"):
            House(tmp_path, database).keeper.start()
    with running(tmp_path, database) as house:
        assert house.uids() == ["1.2"]
        assert house.rows(SET_ASIDE) == []


def test_what_clashes_with_an_instance_that_is_deleted_meanwhile_takes_its_place(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A conflict needs two contents; one alone would be hidden for good."""
    with running(tmp_path, database) as house:
        house.store(data_set("1.1", pixels=b"\1" * 64), "1.1")
        house.wait()
        real = Ticket.mark_conflict

        def mark_late(ticket: Ticket) -> None:
            real(ticket)
            delete(house, "1.1")

        monkeypatch.setattr(Ticket, "mark_conflict", mark_late)
        house.store(data_set("1.1", pixels=b"\2" * 64), "1.1")
        house.wait()
        assert house.uids() == ["1.1"]
        assert house.rows(CONFLICT) == []
        assert [entry.what for entry in house.audited] == ["1 instance(s) were received."] * 2
        # The same again is here already, and other content clashes with it.
        monkeypatch.undo()
        same, other = (data_set("1.1", pixels=pixels * 64) for pixels in (b"\2", b"\3"))
        assert house.store(same, "1.1").outcome is Outcome.ALREADY_HERE
        assert house.store(other, "1.1").outcome is Outcome.CONFLICT
    rebuild(tmp_path, database, SystemClock(), SMALL)
    with running(tmp_path, database) as house:
        assert house.uids() == ["1.1"]
        assert len(house.rows(CONFLICT)) == 1


@pytest.mark.parametrize("point", ["after-write", "before-fsync", "after-fsync"])
def test_a_deletion_that_could_not_be_kept_does_not_come_to_light_after_somebody_relied_on_it(
    tmp_path: Path, database: Database, point: str
) -> None:
    """The line may be on the disk although its sync failed; the next start would believe it."""
    with running(tmp_path, database) as house:
        for uid in ("1.0", "1.1"):
            house.store(data_set(uid), uid)
        # The first one begins the file.
        delete(house, "1.0")
        with faults.armed(f"{point}:eio"), pytest.raises(Unavailable):
            delete(house, "1.1")
        assert house.store(data_set("1.1"), "1.1").outcome is Outcome.ALREADY_HERE
    with running(tmp_path, database) as house:
        assert house.uids() == ["1.1"]


def test_a_rebuild_right_after_a_crash_tells_of_what_the_old_index_had_not_come_to(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told()

    def make_anew() -> None:
        facts = FactLog(SystemClock())
        rebuild(
            *(tmp_path, database, SystemClock(), SMALL),
            facts=facts,
            audit=told.audit,
            tell=told.tell,
        )

    with running(tmp_path, database) as house:
        house.store(data_set("1.1"), "1.1")
        with failing_index(monkeypatch), pytest.raises(Unavailable):
            delete(house, "1.1")
    for _ in range(2):
        make_anew()
    assert told.audited == ["token anne: 1 instance(s) were deleted for good."]
    with running(tmp_path, database) as house:
        # What is acknowledged now is safe, and the index never hears of it.
        monkeypatch.setattr(house.keeper._committer, "_follow", lambda _landed: None)
        assert house.store(data_set("1.2"), "1.2").outcome is Outcome.STORED
    for _ in range(2):
        make_anew()
    assert told.audited[1:] == ["peer 1 instance(s) were received."]
    with running(tmp_path, database) as house:
        assert house.uids() == ["1.2"]
        assert house.facts().count("instances_stored") == 2
        assert house.facts().count("instances_deleted") == 1
