"""The vault: images kept, found, hidden and removed. `Archive` is its front door.

Inner modules belong to this package alone; what other floors need is listed here.
"""

from pacsteward.archive.archive import Archive
from pacsteward.archive.arena import Parcel, Shelf
from pacsteward.archive.at_once import Enclosed, file_head
from pacsteward.archive.bulk import BulkData
from pacsteward.archive.courier import Courier, Letter, Reply
from pacsteward.archive.doubtful import ConflictingContent, DoubtfulStudy, SetAside, Waiting
from pacsteward.archive.events import (
    ContentConflicted,
    InstancesDeleted,
    InstancesRejected,
    InstancesRestored,
    InstancesStored,
    RecordSetAside,
    StudyArrived,
    StudyCompleted,
)
from pacsteward.archive.line import Undelivered
from pacsteward.archive.missing_index import holds_images, refuse_missing_index
from pacsteward.archive.model import (
    Damage,
    DoesNotMatch,
    Incoming,
    Instance,
    Location,
    Match,
    Origin,
    Outcome,
    PromptIncoming,
    Selection,
    Space,
    StoreResult,
    VerifyReport,
)
from pacsteward.archive.prompt import PromptArchive
from pacsteward.archive.read import StoredObject
from pacsteward.archive.settings import ArchiveSettings

__all__ = [
    "Archive",
    "ArchiveSettings",
    "BulkData",
    "ConflictingContent",
    "ContentConflicted",
    "Courier",
    "Damage",
    "DoesNotMatch",
    "DoubtfulStudy",
    "Enclosed",
    "Incoming",
    "Instance",
    "InstancesDeleted",
    "InstancesRejected",
    "InstancesRestored",
    "InstancesStored",
    "Letter",
    "Location",
    "Match",
    "Origin",
    "Outcome",
    "Parcel",
    "PromptArchive",
    "PromptIncoming",
    "RecordSetAside",
    "Reply",
    "Selection",
    "SetAside",
    "Shelf",
    "Space",
    "StoreResult",
    "StoredObject",
    "StudyArrived",
    "StudyCompleted",
    "Undelivered",
    "VerifyReport",
    "Waiting",
    "file_head",
    "holds_images",
    "refuse_missing_index",
]
