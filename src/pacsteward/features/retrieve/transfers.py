"""What the audit book says of transfers: that one begins, and how it ended.

The beginning is written before the first object leaves or is asked for, so that it is there
whatever happens in the middle. The end says what the other side took; it follows within a tenth of
a second and keeps nobody waiting. A beginning without an end is a transfer during which this
process died.

What is sent for C-MOVE and C-GET begins once in each minute for each study and receiver, as a
reader's look does: a workstation may ask for a study image by image. The ends are one for each
request all the same: to add them up would mean to keep them in memory for a minute. Each attempt of
a job has a beginning and an end of its own, and both name the job, so several attempts are seen to
be one deed.

References
----------
PS3.15 A.5.3.3 — Begin Transferring DICOM Instances; A.5.3.7 — DICOM Instances Transferred.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pacsteward.archive import Instance
from pacsteward.base.jobs import this_job
from pacsteward.dicom.dimse import Response
from pacsteward.dicom.status import SUCCESS
from pacsteward.features.retrieve.sub_operations import Tally
from pacsteward.security import (
    Actor,
    AuditBook,
    AuditEntry,
    AuditEvent,
    AuditObject,
    AuditOutcome,
    Participant,
    Peer,
)


@dataclass(frozen=True, slots=True)
class Sending:
    """Who has what sent to whom."""

    by: Actor
    instances: Sequence[Instance]
    receiver: str

    @property
    def studies(self) -> Counter[str]:
        """Number of instances of each study."""
        return Counter(instance.study_instance_uid for instance in self.instances)

    @property
    def patient_ids(self) -> dict[str, None]:
        """Whose they are, in the order of the instances."""
        return dict.fromkeys(one.patient_id for one in self.instances if one.patient_id)

    @property
    def participants(self) -> tuple[Participant, ...]:
        """Who else takes part."""
        return (Participant(self.receiver, role="destination"),)


def record_leaving(audit: AuditBook, sending: Sending) -> None:
    """Record that a sending begins, before any of it leaves. Blocks.

    Raises
    ------
    Unavailable
        So many entries wait for the book that nothing more may be done that has to stand in it.
    """
    # For the end, which is taken in any case; within a minute a beginning may cost nothing.
    audit.make_room()
    what = (
        f"{sending.by.name} has {_instances(len(sending.instances))} sent to "
        f"{sending.receiver}{_of_job()}."
    )
    if this_job().job_id:
        audit.record_or_keep(
            AuditEntry(
                event=AuditEvent.BEGIN_TRANSFERRING,
                action="E",
                actor=sending.by,
                what=what,
                objects=(
                    *(AuditObject("study", uid) for uid in sending.studies),
                    *(AuditObject("patient", patient_id) for patient_id in sending.patient_ids),
                    *_job(),
                ),
                participants=sending.participants,
            )
        )
        return
    audit.record_access(
        sending.by,
        sending.studies,
        patient_ids=sending.patient_ids,
        what=what,
        event=AuditEvent.BEGIN_TRANSFERRING,
        action="E",
        participants=sending.participants,
    )


@contextmanager
def sent(audit: AuditBook, sending: Sending) -> Iterator[Tally]:
    """Give the tally of a sending; when it is over, however it ended, record what arrived."""
    tally = Tally(total=len(sending.instances))
    try:
        yield tally
    finally:
        if tally.total:
            audit.record_soon(_end_of_sending(sending, tally))


def _end_of_sending(sending: Sending, tally: Tally) -> AuditEntry:
    arrived = tally.completed + tally.warning
    words = [
        f"{sending.by.name} had {arrived} of {_instances(tally.total)} sent to "
        f"{sending.receiver}{_of_job()}."
    ]
    if tally.failed:
        words.append(f"{tally.failed} failed.")
    if tally.done < tally.total:
        # Of one that was on the wire nobody knows.
        left = tally.total - tally.done
        words.append(f"It was cancelled or broken off: {left} were not confirmed.")
    return AuditEntry(
        event=AuditEvent.INSTANCES_TRANSFERRED,
        action="C",
        actor=sending.by,
        what=" ".join(words),
        outcome=AuditOutcome.SUCCESS if arrived == tally.total else _failure(arrived),
        objects=(
            *_arrived(sending, tally),
            *(AuditObject("patient", patient_id) for patient_id in sending.patient_ids),
            *_job(),
        ),
        participants=sending.participants,
    )


def _arrived(sending: Sending, tally: Tally) -> Iterator[AuditObject]:
    """Give each study with how many of its instances arrived.

    Of several studies, nobody knows which ones were confirmed when it was broken off.
    """
    studies = sending.studies
    counts: dict[str, int | None] = dict(studies)
    if len(studies) == 1:
        counts = dict.fromkeys(studies, tally.completed + tally.warning)
    elif tally.done < tally.total:
        counts = dict.fromkeys(studies)
    elif tally.failed:
        study_of = {one.sop_instance_uid: one.study_instance_uid for one in sending.instances}
        studies.subtract(study_of[uid] for uid in tally.failed_uids)
        counts = dict(studies)
    for uid, count in counts.items():
        yield AuditObject("study", uid, number_of_instances=count)


def record_fetching(audit: AuditBook, by: Actor, study_instance_uid: str, source: Peer) -> None:
    """Record that a peer is about to be asked for a study. Blocks.

    Raises
    ------
    Unavailable
        As `record_leaving`.
    """
    # For the end, which is taken in any case.
    audit.make_room()
    audit.record_or_keep(
        AuditEntry(
            event=AuditEvent.BEGIN_TRANSFERRING,
            action="E",
            actor=by,
            what=f"{by.name} has a study fetched from {source.ae_title}{_of_job()}.",
            objects=(AuditObject("study", study_instance_uid), *_job()),
            participants=(_source(source),),
        )
    )


def record_fetched(
    audit: AuditBook, by: Actor, study_instance_uid: str, source: Peer, final: Response | None
) -> None:
    """Record how a fetch ended, soon.

    Parameters
    ----------
    final
        The peer's last answer; None where there was none. Its counters are what the peer says; what
        really came has entries of its own, as all that is received.
    """
    counted = None if final is None else final.sub_operations
    arrived = 0 if counted is None else counted.completed + counted.warning
    told = (
        "it gave no final answer"
        if counted is None
        else f"it says that it sent {_instances(arrived)}, and that {counted.failed} failed"
    )
    is_whole = final is not None and final.status == SUCCESS
    audit.record_soon(
        AuditEntry(
            event=AuditEvent.INSTANCES_TRANSFERRED,
            action="C",
            actor=by,
            what=f"{by.name} had a study fetched from {source.ae_title}{_of_job()}: {told}.",
            outcome=AuditOutcome.SUCCESS if is_whole else _failure(arrived),
            objects=(
                AuditObject("study", study_instance_uid, number_of_instances=arrived),
                *_job(),
            ),
            participants=(_source(source),),
        )
    )


def _source(peer: Peer) -> Participant:
    return Participant(peer.ae_title, peer.host, role="source")


def _failure(arrived: int) -> AuditOutcome:
    """Tell something that is missing from nothing that came."""
    return AuditOutcome.MINOR_FAILURE if arrived else AuditOutcome.SERIOUS_FAILURE


def _instances(count: int) -> str:
    return "1 instance" if count == 1 else f"{count} instances"


def _of_job() -> str:
    job = this_job()
    if not job.job_id:
        return ""
    return f" (job {job.job_id}, attempt {job.attempt})"


def _job() -> tuple[AuditObject, ...]:
    """Return what the entries of all attempts have in common."""
    job_id = this_job().job_id
    return (AuditObject("other", f"jobs/{job_id}"),) if job_id else ()
