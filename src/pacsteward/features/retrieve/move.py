"""Sending instances to a peer over several associations at once.

The instances are parted into loads that fit into 128 presentation contexts; workers, each with an
association of its own, take them one by one. An object that is refused, cannot be converted or
breaks its association is counted as failed, and the rest goes on over a new one.

References
----------
PS3.8 9.3.2.2 — at most 128 presentation contexts, with odd identifiers from 1 to 255.
PS3.7 9.1.1 — Move Originator Application Entity Title and Message ID.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import lru_cache

from pacsteward.archive import Archive, Instance
from pacsteward.base.errors import PacstewardError
from pacsteward.base.ids import AeTitle, Uid
from pacsteward.dicom.dimse import ClientAssociation, ProposedContext, connect
from pacsteward.dicom.transcode import can_transcode
from pacsteward.dicom.uids import PROPOSED
from pacsteward.features.retrieve.outgoing import Outgoing, Source, chunks, read_ahead
from pacsteward.features.retrieve.settings import RetrieveSettings
from pacsteward.features.retrieve.sub_operations import Tally
from pacsteward.security import Peer

CONTEXTS_MAX = 128
TRIES = 2
"""Calls in a row that a destination may refuse before the rest is given up."""


@dataclass(frozen=True, slots=True)
class Errand:
    """What is to be sent, to whom, and in whose name."""

    archive: Archive
    destination: Peer
    calling_ae_title: AeTitle
    settings: RetrieveSettings
    originator: tuple[AeTitle, int] | None = None
    is_cancelled: Callable[[], bool] = lambda: False


async def send(
    errand: Errand, instances: Sequence[Instance], tally: Tally
) -> AsyncGenerator[None, None]:
    """Send `instances` and count them in `tally`; halt whenever progress is worth telling.

    The tally is final when the iteration ends.
    """
    width = errand.destination.max_parallel or errand.settings.max_parallel
    loads = deque(_loads(instances, width, errand.destination.prefers_transfer_syntaxes))
    workers = [
        asyncio.create_task(_work(errand, loads, tally)) for _ in range(min(width, len(loads)))
    ]
    try:
        while workers:
            finished, running = await asyncio.wait(
                workers, timeout=errand.settings.pending_interval_s
            )
            for worker in finished:
                worker.result()
            workers = list(running)
            yield
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


def _loads(
    instances: Sequence[Instance], width: int, prefers: Sequence[str] = ()
) -> list[list[Instance]]:
    """Part `instances` so that each part needs at most 128 contexts and no worker stands idle."""
    parts: list[list[Instance]] = []
    pairs: set[tuple[str, str]] = set()
    size = max(1, -(-len(instances) // width))
    for instance in instances:
        wanted = set(_pairs(instance, prefers))
        if not parts or len(pairs | wanted) > CONTEXTS_MAX or len(parts[-1]) >= size:
            parts.append([])
            pairs = set()
        pairs |= wanted
        parts[-1].append(instance)
    return parts


def _pairs(instance: Instance, prefers: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Give what to propose for one object, a context for each transfer syntax.

    With several in one context the receiver would choose, and many choose the first or the last
    whatever they can (PS3.8 9.3.3.2 lets them).
    """
    for syntax in _syntaxes(instance.transfer_syntax_uid, tuple(prefers)):
        yield instance.sop_class_uid, syntax


# The objects of a study are stored in one or two.
@lru_cache(maxsize=128)
def _syntaxes(stored: str, prefers: tuple[str, ...]) -> tuple[str, ...]:
    wanted = dict.fromkeys((*prefers, stored, *PROPOSED))
    return tuple(syntax for syntax in wanted if can_transcode(stored, syntax))


async def _work(errand: Errand, loads: deque[list[Instance]], tally: Tally) -> None:
    """Send one load after the other until none is left."""
    while loads:
        waiting = deque(loads.popleft())
        refusals = 0
        while waiting and not errand.is_cancelled():
            before = len(waiting)
            try:
                await _send_over_one_association(errand, waiting, tally)
            except PacstewardError as error:
                refusals = refusals + 1 if len(waiting) == before else 0
                if refusals >= TRIES:
                    _fail_all(waiting, tally, error.what)


async def _send_over_one_association(
    errand: Errand, waiting: deque[Instance], tally: Tally
) -> None:
    """Send until nothing waits or the association breaks; what was tried has left `waiting`."""
    prefers = errand.destination.prefers_transfer_syntaxes
    pairs = dict.fromkeys(pair for instance in waiting for pair in _pairs(instance, prefers))
    proposed = [ProposedContext(Uid(uid), (Uid(syntax),)) for uid, syntax in pairs]
    async with connect(
        errand.destination.host,
        errand.destination.port,
        calling=errand.calling_ae_title,
        called=AeTitle(errand.destination.ae_title),
        contexts=proposed,
        timeout_s=errand.settings.connect_timeout_s,
    ) as association:
        source = Source(
            errand.archive, errand.settings, association.contexts, prefers, errand.is_cancelled
        )
        async with aclosing(read_ahead(source, tuple(waiting))) as ready:
            async for instance, outgoing in ready:
                if errand.is_cancelled():
                    return
                waiting.popleft()
                await _send_one(errand, association, instance, outgoing, tally)


async def _send_one(
    errand: Errand,
    association: ClientAssociation,
    instance: Instance,
    outgoing: Outgoing | PacstewardError,
    tally: Tally,
) -> None:
    uid = instance.sop_instance_uid
    if isinstance(outgoing, PacstewardError):
        tally.fail(uid, outgoing.why or outgoing.what)
        return
    try:
        status, comment = await association.store(
            outgoing.context_id,
            Uid(instance.sop_class_uid),
            Uid(uid),
            outgoing.data if outgoing.data is not None else chunks(errand.archive, outgoing),
            move_originator=errand.originator,
        )
    except PacstewardError as error:
        tally.fail(uid, error.why or error.what)
        raise
    tally.record(uid, status, comment)


def _fail_all(waiting: deque[Instance], tally: Tally, reason: str) -> None:
    with suppress(IndexError):
        while True:
            tally.fail(waiting.popleft().sop_instance_uid, reason)
