"""How long one piece of work waits for others who keep the database: once, not once for each write.

A request writes down that its session is in use, what it changes, and what the audit book says of
it. Where somebody keeps the database locked, each would wait for `BUSY_TIMEOUT_S`, and the person
in front of the page for all of them. Whoever begins such work says so (`patient_once`), and what
one write has waited the others do not. When all is used up each still waits for `LEAST_S`: a long
request may have waited a little many times, and another one's write of milliseconds must not fail
what it has left to do.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from sqlalchemy import Connection

BUSY_TIMEOUT_S = 15.0
"""How long a writer waits for another one before it gives up."""

LEAST_S: Final = 0.5
"""How long each write waits at least, whatever others have waited before."""

_NOT_WORTH_COUNTING_S: Final = 0.1
"""Of many short writes none has waited for anybody."""


class Patience:
    """What is left of the time that a piece of work may wait."""

    def __init__(self) -> None:
        self.left_s = BUSY_TIMEOUT_S


_patience: ContextVar[Patience | None] = ContextVar("patience", default=None)


@contextmanager
def patient_once() -> Iterator[None]:
    """Have all writes of the block, also in threads with its context, share their patience."""
    token = _patience.set(Patience())
    try:
        yield
    finally:
        _patience.reset(token)


def begin_immediate(connection: Connection, asked_at: float) -> None:
    """Begin to write to an SQLite database, when whoever writes to it has ended.

    Parameters
    ----------
    asked_at
        When the connection was asked for, by the monotonic clock: others may have kept them all.
    """
    patience = _patience.get()
    if patience is None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        return
    is_short = patience.left_s < BUSY_TIMEOUT_S
    try:
        if is_short:
            _wait_at_most(connection, patience.left_s)
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    finally:
        waited_s = time.monotonic() - asked_at
        if waited_s > _NOT_WORTH_COUNTING_S:
            patience.left_s = max(LEAST_S, patience.left_s - waited_s)
        if is_short:
            _wait_at_most(connection, BUSY_TIMEOUT_S)


def _wait_at_most(connection: Connection, seconds: float) -> None:
    connection.exec_driver_sql(f"PRAGMA busy_timeout={int(seconds * 1000)}")
