"""Asking another archive for its studies by C-FIND, as a service class user.

References
----------
PS3.4 C.4.1.2 — behaviour of the SCU; C.2.2.2.4 — wildcards.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from pacsteward.base.errors import Invalid, Unavailable
from pacsteward.base.ids import AeTitle
from pacsteward.dicom.charset import character_set_for
from pacsteward.dicom.dimse import ProposedContext, connect
from pacsteward.dicom.identifier import read_identifier, write_identifier
from pacsteward.dicom.names import display
from pacsteward.dicom.settings import DicomSettings
from pacsteward.dicom.status import CANCEL, SUCCESS
from pacsteward.dicom.tags import (
    ACCESSION_NUMBER,
    MODALITIES_IN_STUDY,
    NUMBER_OF_STUDY_RELATED_INSTANCES,
    PATIENT_ID,
    PATIENT_NAME,
    QUERY_RETRIEVE_LEVEL,
    STUDY_DATE,
    STUDY_DESCRIPTION,
    STUDY_INSTANCE_UID,
    STUDY_TIME,
)
from pacsteward.dicom.uids import PROPOSED, STUDY_ROOT_FIND
from pacsteward.feature import House
from pacsteward.security import (
    Actor,
    AuditEntry,
    AuditEvent,
    AuditObject,
    AuditOutcome,
    Participant,
    Peer,
)

RETURNED: Final = (
    *(PATIENT_NAME, PATIENT_ID, ACCESSION_NUMBER, STUDY_DATE, STUDY_TIME, STUDY_DESCRIPTION),
    *(MODALITIES_IN_STUDY, STUDY_INSTANCE_UID, NUMBER_OF_STUDY_RELATED_INSTANCES),
)
ANSWERS_MAX: Final = 200
"""Then the question is cancelled: a list that long is not read by anybody."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is looked for; empty texts do not restrict."""

    patient_name: str = ""
    patient_id: str = ""
    accession_number: str = ""
    study_date: str = ""

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the keys that restrict the question."""
        values = {
            "PatientName": self.patient_name,
            "PatientID": self.patient_id,
            "AccessionNumber": self.accession_number,
            "StudyDate": self.study_date,
        }
        return tuple(name for name, value in values.items() if value)

    @property
    def is_empty(self) -> bool:
        """Whether nothing restricts the question."""
        return not self.keys


@dataclass(frozen=True, slots=True)
class FoundStudy:
    """One study of the other archive, as it describes it."""

    study_instance_uid: str
    patient_name: str
    patient_id: str
    study_date: str
    study_time: str
    accession_number: str
    study_description: str
    modalities: str
    number_of_instances: str


@dataclass(frozen=True, slots=True)
class Answers:
    """What came back."""

    studies: tuple[FoundStudy, ...]
    is_cut: bool


def find_elsewhere(house: House, ae_title: str, asked: Asked, *, by: Actor) -> Answers:
    """Ask a registered peer which studies it has, and record that. Blocks.

    Parameters
    ----------
    by
        Who asks, for the audit.

    Raises
    ------
    NotFound
        There is no such peer.
    Invalid
        Nothing restricts the question: no archive should be asked for everything.
    Unavailable
        The peer cannot be reached, or answers with a failure.
    """
    peer = house.peers.need(ae_title)
    if asked.is_empty:
        raise Invalid(
            f"{ae_title} was not asked.",
            why="Nothing says which studies are wanted.",
            remedy="Give a name, a patient ID, an accession number or a date.",
        )
    ours = AeTitle(house.settings.of(DicomSettings).ae_title)
    house.audit.make_room()
    answers: Answers | None = None
    try:
        answers = asyncio.run(_ask(peer, ours, asked))
    finally:
        house.audit.record_soon(_entry(by, peer, asked, answers))
    return answers


def _entry(by: Actor, peer: Peer, asked: Asked, answers: Answers | None) -> AuditEntry:
    """Return what the audit book says, as of a search here: by which keys, never for what."""
    keys = ", ".join(asked.keys)
    if answers is None:
        told = "no answer"
    else:
        count = len(answers.studies)
        told = "1 answer" if count == 1 else f"{count} answers"
    return AuditEntry(
        event=AuditEvent.QUERY,
        action="E",
        actor=by,
        what=f"{by.name} searched {peer.ae_title} at STUDY level by {keys}: {told}.",
        outcome=AuditOutcome.SERIOUS_FAILURE if answers is None else AuditOutcome.SUCCESS,
        objects=(
            AuditObject("query", str(STUDY_ROOT_FIND), query=keys),
            AuditObject("peer", peer.ae_title),
        ),
        participants=(Participant(peer.ae_title, peer.host, role="destination"),),
    )


async def _ask(peer: Peer, ours: AeTitle, asked: Asked) -> Answers:
    studies: list[FoundStudy] = []
    async with connect(
        peer.host,
        peer.port,
        calling=ours,
        called=AeTitle(peer.ae_title),
        contexts=[ProposedContext(STUDY_ROOT_FIND, PROPOSED)],
    ) as association:
        context = association.context(STUDY_ROOT_FIND)
        responses = association.find(context, _identifier(asked, context.transfer_syntax))
        async for response in responses:
            if response.is_pending and response.data_set:
                studies.append(_study(response.data_set, context.transfer_syntax))
            elif response.status not in (SUCCESS, CANCEL):
                raise Unavailable(
                    f"{peer.ae_title} did not answer the question.",
                    why=f"It said {response.status:04X} {response.comment}".strip(" .") + ".",
                    remedy="Ask for less, or look into the log of the other archive.",
                )
            if len(studies) >= ANSWERS_MAX:
                await responses.cancel()
                break
    return Answers(tuple(studies), is_cut=len(studies) >= ANSWERS_MAX)


def _identifier(asked: Asked, transfer_syntax_uid: str) -> bytes:
    name = asked.patient_name
    values = dict.fromkeys(RETURNED, "") | {
        QUERY_RETRIEVE_LEVEL: "STUDY",
        # What people type is the beginning of a family name.
        PATIENT_NAME: name if not name or set(name) & set("*?^") else f"{name}*",
        PATIENT_ID: asked.patient_id,
        ACCESSION_NUMBER: asked.accession_number,
        STUDY_DATE: asked.study_date.replace("-", "")
        if len(asked.study_date) == 10
        else asked.study_date,
    }
    return write_identifier(
        values,
        character_set=character_set_for(values.values()),
        transfer_syntax_uid=transfer_syntax_uid,
    )


def _study(data_set: bytes, transfer_syntax_uid: str) -> FoundStudy:
    keys = read_identifier(data_set, transfer_syntax_uid).keys
    text = {tag: str(keys.get(tag, "")) for tag in RETURNED}
    return FoundStudy(
        study_instance_uid=text[STUDY_INSTANCE_UID],
        patient_name=display(text[PATIENT_NAME]),
        patient_id=text[PATIENT_ID],
        study_date=text[STUDY_DATE],
        study_time=text[STUDY_TIME].partition(".")[0],
        accession_number=text[ACCESSION_NUMBER],
        study_description=text[STUDY_DESCRIPTION],
        modalities=text[MODALITIES_IN_STUDY].replace("\\", ", "),
        number_of_instances=text[NUMBER_OF_STUDY_RELATED_INSTANCES],
    )
