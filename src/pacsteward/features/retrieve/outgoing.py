"""An object on its way out: which presentation context can carry it, and its bytes.

The stored transfer syntax is preferred, since those are the bytes that were acknowledged. When the
receiver did not take it, the object is transcoded to one that it did take; when there is none, that
one object fails with a reason and the others go on.

References
----------
PS3.4 C.4.2.2.1.1 and C.4.3.2 — the SCP may convert between transfer syntaxes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass

from pacsteward.archive import Archive, Instance
from pacsteward.base.errors import Unsupported
from pacsteward.dicom.dimse import PresentationContext
from pacsteward.dicom.transcode import can_transcode, transcode

CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One object, ready to be sent on a context."""

    instance: Instance
    context_id: int
    data: bytes | None
    """The data set in the context's transfer syntax; None streams it from the archive."""


def choose_context(
    instance: Instance, contexts: Iterable[PresentationContext]
) -> PresentationContext:
    """Choose the context that `instance` travels on.

    Raises
    ------
    Unsupported
        The receiver took no context for its SOP class, or none that it can be converted to.
    """
    fitting = [one for one in contexts if one.abstract_syntax == instance.sop_class_uid]
    for context in fitting:
        if context.transfer_syntax == instance.transfer_syntax_uid:
            return context
    for context in fitting:
        if can_transcode(instance.transfer_syntax_uid, context.transfer_syntax):
            return context
    if fitting:
        raise Unsupported(
            f"Instance {instance.sop_instance_uid} cannot be sent.",
            why=f"It is stored in {instance.transfer_syntax_uid} and the receiver takes only "
            + ", ".join(one.transfer_syntax for one in fitting)
            + ".",
        )
    raise Unsupported(
        f"Instance {instance.sop_instance_uid} cannot be sent.",
        why=f"The receiver takes no objects of SOP class {instance.sop_class_uid}.",
    )


def load(
    archive: Archive,
    instance: Instance,
    contexts: Sequence[PresentationContext],
    whole_bytes: int,
) -> Outgoing:
    """Read `instance` and convert it for the context it will travel on. Blocks.

    Parameters
    ----------
    whole_bytes
        Objects up to this size are read whole and checked; larger ones that need no conversion
        are left to `chunks`.
    """
    context = choose_context(instance, contexts)
    is_as_stored = context.transfer_syntax == instance.transfer_syntax_uid
    if is_as_stored and instance.size_bytes > whole_bytes:
        return Outgoing(instance, context.context_id, None)
    with archive.open(instance) as stored:
        data = stored.data_set()
    if not is_as_stored:
        data = transcode(data, instance.transfer_syntax_uid, context.transfer_syntax)
    return Outgoing(instance, context.context_id, data)


async def chunks(archive: Archive, outgoing: Outgoing) -> AsyncIterator[bytes | memoryview]:
    """Give the bytes of `outgoing` in pieces."""
    if outgoing.data is not None:
        yield outgoing.data
        return
    with archive.open(outgoing.instance) as stored:
        for offset in range(0, stored.size, CHUNK_BYTES):
            length = min(CHUNK_BYTES, stored.size - offset)
            yield await asyncio.to_thread(stored.read, offset, length)
