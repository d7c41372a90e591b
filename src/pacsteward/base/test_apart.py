"""Work in a process of its own gives its result, its error, or says that it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil
import pytest

from pacsteward.base.apart import apart
from pacsteward.base.errors import Invalid, Unavailable


def test_result_comes_from_another_process() -> None:
    assert apart(os.getpid) != os.getpid()


def test_error_is_raised_with_all_its_words() -> None:
    def refuse() -> None:
        raise Invalid("The folder cannot be used.", why="It is a file.", remedy="Choose another.")

    with pytest.raises(Invalid) as raised:
        apart(refuse)
    assert str(raised.value) == "The folder cannot be used. It is a file. Choose another."


def test_error_that_cannot_be_handed_over_is_not_taken_for_a_result() -> None:
    def fail() -> None:
        raise ValueError(lambda: None)

    with pytest.raises(Unavailable, match="ended with 1"):
        apart(fail)


def test_process_that_is_killed_is_an_error() -> None:
    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(Unavailable, match="ended with -9"):
        apart(die)


def test_process_that_is_killed_while_it_tells_is_an_error() -> None:
    def tell_half(pipe: int, _mode: str) -> None:
        os.write(pipe, b"\x80\x05\x95")
        os.kill(os.getpid(), signal.SIGKILL)

    def work() -> None:
        os.fdopen = tell_half  # type: ignore[assignment]  # in the copy of this process alone

    with pytest.raises(Unavailable, match="ended with -9"):
        apart(work)


def test_nothing_of_it_is_left() -> None:
    worker = apart(os.getpid)
    assert worker not in [child.pid for child in psutil.Process().children()]


def test_it_ends_when_nobody_waits_for_it_any_more() -> None:
    """Else a first start that was killed would make an administrator whose password nobody saw."""
    program = (
        "import os, time\n"
        "from pacsteward.base.apart import apart\n"
        "apart(lambda: print(os.getpid(), flush=True) or time.sleep(60))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as waiting:
        assert waiting.stdout is not None
        worker = psutil.Process(int(waiting.stdout.readline()))
        waiting.kill()
        worker.wait(10)
