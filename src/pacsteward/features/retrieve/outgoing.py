"""Objects on their way out: which presentation context can carry each, and its bytes.

The stored transfer syntax is preferred, since those are the bytes that were acknowledged. When the
receiver did not take it, the object is transcoded to one that it did take; when there is none, that
one object fails with a reason and the others go on. Frames are decoded in child processes, never in
this one, which keeps the archive: an image that crashes its decoder fails alone.

References
----------
PS3.4 C.4.2.2.1.1 and C.4.3.2 — the SCP may convert between transfer syntaxes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from pacsteward.archive import Archive, Instance, StoredObject
from pacsteward.base.errors import Broken, PacstewardError, Unavailable, Unsupported, WouldWait
from pacsteward.dicom.dimse import PresentationContext
from pacsteward.dicom.transcode import can_transcode, transcode_chunks
from pacsteward.dicom.uids import UNCOMPRESSED
from pacsteward.dicom.web.bodies import Spool
from pacsteward.features.retrieve.decoding import frame_coder
from pacsteward.features.retrieve.settings import RetrieveSettings
from pacsteward.features.retrieve.together import TOGETHER_BYTES, lie_together

log = logging.getLogger(__name__)

CHUNK_BYTES: Final = 1024 * 1024
TRANSCODED_MAX_BYTES: Final = 8 * 1024**3
"""A decoded object larger than this is not made; it is told which syntax it is stored in."""

_READERS: Final = ThreadPoolExecutor(8, thread_name_prefix="retrieve")
"""Threads of their own, so that whoever waits for a decoder does not keep callers out, who are
admitted in the threads of the event loop."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where objects come from, and how they may leave.

    Parameters
    ----------
    contexts
        Accepted by the receiver, in the order of preference among equals.
    prefers
        Transfer syntaxes that the receiver would rather have than the stored one.
    is_cancelled
        Whether nobody waits for them any more.
    """

    archive: Archive
    settings: RetrieveSettings
    contexts: Sequence[PresentationContext]
    prefers: Sequence[str] = ()
    is_cancelled: Callable[[], bool] = field(default=lambda: False)
    _chosen: dict[tuple[str, str], PresentationContext] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """For objects of a class, stored in a syntax: it is the same for hundreds."""

    def context_for(self, instance: Instance) -> PresentationContext:
        """Do what `choose_context` does."""
        kind = instance.sop_class_uid, instance.transfer_syntax_uid
        chosen = self._chosen.get(kind)
        if chosen is None:
            chosen = choose_context(instance, self.contexts, self.prefers)
            self._chosen[kind] = chosen
        return chosen


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One object, ready to be sent on a context."""

    instance: Instance
    context_id: int
    data: bytes | memoryview | None
    """The data set in the context's transfer syntax; None streams it from the archive."""


async def read_ahead(
    source: Source, instances: Iterable[Instance]
) -> AsyncGenerator[tuple[Instance, Outgoing | PacstewardError], None]:
    """Give `instances` in their order; the next ones are read while one is on the wire.

    One that cannot leave comes with the reason.
    """
    loop = asyncio.get_running_loop()
    ahead: deque[tuple[Instance, Outgoing | asyncio.Future[Outgoing | PacstewardError]]] = deque()
    upcoming = deque(instances)

    def fill() -> None:
        while upcoming and (room := source.settings.read_ahead - len(ahead)) > 0:
            if len(ahead) > 1 and isinstance(ahead[-1][1], Outgoing):
                return  # enough is in memory; later there is room for several at once
            together = _together(upcoming, room)
            found = _at_once(source, together)
            if found is None and len(together) > 1:
                found = _at_once(source, together[:1])
            if found is not None:
                for outgoing in found:
                    ahead.append((upcoming.popleft(), outgoing))
                return  # whoever waits for the loop comes first; the next ones take no longer
            following = upcoming.popleft()
            reading = loop.run_in_executor(_READERS, _attempt, source, following)
            ahead.append((following, reading))

    try:
        while True:
            if not ahead:
                fill()
            if not ahead:
                return
            instance, loading = ahead.popleft()
            ready = loading if isinstance(loading, Outgoing) else await loading
            # Once this one is on the wire, while the receiver takes it.
            loop.call_soon(fill)
            yield instance, ready
    finally:
        upcoming.clear()
        for _, loading in ahead:
            if not isinstance(loading, Outgoing):
                loading.cancel()


def _together(upcoming: Sequence[Instance], count_max: int) -> list[Instance]:
    """Return the next objects that are read with one call; one at least."""
    first = upcoming[0]
    together = [first]
    size = first.size_bytes
    for following in islice(upcoming, 1, count_max):
        size += following.size_bytes
        if size > TOGETHER_BYTES or not lie_together(first, following):
            break
        together.append(following)
    return together


