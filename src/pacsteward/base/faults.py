"""Named places where a test may make the world fail.

Code that keeps bytes safe passes `reach` right before or after each step that can go wrong. Nothing
happens there, at the price of one call, unless the place is armed: by a test, or by the environment
of a process that is tested from outside::

    PACSTEWARD_FAULTS="before-fsync:kill@3,after-write:eio"

reads: the third time this process is about to sync, kill it; every write fails with an
input/output error. ``@3`` is the third time only, ``@3+`` the third and every later one, nothing
is every time. Each process counts for itself.

What can be made to happen: ``kill`` (SIGKILL), ``eio``, ``enospc``, ``edquot`` (an `OSError` of
that number), ``wait`` (the thread stops for half a second), ``hang`` (for a minute). The log is
told of each, so that whoever tests from outside knows.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from pacsteward.base.errors import Invalid

VARIABLE: Final = "PACSTEWARD_FAULTS"

POINTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "after-open": "A file that will be written was opened.",
        "after-write": "Bytes were written and not synced.",
        "before-fsync": "A file is about to be synced.",
        "after-fsync": "A file was synced.",
        "after-rename": "A file got its final name.",
        "after-dirsync": "A folder was synced.",
        "before-commit": "A transaction of the index is about to be committed.",
        "after-commit": "A transaction of the index was committed.",
        "before-answer": "All is safe, and the sender has not been told.",
    }
)
"""Every place there is."""

HANG_S = 60.0
WAIT_S = 0.5

STRIKES: Final = "An armed fault strikes"

_log = logging.getLogger(__name__)


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _raise_os_error(number: int) -> None:
    raise OSError(number, f"{os.strerror(number)} (an armed fault)")


_DEEDS: Mapping[str, Callable[[], None]] = {
    "kill": _kill,
    "eio": lambda: _raise_os_error(errno.EIO),
    "enospc": lambda: _raise_os_error(errno.ENOSPC),
    "edquot": lambda: _raise_os_error(errno.EDQUOT),
    "wait": lambda: time.sleep(WAIT_S),
    "hang": lambda: time.sleep(HANG_S),
}


@dataclass(slots=True)
class _Fault:
    point: str
    deed: str
    first: int = 1
    last: int | None = None
    """None is for ever."""
    reached: int = 0


_armed: list[_Fault] = []
_lock = threading.Lock()


def reach(point: str) -> None:
    """Pass a named place; does nothing unless it is armed.

    Raises
    ------
    OSError
        As the fault says. Handle it as if the operating system had raised it.
    """
    if _armed:
        _strike(point)


@contextmanager
def armed(faults: str) -> Iterator[None]:
    """Arm `faults` within a block; for tests.

    Raises
    ------
    Invalid
        They cannot be read, or name a place or deed that does not exist.
    """
    added = _parse(faults)
    _armed.extend(added)
    try:
        yield
    finally:
        for fault in added:
            _armed.remove(fault)


def arm_from_environment(environ: Mapping[str, str] = os.environ) -> bool:
    """Arm what the environment asks for; say whether that was anything.

    Called once when a process starts.

    Raises
    ------
    Invalid
        As for `armed`.
    """
    faults = _parse(environ.get(VARIABLE, ""))
    _armed.extend(faults)
    return bool(faults)


def _strike(point: str) -> None:
    if point not in POINTS:
        raise LookupError(f"There is no fault point called {point!r}.")
    with _lock:
        due = [fault.deed for fault in _armed if fault.point == point and _counts(fault)]
    for deed in due:
        _log.warning("%s: %s at %s.", STRIKES, deed, point)
        _DEEDS[deed]()


def _counts(fault: _Fault) -> bool:
    fault.reached += 1
    return fault.reached >= fault.first and (fault.last is None or fault.reached <= fault.last)


def _parse(text: str) -> list[_Fault]:
    return [_parse_one(part.strip()) for part in text.split(",") if part.strip()]


def _parse_one(text: str) -> _Fault:
    point, _, rest = text.partition(":")
    deed, _, when = rest.partition("@")
    count = when.removesuffix("+")
    is_number = count.isascii() and count.isdigit() and int(count) >= 1
    if point not in POINTS or deed not in _DEEDS or ("@" in rest and not is_number):
        raise Invalid(
            f"The fault {text!r} cannot be armed.",
            why=f"A fault is PLACE:DEED, PLACE:DEED@N or PLACE:DEED@N+ with one of the places "
            f"{', '.join(POINTS)} and one of the deeds {', '.join(_DEEDS)}.",
            remedy=f"Correct {VARIABLE}.",
        )
    if not when:
        return _Fault(point, deed)
    return _Fault(point, deed, int(count), None if when.endswith("+") else int(count))
