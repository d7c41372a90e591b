"""Examines an instance that lies in shared memory, and has the keeper store it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from pacsteward.archive.examine import READ_ASIDE_BYTES, Examined, examined
from pacsteward.archive.line import Held, Line, Undelivered
from pacsteward.archive.messages import TEXT_MAX, error_of, keeper_is_away, result_of
from pacsteward.archive.model import Origin, StoreResult
from pacsteward.archive.ready import Places, packed
from pacsteward.base.errors import PacstewardError
from pacsteward.dicom.fragments import Fragments
from pacsteward.dicom.header import HeaderLimits, read_header
from pacsteward.dicom.part10 import FileMeta


class TooLong(Exception):
    """What would be said of an instance is longer than the keeper reads."""


async def hand_over(
    line: Line[Any],
    origin: Origin,
    meta: FileMeta,
    pieces: Sequence[bytes | memoryview],
    places: Places,
    *,
    checksum: int,
    received_at: datetime,
    limits: HeaderLimits,
    held: Held,
) -> StoreResult:
    """Examine an instance and have the keeper store it; when this returns, it is safe.

    Parameters
    ----------
    pieces, places
        The data set, and where in the memory of `line` it lies.
    held
        See `Line.ask`.

    Raises
    ------
    Invalid
        The data set is cut short, or names no instance.
    Exhausted, Unavailable
        It could not be kept; the sender should try again.
    Undelivered
        The keeper went away.
    TooLong
        What the header says does not fit into one message; nothing was sent.
    """
    data = Fragments(pieces)
    syntax = meta.transfer_syntax_uid
    if data.size > READ_ASIDE_BYTES:
        header = await asyncio.to_thread(read_header, data, syntax, limits)
    else:
        header = read_header(data, syntax, limits)
    found = examined(header, meta, origin, received_at)
    text = _text(found, data.size, checksum, places)
    verdict = _verdict(found, await line.ask(text, held))
    if isinstance(verdict, PacstewardError):
        raise verdict
    return verdict


def hand_in(
    line: Line[Any],
    origin: Origin,
    meta: FileMeta,
    pieces: Sequence[bytes | memoryview],
    places: Places,
    *,
    checksum: int,
    received_at: datetime,
    limits: HeaderLimits,
    held: Held,
    tell: Callable[[StoreResult | PacstewardError], None],
) -> None:
    """Do what `hand_over` does, for a short object and without waiting.

    Parameters
    ----------
    tell
        Called later with what became of it; with `Unavailable` when the keeper went away.

    Raises
    ------
    Invalid, Undelivered, TooLong
        As there; nothing was sent, and `tell` will not be called.
    """
    data = Fragments(pieces)
    found = examined(read_header(data, meta.transfer_syntax_uid, limits), meta, origin, received_at)
    text = _text(found, data.size, checksum, places)
    line.say(text, held, lambda fields: tell(_verdict(found, fields)))


def _text(found: Examined, size_bytes: int, checksum: int, places: Places) -> bytes:
    text = packed(found, size_bytes, checksum, places)
    if len(text) > TEXT_MAX:
        raise TooLong
    return text


def _verdict(found: Examined, fields: Any) -> StoreResult | PacstewardError:
    """Return what the keeper's answer means."""
    if fields is None:
        return found.stored()
    if isinstance(fields, Undelivered):
        return keeper_is_away()
    if "error" in fields:
        return error_of(fields["error"])
    return result_of(fields["result"])
