"""An instance that is arriving: kept in the pieces in which it came, looked at, handed over.

The pieces are never joined: the header is read across them, and the kernel gathers them when they
are written. Beyond `big_object_bytes` an object goes to a file of its own while it arrives, so
memory is bounded whatever its size.

What is looked at before anything is acknowledged is in `examine.py`. Instances that arrive in
another process come this way only when they are big (`sharing.py`).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final, TypeVar

from pacsteward.archive import disk
from pacsteward.archive.examine import READ_ASIDE_BYTES, Examined, examined, not_stored, too_large
from pacsteward.archive.model import Origin, StoreResult
from pacsteward.archive.record import checksum_of
from pacsteward.archive.spool import Spool
from pacsteward.archive.storage.local import LocalObjects
from pacsteward.archive.ticket import Ticket
from pacsteward.base.clock import Clock
from pacsteward.base.errors import PacstewardError
from pacsteward.dicom.fragments import Fragments
from pacsteward.dicom.header import Header, HeaderLimits, read_header
from pacsteward.dicom.part10 import FileMeta, encode_part10_head

T = TypeVar("T")

SMALL_BYTES: Final = 256
"""Fragments up to this are copied together: a reference to one takes more room than that, and
keeps the whole buffer that it came in."""

_TOGETHER_BYTES: Final = 64 << 10

_LOOK_AGAIN_S: Final = 0.005


@dataclass(frozen=True, slots=True)
class Reception:
    """What an arriving instance needs of the keeper.

    Parameters
    ----------
    submit
        Hands a ticket to the committer.
    executor
        Threads for files and large headers.
    """

    objects: LocalObjects
    clock: Clock
    submit: Callable[[Ticket], None]
    executor: Executor
    big_object_bytes: int
    largest_object_bytes: int
    header_limits: HeaderLimits


class IncomingInstance:
    """One instance; see `model.Incoming`."""

    def __init__(self, reception: Reception, origin: Origin, meta: FileMeta) -> None:
        self._reception = reception
        self._origin = origin
        self._meta = meta
        self._pieces: list[bytes | memoryview] = []
        self._small = bytearray()
        self._size_bytes = 0
        self._checksum = 0
        self._spool: Spool | None = None
        self._head_bytes = 0
        self._failure: PacstewardError | None = None

    def write(self, fragment: bytes | memoryview) -> None:
        """Take the next bytes of the data set; `fragment` stays unchanged until the end."""
        self._size_bytes += len(fragment)
        if self._failure is not None:
            return
        if self._size_bytes > self._reception.largest_object_bytes:
            self._fail(too_large(self._meta, self._reception.largest_object_bytes))
            return
        self._checksum = checksum_of(fragment, self._checksum)
        if len(fragment) <= SMALL_BYTES:
            self._small += fragment
            if len(self._small) >= _TOGETHER_BYTES:
                self._flush_small()
            return
        if self._small:
            self._flush_small()
        self._keep(fragment)

    def is_behind(self) -> bool:
        """Whether the disk is slower than the network, and nothing more should be read for now."""
        return self._spool is not None and self._spool.is_behind()

    async def catch_up(self) -> None:
        """Wait until more may be written."""
        # Asked again and again, since a thread that waits could be the one that has to write.
        while self.is_behind():
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def finish(self) -> StoreResult:
        """Return once the whole is safe; raise what `model.Incoming.finish` does."""
        loop = asyncio.get_running_loop()
        self._flush_small()
        if self._failure is not None:
            raise self._failure
        if self._spool is None and self._size_bytes <= READ_ASIDE_BYTES:
            ticket = self._ticket(loop, _Patient(loop=loop))
        else:
            ticket = await self._ticket_aside(loop)
        self._reception.submit(ticket)
        assert isinstance(ticket.future, asyncio.Future)
        return await ticket.future

    def finish_in_thread(self) -> StoreResult:
        """Do as `finish` does, and block; for callers without an event loop."""
        self._flush_small()
        if self._failure is not None:
            raise self._failure
        future: concurrent.futures.Future[StoreResult] = concurrent.futures.Future()
        self._reception.submit(self._ticket(None, future))
        return future.result()

    def abandon(self) -> None:
        """Leave nothing behind."""
        self._pieces.clear()
        self._small.clear()
        if self._spool is not None:
            spool, self._spool = self._spool, None
            self._reception.executor.submit(spool.abandon)

    # --- inside -----------------------------------------------------------------------------

    def _keep(self, piece: bytes | memoryview) -> None:
        if self._spool is not None:
            self._spool.write(piece)
            return
        self._pieces.append(piece)
        if self._size_bytes > self._reception.big_object_bytes:
            self._begin_spool()

    def _flush_small(self) -> None:
        if self._small and self._failure is None:
            together = bytes(self._small)
            self._small.clear()
            self._keep(together)

    def _begin_spool(self) -> None:
        # The file is an ordinary Part 10 file. A device that mislabels its encoding makes one
        # that says so too; the index has the right syntax, and heads the object with that.
        head = encode_part10_head(self._meta)
        try:
            with disk.speaking(not_stored(self._meta)):
                spool = Spool(self._reception.objects, self._reception.executor)
        except PacstewardError as error:
            self._fail(error)
            return
        self._head_bytes = len(head)
        self._spool = spool
        for piece in (head, *self._pieces):
            spool.write(piece)
        self._pieces.clear()

    def _fail(self, error: PacstewardError) -> None:
        self._failure = error
        self.abandon()

    async def _ticket_aside(self, loop: asyncio.AbstractEventLoop) -> Ticket:
        try:
            return await _to_the_end(
                loop.run_in_executor(
                    self._reception.executor, self._ticket, loop, _Patient(loop=loop)
                )
            )
        except asyncio.CancelledError:
            if self._spool is not None:
                self._reception.objects.discard(self._spool.container)
            raise

    def _ticket(
        self,
        loop: asyncio.AbstractEventLoop | None,
        future: asyncio.Future[StoreResult] | concurrent.futures.Future[StoreResult],
    ) -> Ticket:
        """Look at the whole object and make the ticket of it."""
        if self._spool is None:
            found = self._examined(self._header(Fragments(self._pieces)))
        else:
            found = self._spool_examined(self._spool)
        return Ticket(
            description=found.description,
            file_meta=found.file_meta,
            data=tuple(self._pieces),
            size_bytes=self._size_bytes,
            checksum=self._checksum,
            header=found.header,
            warnings=found.warnings,
            loop=loop,
            future=future,
            shortage=found.shortage,
        )

    def _examined(self, header: Header, container: str = "") -> Examined:
        return examined(
            header,
            self._meta,
            self._origin,
            self._reception.clock.now(),
            object_container=container,
            object_offset=self._head_bytes,
        )

    def _header(self, data: Fragments) -> Header:
        return read_header(data, self._meta.transfer_syntax_uid, self._reception.header_limits)

    def _spool_examined(self, spool: Spool) -> Examined:
        try:
            with disk.speaking(not_stored(self._meta)):
                spool.finish()
                with self._reception.objects.incoming(spool.container, self._head_bytes) as data:
                    header = self._header(data)
            return self._examined(header, spool.container)
        except PacstewardError:
            self._reception.objects.discard(spool.container)
            raise


class _Patient(asyncio.Future[StoreResult]):
    """A future that is waited for to its end, even by a task that is cancelled meanwhile.

    The pieces belong to the receiver, who takes them back when the wait ends; the committer may be
    writing them. A task whose future refuses to be cancelled is cancelled when that is done.
    """

    def cancel(self, msg: object = None) -> bool:
        """Refuse."""
        return False


async def _to_the_end(future: asyncio.Future[T]) -> T:
    """Wait for a result even when cancelled meanwhile, and be cancelled after.

    The pieces belong to the receiver, who takes them back when this ends; a thread may be writing
    them.
    """
    is_cancelled = False
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            is_cancelled = True
    if is_cancelled:
        raise asyncio.CancelledError
    return future.result()
