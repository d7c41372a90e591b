"""Faults strike where and when they were asked for, and nowhere else."""

from __future__ import annotations

import errno
import subprocess
import sys
import timeit

import pytest

from pacsteward.base import faults
from pacsteward.base.errors import Invalid


def numbers(text: str, times: int, point: str = "after-write") -> list[int | None]:
    found: list[int | None] = []
    with faults.armed(text):
        for _ in range(times):
            try:
                faults.reach(point)
            except OSError as error:
                found.append(error.errno)
            else:
                found.append(None)
    return found


def test_place_that_is_not_armed_does_nothing() -> None:
    faults.reach("after-write")
    assert numbers("before-fsync:eio", 2) == [None, None]


def test_fault_strikes_every_time_once_or_from_then_on() -> None:
    eio, enospc = errno.EIO, errno.ENOSPC
    assert numbers("after-write:eio", 3) == [eio, eio, eio]
    assert numbers("after-write:enospc@2", 3) == [None, enospc, None]
    assert numbers("after-write:edquot@2+", 3) == [None, errno.EDQUOT, errno.EDQUOT]
    assert numbers("after-write:eio@1, after-write:enospc@2", 3) == [eio, enospc, None]


def test_strike_is_told_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    numbers("after-write:eio@2", 3)
    assert caplog.messages == ["An armed fault strikes: eio at after-write."]


def test_wait_holds_the_thread_up_and_lets_it_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("pacsteward.base.faults.time.sleep", slept.append)
    assert numbers("after-write:wait@1", 2) == [None, None]
    assert slept == [faults.WAIT_S]


def test_disarmed_fault_is_gone() -> None:
    with faults.armed("after-write:eio"):
        pass
    faults.reach("after-write")


def test_kill_ends_the_process_on_the_spot() -> None:
    program = (
        "from pacsteward.base import faults\n"
        "faults.arm_from_environment()\n"
        "for number in range(5):\n"
        "    print(number, flush=True)\n"
        "    faults.reach('before-fsync')\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={"PACSTEWARD_FAULTS": "before-fsync:kill@3", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (-9, "0\n1\n2\n")


@pytest.mark.parametrize(
    "text",
    [
        "nowhere:eio",
        "after-write",
        "after-write:boom",
        "after-write:eio@0",
        "after-write:eio@",
        "after-write:eio@x",
        "after-write:eio@-1+",
    ],
)
def test_unreadable_fault_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        faults.arm_from_environment({"PACSTEWARD_FAULTS": text})


def test_misspelt_place_is_found_by_any_test_that_arms_something() -> None:
    with faults.armed("after-write:eio"), pytest.raises(LookupError):
        faults.reach("after-wirte")


def test_place_costs_next_to_nothing() -> None:
    """Once for each write and sync, so a microsecond would already be dear."""
    seconds = min(timeit.repeat(lambda: faults.reach("after-write"), number=10_000, repeat=5))
    assert seconds / 10_000 < 1e-6
