"""What a failure of the disk means for whoever wanted something kept.

A full disk or quota is `Exhausted`, anything else `Unavailable`: nobody is told to free space who
would gain nothing by it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pacsteward.base.errors import Exhausted, Unavailable

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What says that a disk, or a quota, takes no more."""


@contextmanager
def speaking(what: str) -> Iterator[None]:
    """Turn an `OSError` of the block into the error that whoever asked is told.

    Parameters
    ----------
    what
        One sentence: what did not happen.

    Raises
    ------
    Exhausted
        The disk or a quota is full.
    Unavailable
        The disk failed.
    """
    try:
        yield
    except OSError as error:
        raise translated(error, what) from error


def translated(error: OSError, what: str) -> Exhausted | Unavailable:
    """Say of an `OSError` of the disk what it means for whoever asked."""
    reason = os.strerror(error.errno) if error.errno else type(error).__name__
    if error.errno in FULL:
        return Exhausted(
            what,
            why=f"The disk of the archive is full: {reason}.",
            remedy="Free space. Senders try again by themselves.",
        )
    return Unavailable(
        what,
        why=f"The disk of the archive failed: {reason}.",
        remedy="See the system's log for the disk. Senders try again by themselves.",
    )
