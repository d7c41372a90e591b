"""The writer goes ahead of the syncer: what that may change, and what it must not."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from pacsteward.archive import disk
from pacsteward.archive.fixtures.sender import MIB, ORIGIN, House, data_set, meta, running
from pacsteward.archive.model import Outcome, StoreResult
from pacsteward.archive.segment import find_segments
from pacsteward.archive.ticket import Ticket
from pacsteward.base.db import Database
from pacsteward.base.errors import PacstewardError, Unavailable


class Gate:
    """Holds up the syncs of segments until a test lets them go, or has them fail."""

    def __init__(self, sync: Callable[[int], None]) -> None:
        self._sync = sync
        self.is_closed = False
        self.has_failed = False
        self._open = threading.Event()
        self.waiting = threading.Semaphore(0)

    def sync(self, descriptor: int) -> None:
        if threading.current_thread().name != "syncer" or not self.is_closed:
            self._sync(descriptor)
            return
        # Taken before anybody is told: it may be opened and closed again before this waits.
        opened = self._open
        self.waiting.release()
        assert opened.wait(30)
        if self.has_failed:
            raise OSError(errno.EIO, "the test's")
        self._sync(descriptor)

    def close(self) -> None:
        self._open = threading.Event()
        self.is_closed = True

    def open(self, *, fails: bool = False) -> None:
        self.has_failed = fails
        self.is_closed = False
        self._open.set()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    made = Gate(disk.sync)
    monkeypatch.setattr(disk, "sync", made.sync)
    return made


@pytest.fixture
def house(tmp_path: Path, database: Database, gate: Gate) -> Iterator[House]:
    with running(tmp_path, database) as opened:
        opened.store(data_set("1.1"), "1.1")
        opened.wait()
        yield opened


@pytest.fixture
def send(house: House) -> Iterator[Callable[..., Future[StoreResult]]]:
    with ThreadPoolExecutor(16) as threads:
        yield lambda uid, **more: threads.submit(house.store, data_set(uid, **more), uid)


def written(house: House, count: int) -> None:
    """Wait until so many records wait for the syncer."""
    deadline = time.monotonic() + 30
    while len(house.keeper._committer._written) < count:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_the_next_batch_is_written_while_the_last_is_synced(house, gate, send) -> None:
    gate.close()
    first = send("1.2")
    assert gate.waiting.acquire(timeout=30)
    behind = [send(f"1.{number}") for number in range(3, 8)]
    written(house, 5)
    assert not first.done()
    assert not any(one.done() for one in behind)
    gate.open()
    assert {one.result(30).outcome for one in (first, *behind)} == {Outcome.STORED}
    house.wait()
    assert house.uids() == sorted(f"1.{number}" for number in range(1, 8))


def test_a_failed_sync_takes_all_that_was_written_behind_it(house, gate, send) -> None:
    gate.close()
    doomed = [send("1.2")]
    assert gate.waiting.acquire(timeout=30)
    doomed += [send(f"1.{number}") for number in range(3, 8)]
    written(house, 5)
    gate.open(fails=True)
    for one in doomed:
        with pytest.raises(Unavailable, match="not stored"):
            one.result(30)
    # The same again is welcome: nothing of it counts, and it begins another segment.
    assert house.store(data_set("1.2"), "1.2").outcome is Outcome.STORED
    house.wait()
    assert house.uids() == ["1.1", "1.2"]
    first, second = find_segments(house.folder / "landing")[0]
    assert second.head.first_sequence == 2
    assert first.before_sequence == 2


def test_a_segment_is_left_only_when_all_in_it_is_safe(house, gate, send) -> None:
    gate.close()
    first = send("1.2")
    assert gate.waiting.acquire(timeout=30)
    # Three of these fill the rest of a segment of four mebibytes; the last begins another.
    pixels = bytes(MIB - 4096)
    large = [send(f"2.{number}", pixels=pixels) for number in range(5)]
    time.sleep(0.2)
    assert len(find_segments(house.folder / "landing")[0]) == 1
    gate.open()
    for one in (first, *large):
        assert one.result(30).outcome is Outcome.STORED
    house.wait()
    assert len(house.uids()) == 7
    assert len(find_segments(house.folder / "landing")[0]) == 2


def test_what_was_refused_by_a_failing_disk_is_not_there_after_a_restart(
    tmp_path: Path, database: Database, gate: Gate
) -> None:
    told: dict[str, object] = {}
    with running(tmp_path, database) as house, ThreadPoolExecutor(8) as threads:

        def store(uid: str) -> None:
            try:
                told[uid] = house.store(data_set(uid), uid).outcome
            except PacstewardError as error:
                told[uid] = error

        for round_number in range(6):
            gate.close()
            sent = [threads.submit(store, f"3.{round_number}.{number}") for number in range(4)]
            assert gate.waiting.acquire(timeout=30)
            gate.open(fails=round_number % 2 == 1)
            # What is written before a failed sync has come back fails with it, at no gate.
            assert not wait(sent, timeout=30).not_done
        threads.shutdown()
        # Until another segment was begun, what a failed sync left might still count.
        store("3.9")
        house.wait()
    with running(tmp_path, database) as house:
        house.wait()
        assert house.uids() == sorted(uid for uid, what in told.items() if what == "stored")
        assert 0 < len(house.uids()) < 25


def ticket(house: House, uid: str) -> tuple[Ticket, Future[StoreResult]]:
    """Make a ticket as a connection to another process does, whose answer a thread waits for."""
    incoming = house.keeper.receive(ORIGIN, meta(uid))
    incoming.write(memoryview(data_set(uid)))
    future: Future[StoreResult] = Future()
    return incoming._ticket(None, future), future


def test_what_is_handed_in_is_written_by_the_thread_that_carries_on(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    committer = house.keeper._committer
    writers: list[str] = []
    write = committer._landing.write

    def noted() -> None:
        writers.append(threading.current_thread().name)
        write()

    monkeypatch.setattr(committer._landing, "write", noted)
    answers = []
    for number in range(2, 5):
        one, answer = ticket(house, f"1.{number}")
        house.keeper.take(one)
        answers.append(answer)
    assert not any(one.done() for one in answers)
    house.keeper.carry_on()
    assert {one.result(30).outcome for one in answers} == {Outcome.STORED}
    assert writers == [threading.current_thread().name]
    house.wait()
    assert house.uids() == ["1.1", "1.2", "1.3", "1.4"]


def test_whoever_is_writing_goes_on_with_what_is_handed_in_meanwhile(house: House, send) -> None:
    committer = house.keeper._committer
    with committer._turn:
        one, answer = ticket(house, "1.2")
        house.keeper.take(one)
        # Comes back at once: it is another thread's turn.
        house.keeper.carry_on()
        queued = send("1.3")
        assert not wait([answer, queued], timeout=0.2).done
    # Here that is the writer, who waited for it.
    assert answer.result(30).outcome is Outcome.STORED
    assert queued.result(30).outcome is Outcome.STORED


def test_who_waits_in_the_queue_gets_a_turn_among_those_who_hand_in(
    house: House, send, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two lines that always have something would otherwise take turns for ever."""
    committer = house.keeper._committer
    write_batch = committer._write_batch
    batches: list[int] = []

    def slowly(batch: Sequence[Ticket]) -> None:
        write_batch(batch)
        batches.append(len(batch))
        # Somebody else has handed something in by then.
        time.sleep(0.002)

    monkeypatch.setattr(committer, "_write_batch", slowly)
    is_over = threading.Event()

    def line(first: int) -> int:
        answers: list[Future[StoreResult]] = []
        while not is_over.is_set():
            one, answer = ticket(house, f"1.{first}.{len(answers)}")
            house.keeper.take(one)
            house.keeper.carry_on()
            answers.append(answer)
            # As many as a few senders have on their way.
            answers[max(0, len(answers) - 8)].result(30)
        return len(answers)

    with ThreadPoolExecutor(2) as lines:
        sent = [lines.submit(line, first) for first in (7, 8)]
        waited = []
        for number in range(20):
            before = len(batches)
            assert send(f"1.9.{number}").result(30).outcome is Outcome.STORED
            waited.append(len(batches) - before)
        is_over.set()
        count = sum(one.result(30) for one in sent)
    # Batches that were written before it had its answer, its own among them.
    assert max(waited) < 20
    house.wait()
    assert len(house.uids()) == 1 + 20 + count


def test_what_is_handed_in_after_the_end_is_refused(tmp_path: Path, database: Database) -> None:
    with running(tmp_path, database) as house:
        late, answer = ticket(house, "1.2")
        committer = house.keeper._committer
    committer.hand_in(late)
    committer.carry_on()
    with pytest.raises(Unavailable):
        answer.result(0)
