"""An instance that is arriving: kept in the pieces in which it came, looked at, handed over.

The pieces are never joined: the header is read across them, and the kernel gathers them when they
are written. Beyond `big_object_bytes` an object goes to a file of its own while it arrives, so
memory is bounded whatever its size.

Before anything is acknowledged the object must be whole to its last element and must say which
instance of which series and study it is. What is wrong and does not endanger that is a warning:
images of a patient without an ID are kept.

References
----------
PS3.4 B.2.3 (A900: data set does not match SOP Class); PS3.5 9.1 (UIDs); PS3.3 C.12.1.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final, TypeVar

from pacsteward.archive import disk
from pacsteward.archive.digest import identity_doubt
from pacsteward.archive.model import DoesNotMatch, Origin, StoreResult
from pacsteward.archive.record import Description, checksum_of
from pacsteward.archive.shortage import pixel_shortage
from pacsteward.archive.spool import Spool
from pacsteward.archive.storage.local import LocalObjects
from pacsteward.archive.ticket import Ticket
from pacsteward.base.clock import Clock
from pacsteward.base.errors import Exhausted, Invalid, PacstewardError
from pacsteward.dicom.fragments import Fragments
from pacsteward.dicom.header import Header, HeaderLimits, read_header
from pacsteward.dicom.part10 import FileMeta, encode_file_meta, encode_part10_head
from pacsteward.dicom.uids import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    is_valid_uid,
    transfer_syntax,
)

T = TypeVar("T")

_READ_ASIDE_BYTES: Final = 1 << 20
"""The header of a larger object is read in a thread: it may have a hundred thousand elements."""

_SMALL_BYTES: Final = 256
"""Fragments up to this are copied together: a reference to one takes more room than that, and
keeps the whole buffer that it came in."""

_TOGETHER_BYTES: Final = 64 << 10

_LOOK_AGAIN_S: Final = 0.005

_DOUBTS: Final = {
    "missing": "It has no Patient ID (0010,0020); it is kept, and nobody is its patient yet.",
    "illegal": "Its Patient ID (0010,0020) is not one that DICOM allows; it is kept as it is.",
}


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
            self._fail(self._too_large())
            return
        self._checksum = checksum_of(fragment, self._checksum)
        if len(fragment) <= _SMALL_BYTES:
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
        """Return once the whole is safe.

        Raises
        ------
        Invalid
            The data set is cut short, or names no instance.
        Exhausted, Unavailable
            It could not be kept; the sender should try again.
        """
        loop = asyncio.get_running_loop()
        self._flush_small()
        if self._failure is not None:
            raise self._failure
        if self._spool is None and self._size_bytes <= _READ_ASIDE_BYTES:
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
            with disk.speaking(self._not_stored()):
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
            header = self._header(Fragments(self._pieces))
            self._check(header)
        else:
            header = self._spooled_header(self._spool)
        doubt = _DOUBTS.get(identity_doubt(header))
        return Ticket(
            description=self._description(header),
            file_meta=self._file_meta(header),
            data=tuple(self._pieces),
            size_bytes=self._size_bytes,
            checksum=self._checksum,
            header=header,
            warnings=(*header.warnings, *((doubt,) if doubt else ())),
            loop=loop,
            future=future,
            shortage=pixel_shortage(header),
        )

    def _header(self, data: Fragments) -> Header:
        return read_header(data, self._meta.transfer_syntax_uid, self._reception.header_limits)

    def _spooled_header(self, spool: Spool) -> Header:
        try:
            with disk.speaking(self._not_stored()):
                spool.finish()
                with self._reception.objects.incoming(spool.container, self._head_bytes) as data:
                    header = self._header(data)
            self._check(header)
        except PacstewardError:
            self._reception.objects.discard(spool.container)
            raise
        return header

    def _check(self, header: Header) -> None:
        """Refuse what does not say which object it is, or says another than was announced."""
        uid = header.sop_instance_uid
        for value, name in (
            (uid, "SOP Instance UID (0008,0018)"),
            (header.sop_class_uid, "SOP Class UID (0008,0016)"),
            (header.study_instance_uid, "Study Instance UID (0020,000D)"),
            (header.series_instance_uid, "Series Instance UID (0020,000E)"),
        ):
            if not is_valid_uid(value):
                found = "It is missing." if not value else "It is no UID (PS3.5 9.1)."
                raise Invalid(
                    self._not_stored(),
                    why=f"Its {name} cannot be used. {found}",
                    remedy="Correct the sender, and send it again.",
                )
        announced = (
            (self._meta.media_storage_sop_instance_uid, uid, "SOP Instance UID"),
            (self._meta.media_storage_sop_class_uid, header.sop_class_uid, "SOP Class UID"),
        )
        for said, found, name in announced:
            if said and said != found:
                raise DoesNotMatch(
                    self._not_stored(),
                    why=f"It was announced with {name} {said}, and its data set has {found}.",
                    remedy="Correct the sender, and send it again.",
                )

    def _description(self, header: Header) -> Description:
        return Description(
            received_at=self._reception.clock.now(),
            origin=self._origin,
            sop_class_uid=header.sop_class_uid,
            sop_instance_uid=header.sop_instance_uid,
            study_instance_uid=header.study_instance_uid,
            series_instance_uid=header.series_instance_uid,
            transfer_syntax_uid=_real_syntax(header),
            object_container=self._spool.container if self._spool is not None else "",
            object_offset=self._head_bytes,
        )

    def _file_meta(self, header: Header) -> bytes:
        meta = self._meta
        return encode_file_meta(
            FileMeta(
                header.sop_class_uid,
                header.sop_instance_uid,
                _real_syntax(header),
                meta.implementation_class_uid,
                meta.implementation_version_name,
                meta.source_application_entity_title,
            )
        )

    def _not_stored(self) -> str:
        uid = self._meta.media_storage_sop_instance_uid
        return f"Instance {uid} was not stored." if is_valid_uid(uid) else "It was not stored."

    def _too_large(self) -> Exhausted:
        return Exhausted(
            self._not_stored(),
            why=f"It is larger than {self._reception.largest_object_bytes} bytes.",
            remedy="Raise `archive.largest_object_bytes` if such objects are wanted.",
        )


def _real_syntax(header: Header) -> str:
    """Return the transfer syntax by which a data set reads, whatever was announced.

    Readers take the syntax from the index, and would find nothing in a data set whose elements are
    written in another way. Compressed pixels in implicit VR have no name (PS3.5 A.4); those keep
    the one they were announced with.
    """
    announced = transfer_syntax(header.transfer_syntax_uid)
    if announced.is_encapsulated or header.is_implicit_vr == announced.is_implicit_vr:
        return header.transfer_syntax_uid
    return IMPLICIT_VR_LITTLE_ENDIAN if header.is_implicit_vr else EXPLICIT_VR_LITTLE_ENDIAN


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
