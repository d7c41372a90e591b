"""The reserve is kept however fast the disk fills."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from pacsteward.archive.settings import ArchiveSettings
from pacsteward.archive.space import SpaceGuard
from pacsteward.base.clock import ManualClock
from pacsteward.base.errors import Exhausted

MIB = 1 << 20


class Disk:
    """A disk of a gibibyte whose room a test sets, and which counts how often it is asked."""

    def __init__(self) -> None:
        self.free_bytes = 100 * MIB
        self.asked = 0

    def statvfs(self, _path: object) -> SimpleNamespace:
        self.asked += 1
        return SimpleNamespace(f_blocks=1024, f_frsize=MIB, f_bavail=self.free_bytes // MIB)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk()
    monkeypatch.setattr(os, "statvfs", made.statvfs)
    return made


def test_a_fast_sender_is_refused_at_the_reserve_within_the_same_moment(
    tmp_path: Path, clock: ManualClock, disk: Disk
) -> None:
    guard = SpaceGuard(tmp_path, ArchiveSettings(reserve_bytes=10 * MIB), clock)
    for _ in range(90):
        guard.check()
        guard.took(MIB)
        disk.free_bytes -= MIB
    with pytest.raises(Exhausted, match="reserve"):
        guard.check()
    disk.free_bytes += 20 * MIB
    guard.check()


def test_with_much_room_the_disk_is_asked_twice_a_second(
    tmp_path: Path, clock: ManualClock, disk: Disk
) -> None:
    guard = SpaceGuard(tmp_path, ArchiveSettings(reserve_bytes=10 * MIB), clock)
    for _ in range(20):
        guard.check()
        guard.took(1000)
    assert disk.asked == 1
    clock.advance(0.6)
    guard.check()
    assert disk.asked == 2
