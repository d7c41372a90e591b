"""Which SOP classes are taken, through whatever door they come.

References
----------
PS3.4 B.5 — the Storage SOP classes; PS3.6 chapter 8 — the root of the standard's UIDs.
"""

from __future__ import annotations

from typing import Final

from pacsteward.dicom.uids import is_storage_sop_class
from pacsteward.features.storage.settings import StorageSettings

STORAGE_ROOT: Final = "1.2.840.10008.5.1.4.1.1."
"""Storage classes are below it, also those of editions that are newer than this version: each year
brings some, and an archive that refuses them loses images."""

DICOM_ROOT: Final = "1.2.840.10008."
"""Every SOP class of the standard is below it; anything else is private."""


def is_accepted(settings: StorageSettings, sop_class_uid: str) -> bool:
    """Say whether objects of this SOP class are taken; an object without one is of none."""
    if not sop_class_uid or sop_class_uid in settings.refuse_sop_classes:
        return False
    if is_storage_sop_class(sop_class_uid) or sop_class_uid in settings.accept_sop_classes:
        return True
    if sop_class_uid.startswith(STORAGE_ROOT):
        return True
    return settings.accept_private_sop_classes and not sop_class_uid.startswith(DICOM_ROOT)
