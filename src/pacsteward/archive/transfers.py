"""Big instances that arrive at the keeper in parts, on its event loop.

A process that shares memory with the keeper (`sharing.py`) says of one, in JSON::

    ["part", transfer, origin, meta, places]   more of it
    ["end", transfer, size, checksum]          that was all of it
    ["drop", transfer]                         it will not come

`transfer` is a number that no other instance of the connection has, `origin` the text in JSON of an
`Origin`, `meta` the fields of a `FileMeta`, `places` what `ready.Places` says. The answer to a part
says that more may come, that to the end what became of the whole. Parts are copied: they go to a
file, and their place is the other process's again as soon as they are answered.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping
from functools import lru_cache
from typing import Any, Final, Protocol

from pacsteward.archive.messages import not_understood
from pacsteward.archive.model import Incoming, Origin, StoreResult
from pacsteward.archive.ready import Places, pieces_at
from pacsteward.archive.record import checksum_of
from pacsteward.base.errors import Broken, PacstewardError
from pacsteward.dicom.part10 import FileMeta


class Receiving(Protocol):
    """Takes an instance while it arrives: the keeper."""

    def receive(self, origin: Origin, meta: FileMeta) -> Incoming: ...  # noqa: D102


class Transfers:
    """What arrives in parts on one connection.

    Parameters
    ----------
    memory
        Of the other process, mapped.
    """

    def __init__(self, keeper: Receiving, memory: memoryview) -> None:
        self._keeper = keeper
        self._memory = memory
        self._under_way: dict[int, _Transfer] = {}

    def take(self, text: bytes) -> Coroutine[Any, Any, StoreResult | None]:
        """Take what a message brings, in the order of messages; return what is to be awaited.

        Raises
        ------
        Unavailable
            It says nothing that makes sense.
        """
        try:
            kind, *said = json.loads(text)
            return self._kinds[kind](self, *said)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise not_understood(error) from error

    def abandon(self) -> None:
        """Leave nothing behind: the other process is gone."""
        while self._under_way:
            self._under_way.popitem()[1].incoming.abandon()

    def _part(
        self, number: int, origin: str, meta: list[str], places: Places
    ) -> Coroutine[Any, Any, None]:
        transfer = self._under_way.get(number)
        if transfer is None:
            transfer = self._under_way[number] = _Transfer(self._begun(origin, meta))
        try:
            for piece in pieces_at(places, self._memory):
                transfer.write(bytes(piece))
        except Exception:
            # Without this part the others are worth nothing.
            transfer.incoming.abandon()
            transfer.incoming = _Refused(Broken("A part of the instance was not taken."))
            raise
        return transfer.incoming.catch_up()

    def _begun(self, origin: str, meta: list[str]) -> Incoming:
        try:
            return self._keeper.receive(_origin(origin), FileMeta(*meta))
        except PacstewardError as error:
            # Nor is any later part taken for the beginning.
            return _Refused(error)

    def _end(self, number: int, size_bytes: int, checksum: int) -> Coroutine[Any, Any, StoreResult]:
        transfer = self._under_way.pop(number)
        if isinstance(transfer.incoming, _Refused) or transfer.is_as_sent(size_bytes, checksum):
            return transfer.incoming.finish()
        transfer.incoming.abandon()
        raise Broken("The instance was not stored.", why="Not all of it reached the keeper.")

    async def _drop(self, number: int) -> None:
        transfer = self._under_way.pop(number, None)
        if transfer is not None:
            transfer.incoming.abandon()

    _kinds: Final[Mapping[str, Callable[..., Coroutine[Any, Any, StoreResult | None]]]] = {
        "part": _part,
        "end": _end,
        "drop": _drop,
    }


class _Transfer:
    """An instance that arrives in parts."""

    def __init__(self, incoming: Incoming) -> None:
        self.incoming = incoming
        self._size_bytes = 0
        self._checksum = 0

    def write(self, piece: bytes) -> None:
        self._size_bytes += len(piece)
        self._checksum = checksum_of(piece, self._checksum)
        self.incoming.write(memoryview(piece))

    def is_as_sent(self, size_bytes: int, checksum: int) -> bool:
        return (self._size_bytes, self._checksum) == (size_bytes, checksum)


class _Refused:
    """An instance that was refused at its beginning, whatever comes of it."""

    def __init__(self, error: PacstewardError) -> None:
        self._error = error

    def write(self, fragment: memoryview) -> None:
        """Take nothing."""

    def is_behind(self) -> bool:
        return False

    async def catch_up(self) -> None:
        raise self._error

    async def finish(self) -> StoreResult:
        raise self._error

    def abandon(self) -> None:
        """Have nothing to leave behind."""


@lru_cache(maxsize=256)
def _origin(text: str) -> Origin:
    """Return who hands in; one serves all instances of a request."""
    return Origin(**json.loads(text))
