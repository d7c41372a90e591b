"""Facts that the archive announces, in the same transaction as the change itself.

A fact names what it is about by UID; whoever wants to know more asks the archive, which may know
more by then. Facts are kept as JSON, so their fields are texts, numbers and tuples of them. They
are kept for long and hold no patient data.
"""

from __future__ import annotations

from dataclasses import dataclass

from pacsteward.base.events import Fact


@dataclass(frozen=True, slots=True)
class StudyArrived(Fact):
    """The first instance of a study is here; more will follow."""

    study_instance_uid: str
    source_name: str


@dataclass(frozen=True, slots=True)
class InstancesStored(Fact):
    """Instances of one series were stored by one sender, in one batch of the index."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uids: tuple[str, ...]
    source_name: str
    association_id: str


@dataclass(frozen=True, slots=True)
class StudyCompleted(Fact):
    """Nothing was added to a study for the quiet time; announced again after late arrivals."""

    study_instance_uid: str
    number_of_instances: int
    version: int


@dataclass(frozen=True, slots=True)
class InstancesRejected(Fact):
    """Instances of one series are hidden from readers now."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uids: tuple[str, ...]
    code: str
    """Why, as a code of PS3.16 CID 7011 with its scheme: ``113001^DCM``."""
    actor: str


@dataclass(frozen=True, slots=True)
class InstancesRestored(Fact):
    """Instances of one series that had been rejected are shown again."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uids: tuple[str, ...]
    actor: str


@dataclass(frozen=True, slots=True)
class InstancesDeleted(Fact):
    """Instances of one series are gone for good."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uids: tuple[str, ...]
    actor: str


@dataclass(frozen=True, slots=True)
class ContentConflicted(Fact):
    """Other content came under a UID that is taken; both are kept, a human decides."""

    conflict_key: int
    study_instance_uid: str
    sop_instance_uid: str
    source_name: str


@dataclass(frozen=True, slots=True)
class RecordSetAside(Fact):
    """An acknowledged instance could not be indexed; it is kept and shown apart."""

    set_aside_key: int
    sop_instance_uid: str
    why: str
