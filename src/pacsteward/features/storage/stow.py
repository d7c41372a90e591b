"""What became of the instances of one STOW-RS request, and how the sender is told.

Each instance is handed to the archive by itself; one that is refused never stops the others. The
sender reads which are safe, which are not, and why.

References
----------
PS3.18 10.5.3 (statuses of the Store transaction), Annex I (Store Instances Response Module, its
Warning and Failure Reasons); PS3.4 B.2.3.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pacsteward.archive import (
    Archive,
    Courier,
    Letter,
    Origin,
    Outcome,
    Parcel,
    Reply,
    StoreResult,
    Undelivered,
)
from pacsteward.base.errors import Exhausted, Invalid, PacstewardError, Unavailable
from pacsteward.dicom.fragments import Fragments
from pacsteward.dicom.header import Header, read_header
from pacsteward.dicom.part10 import FileMeta, split_part10
from pacsteward.dicom.status import (
    CANNOT_UNDERSTAND,
    SOP_CLASS_NOT_SUPPORTED,
    WARNING_COERCION,
    WARNING_DATA_SET_DOES_NOT_MATCH,
)
from pacsteward.features.storage.settings import StorageSettings
from pacsteward.features.storage.sop_classes import is_accepted
from pacsteward.features.storage.statuses import refusal_status

_log: Final = logging.getLogger(__name__)

RETRIEVE_URL: Final = "00081190"
FAILED_SOP_SEQUENCE: Final = "00081198"
REFERENCED_SOP_SEQUENCE: Final = "00081199"
OTHER_FAILURES_SEQUENCE: Final = "0008119A"

STUDY_MISMATCH: Final = 0xA901
"""The instance belongs to another study than the one that the URL names."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One instance is safe."""

    result: StoreResult
    warning: int = 0

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing to warn of."""
        return not self.warning


@dataclass(frozen=True, slots=True)
class Failed:
    """One part of the request was not kept.

    Parameters
    ----------
    reason
        Failure Reason (0008,1197).
    sop_class_uid, sop_instance_uid
        Empty when the part could not be read as far as that.
    """

    reason: int
    error: PacstewardError
    sop_class_uid: str = ""
    sop_instance_uid: str = ""


Verdict = Stored | Failed

_NOTHING: Final = memoryview(b"")


async def store_parcels(
    courier: Courier,
    settings: StorageSettings,
    origin: Origin,
    parcels: Sequence[Parcel],
    *,
    study_instance_uid: str = "",
) -> list[Verdict | None]:
    """Keep instances that lie in shared memory, those about which there is nothing unusual.

    Parameters
    ----------
    parcels
        Each a whole Part 10 file.

    Returns
    -------
    list of Verdict or None
        None where `store_instance` has to look at it: what the file says in front is not what the
        data set says, it cannot be read, or the keeper went away. That it was sent already does no
        harm; to store the same again changes nothing.
    """
    verdicts: list[Verdict | None] = [None] * len(parcels)
    letters: list[Letter] = []
    places: list[int] = []
    for place, parcel in enumerate(parcels):
        letter = await _letter(courier, settings, origin, parcel, study_instance_uid)
        if isinstance(letter, Letter):
            letters.append(letter)
            places.append(place)
        else:
            verdicts[place] = letter
    replies = await courier.send(letters) if letters else []
    for place, letter, reply in zip(places, letters, replies, strict=True):
        verdicts[place] = _verdict(letter, reply, settings)
    return verdicts


async def _letter(
    courier: Courier,
    settings: StorageSettings,
    origin: Origin,
    parcel: Parcel,
    study_instance_uid: str,
) -> Letter | Failed | None:
    head = next(parcel.views(), _NOTHING)
    try:
        meta, offset = split_part10(head)
        # Where the first piece ends, the file meta information may go on in the next one.
        if offset + 2 > len(head) or not _is_plain(settings, meta):
            return None
        letter = await courier.letter(origin, meta, parcel, offset)
    except (Invalid, Undelivered):
        return None
    except PacstewardError as error:
        return _failed(error, meta.media_storage_sop_class_uid, meta.media_storage_sop_instance_uid)
    except Exception:  # noqa: BLE001
        # Of one instance; the others are stored, and of this one the thread says what it is.
        _log.exception("An instance could not be examined in shared memory.")
        return None
    is_of_study = letter.stored.study_instance_uid == study_instance_uid or not study_instance_uid
    return letter if is_of_study else None


def _verdict(letter: Letter, reply: Reply, settings: StorageSettings) -> Verdict | None:
    if reply is None or isinstance(reply, Invalid):
        return None
    if isinstance(reply, PacstewardError):
        return _failed(reply, letter.stored.sop_class_uid, letter.stored.sop_instance_uid)
    return Stored(reply, _warning_reason(reply, settings))


def _failed(error: PacstewardError, sop_class_uid: str, sop_instance_uid: str) -> Failed:
    return Failed(refusal_status(error), error, sop_class_uid, sop_instance_uid)


def _is_plain(settings: StorageSettings, meta: FileMeta) -> bool:
    """Whether the keeper finds out by itself that the data set is of a class that is accepted.

    It refuses a data set that is of another class, or another instance, than is said in front;
    where nothing is said it has nothing to compare.
    """
    sop_class_uid = meta.media_storage_sop_class_uid
    is_named = bool(sop_class_uid and meta.media_storage_sop_instance_uid)
    return is_named and is_accepted(settings, sop_class_uid)


def store_instance(
    archive: Archive,
    settings: StorageSettings,
    origin: Origin,
    data: memoryview,
    *,
    study_instance_uid: str = "",
) -> Verdict:
    """Keep one instance. Blocks until it is safe.

    Parameters
    ----------
    data
        A whole Part 10 file.
    study_instance_uid
        The study that it must belong to; empty for any.
    """
    try:
        meta, offset = split_part10(data)
    except PacstewardError as error:
        return Failed(CANNOT_UNDERSTAND, error)
    named = (meta.media_storage_sop_class_uid, meta.media_storage_sop_instance_uid)
    try:
        data_set = data[offset:]
        header = read_header(Fragments([data_set]), meta.transfer_syntax_uid)
        meta = _corrected(meta, header)
        named = (meta.media_storage_sop_class_uid, meta.media_storage_sop_instance_uid)
        _check_study(header, study_instance_uid)
        _check_class(settings, meta)
        result = archive.store(origin, meta, data_set)
    except _Refused as error:
        return Failed(error.reason, error, *named)
    except PacstewardError as error:
        return _failed(error, *named)
    return Stored(result, _warning_reason(result, settings))


def _warning_reason(result: StoreResult, settings: StorageSettings) -> int:
    """Choose the Warning Reason (0008,1196) as C-STORE chooses its status; 0 for none."""
    if result.outcome is Outcome.CONFLICT:
        return WARNING_COERCION
    if result.shortage:
        return WARNING_DATA_SET_DOES_NOT_MATCH
    return WARNING_COERCION if result.warnings and settings.warn_on_doubt else 0


def _corrected(meta: FileMeta, header: Header) -> FileMeta:
    """Return the file meta information with the identity that the data set has.

    Tools that give an object a new UID often forget the copy of it in front, so in a file the data
    set is believed. (On the wire, C-STORE, the two differ only when something is badly wrong, and
    the object is refused there.)
    """
    return replace(
        meta,
        media_storage_sop_class_uid=header.sop_class_uid or meta.media_storage_sop_class_uid,
        media_storage_sop_instance_uid=(
            header.sop_instance_uid or meta.media_storage_sop_instance_uid
        ),
    )


class _Refused(Invalid):
    """We refuse the instance for a reason that has a number of its own."""

    def __init__(self, reason: int, what: str, *, why: str, remedy: str) -> None:
        super().__init__(what, why=why, remedy=remedy)
        self.reason = reason


def _check_study(header: Header, wanted: str) -> None:
    if wanted and header.study_instance_uid != wanted:
        raise _Refused(
            STUDY_MISMATCH,
            "The instance was not stored.",
            why=f"It belongs to study {header.study_instance_uid}, and the request names {wanted}.",
            remedy="Send it to the study that it belongs to, or to /studies.",
        )


def _check_class(settings: StorageSettings, meta: FileMeta) -> None:
    uid = meta.media_storage_sop_class_uid
    if not is_accepted(settings, uid):
        raise _Refused(
            SOP_CLASS_NOT_SUPPORTED,
            "The instance was not stored.",
            why=f"SOP class {uid} is not accepted here.",
            remedy="Allow it in the settings: storage.accept_sop_classes.",
        )


def http_status(verdicts: Sequence[Verdict]) -> int:
    """Choose the status of the answer, PS3.18 table 10.5.3-1.

    When nothing was kept for want of room or of something that is away, the answer says so (507,
    503) instead of 409: the sender is to try again, not to correct anything.
    """
    failed = [verdict for verdict in verdicts if isinstance(verdict, Failed)]
    if len(failed) < len(verdicts):
        is_plain = not failed and all(
            isinstance(verdict, Stored) and verdict.is_plain for verdict in verdicts
        )
        return 200 if is_plain else 202
    if failed and all(isinstance(verdict.error, Exhausted) for verdict in failed):
        return 507
    if failed and all(isinstance(verdict.error, Exhausted | Unavailable) for verdict in failed):
        return 503
    return 409


def response_data_set(verdicts: Sequence[Verdict], service_url: str) -> dict[str, Any]:
    """Write the Store Instances Response Module as DICOM JSON.

    Parameters
    ----------
    service_url
        Absolute URL of the service, without a slash at its end.
    """
    stored = [verdict for verdict in verdicts if isinstance(verdict, Stored)]
    failed = [verdict for verdict in verdicts if isinstance(verdict, Failed)]
    named = [verdict for verdict in failed if verdict.sop_instance_uid]
    others = [verdict for verdict in failed if not verdict.sop_instance_uid]
    answer: dict[str, Any] = {}
    studies = {verdict.result.study_instance_uid for verdict in stored}
    if len(studies) == 1:
        answer[RETRIEVE_URL] = _url(f"{service_url}/studies/{studies.pop()}")
    if named:
        answer[FAILED_SOP_SEQUENCE] = _sequence([_failed_item(verdict) for verdict in named])
    if stored:
        answer[REFERENCED_SOP_SEQUENCE] = _sequence(
            [_stored_item(verdict, service_url) for verdict in stored]
        )
    if others:
        answer[OTHER_FAILURES_SEQUENCE] = _sequence([_reason(verdict) for verdict in others])
    return answer


def remarks(verdicts: Sequence[Verdict]) -> tuple[str, ...]:
    """Say in words why instances were refused, each reason once.

    The module has numbers only, and a number alone has sent many an administrator to the log
    files; the words go into the Warning header.
    """
    said = [
        verdict.error.why or verdict.error.what
        for verdict in verdicts
        if isinstance(verdict, Failed)
    ]
    return tuple(dict.fromkeys(said))[:5]


def _stored_item(verdict: Stored, service_url: str) -> dict[str, Any]:
    result = verdict.result
    item = {
        "00081150": _uid(result.sop_class_uid),
        "00081155": _uid(result.sop_instance_uid),
        RETRIEVE_URL: _url(
            f"{service_url}/studies/{result.study_instance_uid}/series/"
            f"{result.series_instance_uid}/instances/{result.sop_instance_uid}"
        ),
    }
    if verdict.warning:
        item["00081196"] = {"vr": "US", "Value": [verdict.warning]}
    return item


def _failed_item(verdict: Failed) -> dict[str, Any]:
    return {
        "00081150": _uid(verdict.sop_class_uid),
        "00081155": _uid(verdict.sop_instance_uid),
        **_reason(verdict),
    }


def _reason(verdict: Failed) -> dict[str, Any]:
    return {"00081197": {"vr": "US", "Value": [verdict.reason]}}


def _sequence(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"vr": "SQ", "Value": items}


def _uid(uid: str) -> dict[str, Any]:
    return {"vr": "UI", "Value": [uid]} if uid else {"vr": "UI"}


def _url(url: str) -> dict[str, Any]:
    return {"vr": "UR", "Value": [url]}
