"""Moving studies between us and a peer: we push them (C-STORE), or have them sent (C-MOVE, C-GET).

Each function blocks, repeats without harm (the archive knows what it has), and tells how far it is
to the job that it runs in.

References
----------
PS3.4 C.4.2.2 and C.4.3.2 — behaviour of the SCU of C-MOVE and C-GET.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from typing import Final, Literal

from pacsteward.archive import (
    Archive,
    ArchiveSettings,
    Instance,
    Origin,
    Outcome,
    Selection,
    StoreResult,
)
from pacsteward.base.errors import Invalid, NotFound, Unavailable
from pacsteward.base.ids import AeTitle, Uid
from pacsteward.base.jobs import this_job
from pacsteward.dicom.dimse import (
    Answer,
    ClientAssociation,
    PresentationContext,
    ProposedContext,
    Request,
    Response,
    connect,
)
from pacsteward.dicom.identifier import read_identifier, write_identifier
from pacsteward.dicom.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, FileMeta
from pacsteward.dicom.settings import DicomSettings
from pacsteward.dicom.status import SUCCESS, WARNING_COERCION
from pacsteward.dicom.tags import QUERY_RETRIEVE_LEVEL, SOP_CLASSES_IN_STUDY, STUDY_INSTANCE_UID
from pacsteward.dicom.uids import (
    HTJ2K_LOSSLESS,
    JPEG_2000,
    JPEG_2000_LOSSLESS,
    JPEG_BASELINE,
    JPEG_EXTENDED,
    JPEG_LOSSLESS,
    JPEG_LOSSLESS_SV1,
    JPEG_LS_LOSSLESS,
    JPEG_LS_NEAR_LOSSLESS,
    PROPOSED,
    RLE_LOSSLESS,
    STORAGE_SOP_CLASSES,
    STUDY_ROOT_FIND,
    STUDY_ROOT_GET,
    STUDY_ROOT_MOVE,
    TRANSFER_SYNTAXES,
)
from pacsteward.dicom.web.bodies import Spool
from pacsteward.feature import House
from pacsteward.features.retrieve.move import Errand, send
from pacsteward.features.retrieve.settings import RetrieveSettings
from pacsteward.features.retrieve.sub_operations import Tally
from pacsteward.features.retrieve.transfers import (
    Sending,
    record_fetched,
    record_fetching,
    record_leaving,
    sent,
)
from pacsteward.security import HOUSE, Actor, Peer


@dataclass(frozen=True, slots=True)
class Moved:
    """What became of the instances of a study."""

    completed: int
    warning: int
    failed: int
    reason: str = ""


def send_study(
    house: House, study_instance_uid: str, destination: str, *, by: Actor = HOUSE
) -> Moved:
    """Send a study to a registered peer.

    Parameters
    ----------
    by
        Who wants it sent, for the audit.

    Raises
    ------
    NotFound
        We have no such study, or no such peer.
    Unavailable
        Not everything could be sent; trying again sends all of it, which does no harm.
    """
    peer = house.peers.need(destination)
    selection = Selection(study_instance_uids=(study_instance_uid,))
    instances = house.archive.instances(selection)
    if not instances:
        raise NotFound(
            f"Study {study_instance_uid} is not in the archive.",
            remedy="Look for it by a query; it may have been rejected or deleted.",
        )
    sending = Sending(by, instances, peer.ae_title)
    record_leaving(house.audit, sending)
    with sent(house.audit, sending) as tally:
        asyncio.run(_send_all(house, peer, instances, tally))
    if tally.failed:
        raise Unavailable(
            f"{tally.failed} of {tally.total} instances of study {study_instance_uid} "
            f"did not reach {destination}.",
            why=tally.first_reason,
            remedy="See Connections for the state of the peer. Sending all of it again does no "
            "harm.",
        )
    return Moved(tally.completed, tally.warning, tally.failed)


async def _send_all(house: House, peer: Peer, instances: Sequence[Instance], tally: Tally) -> None:
    errand = Errand(
        archive=house.archive,
        destination=peer,
        calling_ae_title=AeTitle(house.settings.of(DicomSettings).ae_title),
        settings=house.settings.of(RetrieveSettings),
    )
    async with aclosing(send(errand, instances, tally)) as progress:
        async for _ in progress:
            this_job().report(tally.done, tally.total)


def fetch_study(
    house: House,
    study_instance_uid: str,
    source: str,
    how: Literal["move", "get"] = "move",
    *,
    by: Actor = HOUSE,
) -> Moved:
    """Have a peer send a study to us.

    Parameters
    ----------
    how
        ``"move"`` needs us to be registered at the peer; ``"get"`` brings everything over our own
        association and needs no way back.
    by
        Who wants it, for the audit.

    Raises
    ------
    NotFound
        There is no such peer.
    Unsupported
        The peer does not take such a request.
    Unavailable
        Not everything came.
    """
    peer = house.peers.need(source)
    record_fetching(house.audit, by, study_instance_uid, peer)
    final: Response | None = None
    try:
        final = asyncio.run(_fetch(house, peer, study_instance_uid, how))
    finally:
        record_fetched(house.audit, by, study_instance_uid, peer, final)
    counted = final.sub_operations
    if final.status != SUCCESS:
        raise Unavailable(
            f"{source} did not send all of study {study_instance_uid}.",
            why=f"It answered {final.status:04X} {final.comment}".strip() + ".",
            remedy="Does the peer know our AE title and address? Fetching all of it again does no "
            "harm.",
        )
    return Moved(counted.completed, counted.warning, counted.failed, final.comment)


async def _fetch(house: House, peer: Peer, study_instance_uid: str, how: str) -> Response:
    ours = AeTitle(house.settings.of(DicomSettings).ae_title)
    model = STUDY_ROOT_MOVE if how == "move" else STUDY_ROOT_GET
    contexts = [_question(model)]
    if how == "get":
        contexts += _storage_contexts(await _sop_classes(peer, ours, study_instance_uid))
    async with _called(peer, ours, contexts) as association:
        context = association.context(model)
        identifier = _identifier(context, study_instance_uid)
        if how == "move":
            responses = association.move(context, ours, identifier)
        else:
            responses = association.get(
                context, identifier, on_store=_Receiver(house, peer).receive
            )
        async for response in responses:
            done = response.sub_operations
            left = done.remaining or 0
            moved = done.completed + done.failed + done.warning
            this_job().report(moved, moved + left)
        return response


def _called(
    peer: Peer, ours: AeTitle, contexts: Sequence[ProposedContext]
) -> AbstractAsyncContextManager[ClientAssociation]:
    return connect(
        peer.host, peer.port, calling=ours, called=AeTitle(peer.ae_title), contexts=contexts
    )


def _question(sop_class_uid: Uid) -> ProposedContext:
    return ProposedContext(sop_class_uid, PROPOSED)


async def _sop_classes(peer: Peer, ours: AeTitle, study_instance_uid: str) -> list[str]:
    """Ask which SOP classes the study holds; where the peer cannot tell, guess the usual ones."""
    async with _called(peer, ours, [_question(STUDY_ROOT_FIND)]) as association:
        if not association.contexts:
            return list(_GUESSED)
        context = association.context(STUDY_ROOT_FIND)
        identifier = write_identifier(
            {
                QUERY_RETRIEVE_LEVEL: "STUDY",
                STUDY_INSTANCE_UID: study_instance_uid,
                SOP_CLASSES_IN_STUDY: "",
            },
            character_set="",
            transfer_syntax_uid=context.transfer_syntax,
        )
        classes: list[str] = []
        async for response in association.find(context, identifier):
            if response.data_set:
                found = read_identifier(response.data_set, context.transfer_syntax)
                classes += [
                    uid for uid in str(found.keys.get(SOP_CLASSES_IN_STUDY, "")).split("\\") if uid
                ]
    return classes or list(_GUESSED)


def _storage_contexts(classes: Sequence[str]) -> list[ProposedContext]:
    """Offer to receive each class uncompressed and, while there is room, as it may be stored."""
    wanted = list(dict.fromkeys(classes))[:_CONTEXTS_MAX]
    each = _COMPRESSED[: _CONTEXTS_MAX // len(wanted) - 1]
    return [
        ProposedContext(Uid(uid), syntaxes, scu=False, scp=True)
        for uid in wanted
        for syntaxes in (PROPOSED, *((syntax,) for syntax in each))
    ]


_CONTEXTS_MAX: Final = 127
"""Beside the one that asks; their numbers are odd and fit into a byte (PS3.8 9.3.2.2)."""

_HELD: Final = (
    *(JPEG_LOSSLESS_SV1, JPEG_2000_LOSSLESS, JPEG_BASELINE, JPEG_2000, JPEG_LS_LOSSLESS),
    *(RLE_LOSSLESS, JPEG_EXTENDED, JPEG_LS_NEAR_LOSSLESS, HTJ2K_LOSSLESS, JPEG_LOSSLESS),
)
"""What archives hold, the likelier first: a study of many classes leaves room for a few."""

_USUAL: Final = tuple(
    f"1.2.840.10008.5.1.4.1.1.{end}"
    for end in (
        *("1", "1.1", "1.2", "2", "2.1", "3.1", "4", "4.1", "6.1", "7", "7.2", "7.4", "9.1.1"),
        *("11.1", "12.1", "12.2", "13.1.3", "20", "66", "66.1", "66.4", "77.1.1", "77.1.4"),
        *("88.11", "88.22", "88.33", "88.50", "88.59", "88.67", "104.1", "104.2", "128", "130"),
        *("481.1", "481.2", "481.3", "481.4", "481.5", "481.8"),
    )
)
"""What hospitals make every day; the order of the standard's list, in which there is no room for
all, has positrons, reports, documents and radiotherapy at its end."""

_GUESSED: Final = tuple(dict.fromkeys((*_USUAL, *STORAGE_SOP_CLASSES)))

_COMPRESSED: Final = tuple(
    dict.fromkeys((*_HELD, *(one.uid for one in TRANSFER_SYNTAXES.values() if one.is_encapsulated)))
)


def _identifier(context: PresentationContext, study_instance_uid: str) -> bytes:
    return write_identifier(
        {QUERY_RETRIEVE_LEVEL: "STUDY", STUDY_INSTANCE_UID: study_instance_uid},
        character_set="",
        transfer_syntax_uid=context.transfer_syntax,
    )


class _Receiver:
    """Hands what a C-GET brings to the archive."""

    def __init__(self, house: House, peer: Peer) -> None:
        self._archive = house.archive
        self._max_bytes = house.settings.of(ArchiveSettings).largest_object_bytes
        self._origin = Origin(
            door="dimse",
            actor=peer.ae_title,
            address=peer.host,
            default_issuer_of_patient_id=peer.default_issuer_of_patient_id,
        )

    def receive(self, request: Request) -> _CollectingSink:
        meta = FileMeta(
            media_storage_sop_class_uid=request.affected_sop_class_uid,
            media_storage_sop_instance_uid=request.affected_sop_instance_uid,
            transfer_syntax_uid=request.context.transfer_syntax,
            implementation_class_uid=IMPLEMENTATION_CLASS_UID,
            implementation_version_name=IMPLEMENTATION_VERSION_NAME,
            source_application_entity_title=request.caller.calling_ae_title,
        )
        return _CollectingSink(self._archive, self._origin, meta, self._max_bytes)


class _CollectingSink:
    """Collects one object and stores it; this process is not the keeper, so it is handed over."""

    def __init__(self, archive: Archive, origin: Origin, meta: FileMeta, max_bytes: int) -> None:
        self._archive, self._origin, self._meta = archive, origin, meta
        self._max_bytes = max_bytes
        self._spool = Spool(archive.scratch_folder(), max_bytes=max_bytes)

    def write(self, fragment: memoryview) -> None:
        if self._spool.size + len(fragment) > self._max_bytes:
            raise Invalid(
                f"Instance {self._meta.media_storage_sop_instance_uid} was not stored.",
                why=f"It is larger than {self._max_bytes} bytes.",
                remedy="Raise `archive.largest_object_bytes` if such objects are wanted.",
            )
        self._spool.write(fragment)

    async def finish(self) -> Answer:
        result = await asyncio.to_thread(self._store)
        is_conflict = result.outcome is Outcome.CONFLICT
        return Answer(WARNING_COERCION if is_conflict else SUCCESS)

    def _store(self) -> StoreResult:
        with self._spool as spool:
            return self._archive.store(self._origin, self._meta, spool.value())

    def abandon(self) -> None:
        self._spool.close()
