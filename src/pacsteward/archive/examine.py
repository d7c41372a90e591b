"""What is looked at before an instance may be acknowledged.

The object must be whole to its last element and must say which instance of which series and study
it is. What is wrong and does not endanger that is a warning: images of a patient without an ID are
kept.

References
----------
PS3.4 B.2.3 (A900: data set does not match SOP Class; A700: out of resources); PS3.5 9.1 (UIDs);
PS3.3 C.12.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pacsteward.archive.digest import identity_doubt
from pacsteward.archive.model import DoesNotMatch, Origin, Outcome, StoreResult
from pacsteward.archive.record import Description
from pacsteward.archive.shortage import pixel_shortage
from pacsteward.base.errors import Invalid
from pacsteward.dicom.header import Header
from pacsteward.dicom.part10 import FileMeta, encode_file_meta
from pacsteward.dicom.uids import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    are_valid_uids,
    is_valid_uid,
    transfer_syntax,
)

READ_ASIDE_BYTES: Final = 1 << 20
"""The header of a larger object is read in a thread: it may have a hundred thousand elements."""

_DOUBTS: Final = {
    "missing": "It has no Patient ID (0010,0020); it is kept, and nobody is its patient yet.",
    "illegal": "Its Patient ID (0010,0020) is not one that DICOM allows; it is kept as it is.",
}


@dataclass(frozen=True, slots=True)
class Examined:
    """An instance that may be kept.

    Parameters
    ----------
    warnings
        What was wrong with it, in words, without patient data.
    shortage
        See `model.StoreResult`.
    """

    description: Description
    file_meta: bytes
    header: Header
    warnings: tuple[str, ...]
    shortage: str

    def stored(self) -> StoreResult:
        """Return what its sender hears once it is safe, if nothing else was to be said."""
        return StoreResult(
            Outcome.STORED,
            self.header.sop_class_uid,
            self.header.sop_instance_uid,
            self.header.study_instance_uid,
            self.header.series_instance_uid,
            self.warnings,
            self.shortage,
        )


def examined(
    header: Header,
    meta: FileMeta,
    origin: Origin,
    received_at: datetime,
    *,
    object_container: str = "",
    object_offset: int = 0,
) -> Examined:
    """Look at what the header says, and return what is written of the instance.

    Parameters
    ----------
    meta
        As the instance was announced.
    object_container, object_offset
        Of a big object, see `record.Description`.

    Raises
    ------
    Invalid
        It does not say which object it is, or says another than was announced.
    """
    check_identity(header, meta)
    syntax = _real_syntax(header)
    doubt = _DOUBTS.get(identity_doubt(header))
    return Examined(
        Description(
            received_at=received_at,
            origin=origin,
            sop_class_uid=header.sop_class_uid,
            sop_instance_uid=header.sop_instance_uid,
            study_instance_uid=header.study_instance_uid,
            series_instance_uid=header.series_instance_uid,
            transfer_syntax_uid=syntax,
            object_container=object_container,
            object_offset=object_offset,
        ),
        encode_file_meta(
            FileMeta(
                header.sop_class_uid,
                header.sop_instance_uid,
                syntax,
                meta.implementation_class_uid,
                meta.implementation_version_name,
                meta.source_application_entity_title,
            )
        ),
        header,
        (*header.warnings, doubt) if doubt else header.warnings,
        pixel_shortage(header),
    )


def check_identity(header: Header, meta: FileMeta) -> None:
    """Refuse what does not say which object it is, or says another than was announced.

    Raises
    ------
    Invalid
        It is so.
    """
    if _is_as_announced(header, meta):
        return
    for value, name in (
        (header.sop_instance_uid, "SOP Instance UID (0008,0018)"),
        (header.sop_class_uid, "SOP Class UID (0008,0016)"),
        (header.study_instance_uid, "Study Instance UID (0020,000D)"),
        (header.series_instance_uid, "Series Instance UID (0020,000E)"),
    ):
        if not is_valid_uid(value):
            found = "It is missing." if not value else "It is no UID (PS3.5 9.1)."
            raise Invalid(
                not_stored(meta),
                why=f"Its {name} cannot be used. {found}",
                remedy="Correct the sender, and send it again.",
            )
    announced = (
        (meta.media_storage_sop_instance_uid, header.sop_instance_uid, "SOP Instance UID"),
        (meta.media_storage_sop_class_uid, header.sop_class_uid, "SOP Class UID"),
    )
    for said, found, name in announced:
        if said and said != found:
            raise DoesNotMatch(
                not_stored(meta),
                why=f"It was announced with {name} {said}, and its data set has {found}.",
                remedy="Correct the sender, and send it again.",
            )


def _is_as_announced(header: Header, meta: FileMeta) -> bool:
    """Say whether all is well, as it nearly always is, with one look at all UIDs."""
    uids = (
        header.sop_instance_uid,
        header.sop_class_uid,
        header.study_instance_uid,
        header.series_instance_uid,
    )
    said = (meta.media_storage_sop_instance_uid, meta.media_storage_sop_class_uid)
    return said == uids[:2] and are_valid_uids(uids)


def not_stored(meta: FileMeta) -> str:
    """Say that an instance was not stored."""
    uid = meta.media_storage_sop_instance_uid
    return f"Instance {uid} was not stored." if is_valid_uid(uid) else "It was not stored."


def too_large(meta: FileMeta, largest_object_bytes: int) -> Invalid:
    """Return what is said of an object that is too large.

    Not that something is exhausted (A700, HTTP 507): a sender takes that for "try again", and the
    same object will never be taken.
    """
    return Invalid(
        not_stored(meta),
        why=f"It is larger than {largest_object_bytes} bytes.",
        remedy="Raise `archive.largest_object_bytes` if such objects are wanted.",
    )


def _real_syntax(header: Header) -> str:
    """Return the transfer syntax by which a data set reads, whatever was announced.

    Readers take the syntax from the index, and would find nothing in a data set whose elements are
    written in another way. Compressed pixels in implicit VR have no name (PS3.5 A.4); those keep
    the one they were announced with.
    """
    announced = transfer_syntax(header.transfer_syntax_uid)
    if announced.is_encapsulated or header.is_implicit_vr == announced.is_implicit_vr:
        return header.transfer_syntax_uid
    return IMPLICIT_VR_LITTLE_ENDIAN if header.is_implicit_vr else EXPLICIT_VR_LITTLE_ENDIAN
