"""Work in a process of its own, which takes the memory along that it needed.

For something large that is done once, before this process has threads: they are not there in the
copy, and what they had locked stays locked in it.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import sys
from collections.abc import Callable
from typing import NoReturn, TypeVar

from pacsteward.base.errors import Unavailable

T = TypeVar("T")

PR_SET_PDEATHSIG = 1


def apart(work: Callable[[], T]) -> T:
    """Return what `work` returns, or raise what it raises, out of a process that ends with it.

    Parameters
    ----------
    work
        Its result, or its error, can be pickled.

    Raises
    ------
    Unavailable
        The process ended before its work did.
    """
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    child = os.fork()
    if not child:
        die_with(parent)
        os.close(reading)
        _do(work, writing)
    os.close(writing)
    try:
        with os.fdopen(reading, "rb") as pipe:
            told = pipe.read()
    except BaseException:
        # Ctrl-C: nobody waits for it any more.
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code:  # also in the middle of what it tells
        raise Unavailable(
            "The archive was not made ready.",
            why=f"The process that did it ended with {code}.",
            remedy="Try again; if it lasts, see what the system's log says of it.",
        )
    result, error = pickle.loads(told)  # noqa: S301 - from a copy of this very process
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]


def _do(work: Callable[[], T], pipe: int) -> NoReturn:
    """Do the work, tell how it went, and end without what a process does at its end otherwise."""
    code = 1
    try:
        try:
            told = pickle.dumps((work(), None))
        except Exception as error:  # noqa: BLE001 - raised again where it is read
            told = pickle.dumps((None, error))
        with os.fdopen(pipe, "wb") as writing:
            writing.write(told)
        code = 0
    finally:
        os._exit(code)


def die_with(parent: int) -> None:
    """Have the kernel end this process when its parent ends, even by SIGKILL (Linux)."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
