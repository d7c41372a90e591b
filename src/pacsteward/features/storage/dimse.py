"""C-STORE: what a modality sends is safe in the archive before it hears Success.

Enters: C-STORE requests with their data sets, in whatever transfer syntax was agreed. Leaves: the
archive's verdict as a status.

References
----------
PS3.4 B.2.3 — statuses of C-STORE; PS3.4 B.5 — the Storage SOP classes; PS3.7 9.1.1.
"""

from __future__ import annotations

from pacsteward.archive import Incoming, Origin, Outcome, StoreResult
from pacsteward.dicom.dimse import Answer, CommandField, DataSink, Request
from pacsteward.dicom.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, FileMeta
from pacsteward.dicom.status import SUCCESS, WARNING_COERCION
from pacsteward.feature import DimseService, House
from pacsteward.features.storage.settings import StorageSettings
from pacsteward.features.storage.sop_classes import is_accepted


def accepts(house: House, sop_class_uid: str) -> bool:
    """Say whether objects of this SOP class are taken."""
    return is_accepted(house.settings.of(StorageSettings), sop_class_uid)


def receive(house: House, request: Request) -> DataSink:
    """Open the archive for one object of `request`'s caller."""
    caller = request.caller
    peer = house.peers.get(caller.calling_ae_title)
    origin = Origin(
        door="dimse",
        actor=caller.calling_ae_title,
        address=caller.address,
        association_id=caller.association_id,
        called_ae_title=caller.called_ae_title,
        default_issuer_of_patient_id=peer.default_issuer_of_patient_id if peer else "",
    )
    meta = FileMeta(
        media_storage_sop_class_uid=request.affected_sop_class_uid,
        media_storage_sop_instance_uid=request.affected_sop_instance_uid,
        transfer_syntax_uid=request.context.transfer_syntax,
        implementation_class_uid=IMPLEMENTATION_CLASS_UID,
        implementation_version_name=IMPLEMENTATION_VERSION_NAME,
        source_application_entity_title=caller.calling_ae_title,
    )
    return StoreSink(house.archive.receive(origin, meta), house.settings.of(StorageSettings))


class StoreSink:
    """Passes one arriving object to the archive and turns its verdict into an answer."""

    def __init__(self, incoming: Incoming, settings: StorageSettings) -> None:
        self._incoming = incoming
        self._settings = settings
        self.write = incoming.write
        self.abandon = incoming.abandon

    async def finish(self) -> Answer:
        """Answer once the archive has the object safe, or says why it has not."""
        return answer_for(await self._incoming.finish(), self._settings)


def answer_for(result: StoreResult, settings: StorageSettings) -> Answer:
    """Choose the status for `result`.

    A doubtful but kept object is a plain Success unless the site asks otherwise: many devices take
    every warning for a failure and send again for ever. A conflict always is a warning, since the
    sender must not believe that its version is the one now shown.
    """
    if result.outcome is Outcome.CONFLICT:
        return Answer(WARNING_COERCION, comment="Other content is stored under this UID; both kept")
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
