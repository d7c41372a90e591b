"""The supervisor keeps processes running, and ends them all when it ends."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pacsteward.supervisor import (
    RESTART_PAUSES_S,
    STEADY_S,
    ChildFailed,
    Supervisor,
    Tell,
    _Child,
)


@pytest.fixture(autouse=True)
def _own_signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def _wait(tell_ready: Tell) -> None:
    tell_ready()
    signal.pause()


def _note_end(supervisor: Supervisor, *, ran_s: float, failures: int) -> float:
    """Give the pause after a process that ran so long, and had failed so often before, ended."""
    ready, other = os.pipe()
    os.close(other)
    child = _Child("one", _wait, pid=1, ready=ready, failures=failures)
    child.started_at = time.monotonic() - ran_s
    supervisor._note_end(child, 1)
    assert child.restart_at is not None
    return child.restart_at - time.monotonic()


@pytest.mark.parametrize("failures", range(6))
def test_process_that_fails_again_and_again_waits_longer_each_time(failures: int) -> None:
    pause = RESTART_PAUSES_S[min(failures, len(RESTART_PAUSES_S) - 1)]
    assert _note_end(Supervisor({}), ran_s=1.0, failures=failures) == pytest.approx(pause, abs=0.1)


def test_process_that_ran_steadily_is_started_again_at_once() -> None:
    pause = _note_end(Supervisor({}), ran_s=STEADY_S + 1, failures=5)
    assert pause == pytest.approx(RESTART_PAUSES_S[0], abs=0.1)


def test_process_that_ends_is_started_again_and_leaves_nothing_open(tmp_path: Path) -> None:
    starts = tmp_path / "starts"

    def run(tell_ready: Tell) -> None:
        with starts.open("a") as file:
            file.write("x")
        tell_ready()
        if starts.stat().st_size == 1:
            raise SystemExit(3)
        signal.pause()

    ended: list[str] = []
    supervisor = Supervisor({"one": run}, when_ended=ended.append)
    open_before = len(os.listdir("/proc/self/fd"))
    supervisor.start()
    deadline = time.monotonic() + 60
    while starts.stat().st_size < 2:
        assert time.monotonic() < deadline
        supervisor._restart_due()
        supervisor._reap(0.02)
    assert ended == ["one"]
    # One more is that of the process that runs now; what was garbage before may be gone.
    assert len(os.listdir("/proc/self/fd")) <= open_before + 1
    supervisor.is_stopping = True
    assert supervisor.watch() == 0


def test_process_that_does_not_start_stops_the_others_and_is_named() -> None:
    def refuse(_tell_ready: Tell) -> None:
        raise SystemExit(5)

    supervisor = Supervisor({"one": _wait, "two": refuse})
    with pytest.raises(ChildFailed, match="'two'") as failed:
        supervisor.start()
    assert failed.value.exit_code == 5
    with pytest.raises(ChildProcessError):
        os.waitpid(supervisor._children["one"].pid, os.WNOHANG)


def test_process_that_is_killed_while_it_starts_is_not_taken_for_one_that_gave_up() -> None:
    """Exit code 9 is for what a person has to see to, and is not tried again; SIGKILL is 9, too."""

    def be_killed(_tell_ready: Tell) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    supervisor = Supervisor({"one": be_killed})
    with pytest.raises(ChildFailed) as failed:
        supervisor.start()
    assert failed.value.exit_code == 137


def test_being_told_to_stop_during_the_start_is_no_failure() -> None:
    def stop_us(_tell_ready: Tell) -> None:
        os.kill(os.getppid(), signal.SIGTERM)
        signal.pause()

    supervisor = Supervisor({"one": _wait, "two": stop_us, "three": _wait})
    supervisor.start()
    assert supervisor.is_stopping
    assert supervisor.watch() == 0
    for child in supervisor._children.values():
        if child.pid:
            with pytest.raises(ChildProcessError):
                os.waitpid(child.pid, os.WNOHANG)


def test_a_signal_to_the_whole_group_ends_in_good_order() -> None:
    """What systemd and timeout do: the processes end before the supervisor has told them to."""
    supervisor = Supervisor({"one": _wait, "two": _wait})
    supervisor.start()
    for child in supervisor._children.values():
        os.kill(child.pid, signal.SIGTERM)
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    supervisor.is_stopping = True
    supervisor._reap(0)
    assert supervisor.watch() == 0


def test_first_process_has_time_to_end_however_long_the_others_took(tmp_path: Path) -> None:
    """The keeper has to write down what the doors have just handed over."""
    tidied = tmp_path / "tidied"

    def tidy(tell_ready: Tell) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        tell_ready()
        signal.sigwait([signal.SIGTERM])
        tidied.touch()

    def be_deaf(tell_ready: Tell) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _wait(tell_ready)

    supervisor = Supervisor({"one": tidy, "two": be_deaf}, grace_s=0.0, first_grace_s=30.0)
    supervisor.start()
    supervisor.is_stopping = True
    assert supervisor.watch() == 1
    assert tidied.exists()


def test_what_may_come_later_comes_when_it_is_wanted(tmp_path: Path) -> None:
    begun = tmp_path / "begun"

    def run(tell_ready: Tell) -> None:
        begun.touch()
        _wait(tell_ready)

    wanted: list[bool] = []
    ended: list[bool] = []
    supervisor = Supervisor(
        {"one": _wait},
        later={"two": run},
        is_later_wanted=lambda: bool(wanted),
        before_end=lambda: ended.append(True),
    )
    supervisor.start()
    supervisor._start_later()
    assert set(supervisor._children) == {"one"}
    wanted.append(True)
    supervisor._start_later()
    deadline = time.monotonic() + 60
    while not begun.exists():
        assert time.monotonic() < deadline
        supervisor._start_later()
        supervisor._reap(0.02)
    assert not ended
    supervisor.is_stopping = True
    assert supervisor.watch() == 0
    assert ended == [True]
