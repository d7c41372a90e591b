"""Examines an instance that lies whole in shared memory, and has the keeper store it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pacsteward.archive.examine import READ_ASIDE_BYTES, Examined, examined
from pacsteward.archive.line import Held, Line, Undelivered
from pacsteward.archive.messages import TEXT_MAX, error_of, keeper_is_away, result_of
from pacsteward.archive.model import Origin, StoreResult
from pacsteward.archive.ready import Places, packed
from pacsteward.base.errors import PacstewardError
from pacsteward.dicom.fragments import Fragments
from pacsteward.dicom.header import Header, HeaderLimits, read_header
from pacsteward.dicom.part10 import FileMeta


class TooLong(Undelivered):
    """What would be said of an instance is longer than the keeper reads."""


@dataclass(frozen=True, slots=True)
class ArrivedInstance:
    """An instance that is whole, and was not looked at yet.

    Parameters
    ----------
    meta
        As it was announced.
    data
        The data set; `checksum` is its own.
    places
        Where it lies in memory that the keeper has mapped.
    """

    origin: Origin
    meta: FileMeta
    received_at: datetime
    data: Fragments
    checksum: int
    places: Places


async def hand_over(
    line: Line[Any], arrived: ArrivedInstance, held: Held, limits: HeaderLimits
) -> StoreResult:
    """Examine an instance and have the keeper store it; when this returns, it is safe.

    Parameters
    ----------
    held
        See `Line.say`.

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
    found, text = await examined_aside(arrived, limits)
    verdict = _verdict(found, await line.ask(text, held))
    if isinstance(verdict, PacstewardError):
        raise verdict
    return verdict


def hand_in(
    line: Line[Any],
    arrived: ArrivedInstance,
    held: Held,
    limits: HeaderLimits,
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
    header = read_header(arrived.data, arrived.meta.transfer_syntax_uid, limits)
    found, text = _to_be_said(arrived, header)
    line.say(text, held, lambda fields: tell(_verdict(found, fields)))


async def examined_aside(arrived: ArrivedInstance, limits: HeaderLimits) -> tuple[Examined, bytes]:
    """Examine an instance, a large one in a thread.

    Returns
    -------
    (Examined, bytes)
        What was found, and the message that tells the keeper.

    Raises
    ------
    Invalid, TooLong
        As `hand_over` does.
    """
    syntax = arrived.meta.transfer_syntax_uid
    if arrived.data.size > READ_ASIDE_BYTES:
        header = await asyncio.to_thread(read_header, arrived.data, syntax, limits)
    else:
        header = read_header(arrived.data, syntax, limits)
    return _to_be_said(arrived, header)


def _to_be_said(arrived: ArrivedInstance, header: Header) -> tuple[Examined, bytes]:
    found = examined(header, arrived.meta, arrived.origin, arrived.received_at)
    text = packed(found, arrived.data.size, arrived.checksum, arrived.places)
    if len(text) > TEXT_MAX:
        raise TooLong
    return found, text


def _verdict(found: Examined, fields: Any) -> StoreResult | PacstewardError:
    """Return what the keeper's answer means."""
    if fields is None:
        return found.stored()
    if isinstance(fields, Undelivered):
        return keeper_is_away()
    if "error" in fields:
        return error_of(fields["error"])
    return result_of(fields["result"])
