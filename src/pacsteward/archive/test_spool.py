"""A disk that is slower than the network: the sender is held up, and nobody else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pacsteward.archive.spool import AHEAD_MAX, WAITING_MAX, Spool
from pacsteward.archive.storage.local import LocalObjects

PIECE = bytes(range(256)) * 4096
"""A mebibyte."""


class SlowDisk:
    """Threads that begin to write when they are let."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.threads = ThreadPoolExecutor(1, initializer=self.gate.wait)


@pytest.fixture
def disk() -> Iterator[SlowDisk]:
    made = SlowDisk()
    yield made
    made.gate.set()
    made.threads.shutdown()


@pytest.fixture
def spool(tmp_path: Path, disk: SlowDisk) -> Spool:
    objects = LocalObjects(tmp_path)
    objects.prepare()
    return Spool(objects, disk.threads)


def test_the_receiver_is_asked_to_pause_and_not_blocked(spool: Spool, disk: SlowDisk) -> None:
    written = 0
    while not spool.is_behind():
        spool.write(PIECE)
        written += 1
    assert AHEAD_MAX < written * len(PIECE) <= AHEAD_MAX + len(PIECE)
    # What had been read from the network already is still taken at once.
    spool.write(PIECE)
    disk.gate.set()
    spool.finish()
    assert not spool.is_behind()


def test_who_does_not_ask_is_made_to_wait(spool: Spool, disk: SlowDisk) -> None:
    done = threading.Event()

    def write_much() -> None:
        for _ in range(WAITING_MAX // len(PIECE) + 1):
            spool.write(PIECE)
        done.set()

    thread = threading.Thread(target=write_much)
    thread.start()
    assert not done.wait(0.3)
    disk.gate.set()
    assert done.wait(10)
    thread.join()
    spool.abandon()
