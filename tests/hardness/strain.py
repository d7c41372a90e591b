"""What a bomb costs: the peak of memory, the time to an answer, and a C-ECHO beside it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.hardness.target import Target

SAMPLE_EVERY_S = 0.05


@dataclass
class Strain:
    """What was seen while a bomb was at work."""

    heard: str = ""
    seconds: float = 0.0
    peak_bytes: int = 0
    """Of all processes together, above what they had before."""
    echo_s: float = 0.0
    """The slowest C-ECHO beside it."""
    _echoes: list[float] = field(default_factory=list)


def strained(target: Target, throw: Callable[[Target], str]) -> Strain:
    """Throw one bomb and watch.

    Parameters
    ----------
    throw
        Sends it, waits for what comes and says in a word what that was.
    """
    found = Strain()
    before = target.memory_bytes()
    over = threading.Event()

    def watch_memory() -> None:
        while not over.wait(SAMPLE_EVERY_S):
            found.peak_bytes = max(found.peak_bytes, target.memory_bytes() - before)

    def watch_echo() -> None:
        while not over.wait(0.1):
            try:
                found._echoes.append(target.echo_s())
            except (AssertionError, OSError):
                found._echoes.append(float("inf"))

    watchers = [threading.Thread(target=one) for one in (watch_memory, watch_echo)]
    for one in watchers:
        one.start()
    began = time.monotonic()
    try:
        found.heard = throw(target)
    finally:
        found.seconds = time.monotonic() - began
        over.set()
        for one in watchers:
            one.join()
    found.peak_bytes = max(found.peak_bytes, target.memory_bytes() - before)
    found.echo_s = max(found._echoes, default=target.echo_s())
    return found
