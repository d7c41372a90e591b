"""C-STORE: what a modality sends is safe in the archive before it hears Success.

Enters: C-STORE requests with their data sets, in whatever transfer syntax was agreed. Leaves: the
archive's verdict as a status.

References
----------
PS3.4 B.2.3 — statuses of C-STORE; PS3.4 B.5 — the Storage SOP classes; PS3.7 9.1.1.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache, partial
from typing import cast

from pacsteward.archive import Incoming, Origin, Outcome, PromptIncoming, StoreResult
from pacsteward.base.errors import PacstewardError
from pacsteward.dicom.dimse import Answer, Caller, CommandField, DataSink, Request
from pacsteward.dicom.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, FileMeta
from pacsteward.dicom.status import (
    SUCCESS,
    WARNING_COERCION,
    WARNING_DATA_SET_DOES_NOT_MATCH,
)
from pacsteward.feature import DimseService, House
from pacsteward.features.storage.settings import StorageSettings
from pacsteward.features.storage.sop_classes import is_accepted
from pacsteward.features.storage.statuses import refusal_status
from pacsteward.security import PeerBook

log = logging.getLogger(__name__)


def accepts(house: House, sop_class_uid: str) -> bool:
    """Say whether objects of this SOP class are taken."""
    return is_accepted(house.settings.of(StorageSettings), sop_class_uid)


def receive(house: House, request: Request) -> DataSink:
    """Open the archive for one object of `request`'s caller."""
    origin = _origin(house.peers, request.caller)
    meta = FileMeta(
        media_storage_sop_class_uid=request.affected_sop_class_uid,
        media_storage_sop_instance_uid=request.affected_sop_instance_uid,
        transfer_syntax_uid=request.context.transfer_syntax,
        implementation_class_uid=IMPLEMENTATION_CLASS_UID,
        implementation_version_name=IMPLEMENTATION_VERSION_NAME,
        source_application_entity_title=origin.actor,
    )
    try:
        incoming = house.archive.receive(origin, meta)
    except PacstewardError as error:
        return _Refusal(refusal(error))
    return StoreSink(incoming, house.settings.of(StorageSettings))


@lru_cache(maxsize=1024)
def _origin(peers: PeerBook, caller: Caller) -> Origin:
    """Look a caller up once for each association: a change counts from its next one on."""
    title = caller.calling_ae_title
    peer = peers.get(title)
    return Origin(
        door="dimse",
        actor=title,
        address=caller.address,
        association_id=caller.association_id,
        called_ae_title=caller.called_ae_title,
        default_issuer_of_patient_id=peer.default_issuer_of_patient_id if peer else "",
    )


class StoreSink:
    """Passes one arriving object to the archive and turns its verdict into an answer."""

    def __init__(self, incoming: Incoming, settings: StorageSettings) -> None:
        self._incoming = incoming
        self._settings = settings
        self.write = incoming.write
        self.is_behind = incoming.is_behind
        self.catch_up = incoming.catch_up
        self.abandon = incoming.abandon

    def finish_soon(self, tell: Callable[[Answer], None]) -> bool:
        """Have the answer told once the archive has the object safe, or says why it has not."""
        if not hasattr(self._incoming, "hand_in"):
            return False
        return cast(PromptIncoming, self._incoming).hand_in(partial(self._told, tell))

    def _told(self, tell: Callable[[Answer], None], result: StoreResult | PacstewardError) -> None:
        if isinstance(result, PacstewardError):
            tell(refusal(result))
        else:
            tell(answer_for(result, self._settings))

    async def finish(self) -> Answer:
        """Answer once the archive has the object safe, or says why it has not."""
        try:
            result = await self._incoming.finish()
        except PacstewardError as error:
            return refusal(error)
        return answer_for(result, self._settings)


class _Refusal:
    """Lets an object pass by that the archive does not take at the moment."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def write(self, fragment: memoryview) -> None:
        """Take nothing."""

    async def finish(self) -> Answer:
        """Say why."""
        return self._answer

    def abandon(self) -> None:
        """Have nothing to leave behind."""


def refusal(error: PacstewardError) -> Answer:
    """Answer for an object that was not kept, with the reason as comment."""
    status = refusal_status(error)
    log.info("C-STORE was answered with %04XH: %s", status, error)
    # 64 characters (VR LO) are few; that nothing was stored the status says already.
    return Answer(status, comment=error.why or error.what)


def answer_for(result: StoreResult, settings: StorageSettings) -> Answer:
    """Choose the status for `result`.

    A doubtful but kept object is a plain Success unless the site asks otherwise: many devices take
    every warning for a failure and send again for ever. A conflict always is a warning, since the
    sender must not believe that its version is the one now shown; so is an image that lacks pixels,
    since it may have been cut on its way.
    """
    if result.outcome is Outcome.CONFLICT:
        return Answer(WARNING_COERCION, comment="Other content is stored under this UID; both kept")
    if result.shortage:
        return Answer(WARNING_DATA_SET_DOES_NOT_MATCH, comment=result.shortage)
    if result.warnings and settings.warn_on_doubt:
        return Answer(WARNING_COERCION, comment=result.warnings[0])
    return Answer(SUCCESS)


STORAGE = DimseService(
    name="storage",
    commands=frozenset({CommandField.C_STORE}),
    accepts=accepts,
    permission="studies.store",
    transfer_syntaxes=None,
    receive=receive,
    allows_scp_role=True,
)