def _at_once(source: Source, instances: Sequence[Instance]) -> list[Outgoing] | None:
    """Read objects that are in memory; None where `WouldWait` leaves it to `load`."""
    if instances[0].size_bytes > source.settings.whole_bytes:
        return None
    try:
        contexts = [source.context_for(one) for one in instances]
        for one, context in zip(instances, contexts, strict=True):
            if context.transfer_syntax != one.transfer_syntax_uid:
                return None
        wholes = source.archive.prompt.wholes(instances)
    except WouldWait:
        return None
    except Exception:  # noqa: BLE001 - whatever is wrong with one is found again by `load`, and told
        return None
    return [
        Outgoing(one, context.context_id, whole)
        for one, context, whole in zip(instances, contexts, wholes, strict=True)
    ]


def _attempt(source: Source, instance: Instance) -> Outgoing | PacstewardError:
    try:
        return load(source, instance)
    except PacstewardError as error:
        return error
    except Exception:
        # A fault of ours in one object is written down, and does not keep the others.
        log.exception("Instance %s could not be prepared.", instance.sop_instance_uid)
        return Broken(
            f"Instance {instance.sop_instance_uid} cannot be sent.",
            why="Internal error; see the log of the archive",
        )


def load(source: Source, instance: Instance) -> Outgoing:
    """Read `instance` and convert it for the context it will travel on. Blocks.

    Every byte is compared with the checksum of its arrival before the first one leaves. Objects
    up to `RetrieveSettings.whole_bytes` are kept in memory; a larger one is left to `chunks`.

    Raises
    ------
    Unsupported
        No context of the receiver can carry it.
    PacstewardError
        It cannot be read, or not be decoded.
    """
    context = source.context_for(instance)
    with source.archive.open(instance) as stored:
        if context.transfer_syntax != instance.transfer_syntax_uid:
            data = _transcoded(source, stored, context.transfer_syntax)
            return Outgoing(instance, context.context_id, data)
        if stored.size > source.settings.whole_bytes:
            stored.check()
            return Outgoing(instance, context.context_id, None)
        return Outgoing(instance, context.context_id, stored.data_set())


def choose_context(
    instance: Instance, contexts: Iterable[PresentationContext], prefers: Sequence[str] = ()
) -> PresentationContext:
    """Choose the context that `instance` travels on.

    First what the receiver prefers, then as it is stored, then uncompressed, then any other way
    without loss.

    Raises
    ------
    Unsupported
        The receiver took no context for its SOP class, or none that it can be converted to.
    """
    stored = instance.transfer_syntax_uid
    order = (*prefers, stored, *UNCOMPRESSED)
    fitting = [one for one in contexts if one.abstract_syntax == instance.sop_class_uid]
    possible = [one for one in fitting if can_transcode(stored, one.transfer_syntax)]
    if possible:
        return min(
            possible,
            key=lambda one: (
                order.index(one.transfer_syntax) if one.transfer_syntax in order else len(order)
            ),
        )
    if fitting:
        taken = ", ".join(one.transfer_syntax for one in fitting)
        raise Unsupported(
            f"Instance {instance.sop_instance_uid} cannot be sent.",
            why=f"It is stored in {stored}; the receiver takes {taken}.",
            remedy=f"Have the receiver accept {stored}.",
        )
    raise Unsupported(
        f"Instance {instance.sop_instance_uid} cannot be sent.",
        why=f"No context for SOP class {instance.sop_class_uid}.",
        remedy="Have the receiver accept it.",
    )


def _transcoded(source: Source, stored: StoredObject, to_uid: str) -> memoryview:
    """Convert the whole object before any of it is sent, a long one into a file.

    What goes wrong with its last frame is then a failure of one object, and not of the
    association, which cannot be used any more after half a message.
    """
    stored.check()
    from_uid = stored.transfer_syntax_uid
    scratch = source.archive.scratch_folder()
    converted = transcode_chunks(
        stored.read,
        stored.size,
        from_uid,
        to_uid,
        code_frame=frame_coder(source.settings),
        scratch=scratch,
    )
    with Spool(scratch, max_bytes=TRANSCODED_MAX_BYTES) as spool:
        for chunk in converted:
            if source.is_cancelled():
                raise Unavailable("The conversion was stopped.", why="Nobody waits for it.")
            spool.write(chunk)
        return spool.value()


async def chunks(archive: Archive, outgoing: Outgoing) -> AsyncGenerator[bytes | memoryview, None]:
    """Give the bytes of `outgoing` in pieces."""
    if outgoing.data is not None:
        yield outgoing.data
        return
    loop = asyncio.get_running_loop()
    with archive.open(outgoing.instance) as stored:
        for offset in range(0, stored.size, CHUNK_BYTES):
            yield await loop.run_in_executor(_READERS, stored.read, offset, CHUNK_BYTES)
