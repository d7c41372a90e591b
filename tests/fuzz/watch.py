"""What must not happen while a reader works: another exception, too much time, too much memory."""

from __future__ import annotations

import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from tests.fuzz.targets import Target

CPU_MAX_S = 3.0
"""R12: no answer within three seconds is a hang. Counted in processor time: machines are busy."""

GROWTH_MAX_BYTES = 96 << 20
"""How much one input of at most `damage.SIZE_MAX` may add to the largest size of the process."""


class TookTooLong(BaseException):
    """Raised in the middle of a reader whose time is over; no `except Exception` keeps it."""


class TookTooMuch(AssertionError):
    """The process grew by more than an input of that size can be worth."""


def watched(target: Target, data: bytes) -> None:
    """Give one input to a reader; what it may not raise comes out."""
    before = _largest_bytes()
    with _limited_time(), suppress(*target.may_raise):
        target.read(data)
    grown = _largest_bytes() - before
    if grown > GROWTH_MAX_BYTES:
        raise TookTooMuch(f"{grown >> 20} MiB for {len(data)} bytes")


def _largest_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextmanager
def _limited_time() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise TookTooLong(f"more than {CPU_MAX_S} s")

    former = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, CPU_MAX_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, former)
