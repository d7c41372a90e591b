"""In which transfer syntax each object and each frame leaves through DICOMweb.

The stored encoding is preferred wherever the client takes it: those are the bytes that were
acknowledged, and they cost nothing. Where it does not, the object is converted without loss.

References
----------
PS3.18 8.7.3 (media types and transfer syntaxes, their defaults), 8.7.3.5.2 (transfer-syntax
parameter), 10.4.1.1 (retrieve), 10.4.1.1.6 (frames).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from pacsteward.archive import Instance
from pacsteward.dicom.frames import FrameTable
from pacsteward.dicom.media import media_type
from pacsteward.dicom.transcode import can_transcode
from pacsteward.dicom.web.negotiation import (
    ANY_TRANSFER_SYNTAX,
    DICOM,
    EXPLICIT_VR_LITTLE_ENDIAN,
    JPEG,
    OCTET_STREAM,
    PNG,
    ZIP,
    MediaType,
    Offer,
    accepted,
    choose,
    not_acceptable,
    transfer_syntaxes,
)

UNREADABLE_IN_BROWSERS: Final = frozenset(
    {
        "1.2.840.10008.1.2.4.53",
        "1.2.840.10008.1.2.4.55",
        "1.2.840.10008.1.2.4.110",
        "1.2.840.10008.1.2.4.111",
        "1.2.840.10008.1.2.4.112",
    }
)
"""No viewer in a browser decodes these, OHIF 3.13 among them: it says "No decoder" and stays black.
Who takes any transfer syntax gets such frames decoded."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One object and the transfer syntax in which it will leave."""

    instance: Instance
    transfer_syntax_uid: str

    @property
    def is_as_stored(self) -> bool:
        """Whether the stored bytes leave as they are."""
        return self.transfer_syntax_uid == self.instance.transfer_syntax_uid


@dataclass(frozen=True, slots=True)
class Plan:
    """What of the objects asked for can leave."""

    planned: tuple[Planned, ...]
    is_complete: bool
    """Whether that is all of them."""


def object_offers(*, is_single: bool, is_study: bool) -> tuple[Offer, ...]:
    """List the forms in which whole objects are given, our preference first."""
    offers = [Offer(DICOM, is_multipart=True)]
    if is_single:
        offers.append(Offer(DICOM))
    if is_study:
        offers.append(Offer(ZIP))
    return tuple(offers)


def plan(instances: Iterable[Instance], ranges: Sequence[MediaType]) -> Plan:
    """Choose a transfer syntax for each object.

    Raises
    ------
    NotAcceptable
        None of the objects can be given in any that the client takes.
    """
    wanted = _wanted(ranges)
    chosen: dict[str, str | None] = {}
    planned = []
    is_complete = True
    for instance in instances:
        stored = instance.transfer_syntax_uid
        if stored not in chosen:
            chosen[stored] = _choose(stored, wanted)
        target = chosen[stored]
        if target is None:
            is_complete = False
        else:
            planned.append(Planned(instance, target))
    if not planned:
        raise not_acceptable([_stored_offer(uid) for uid in chosen])
    return Plan(tuple(planned), is_complete)


def _wanted(ranges: Sequence[MediaType]) -> Sequence[tuple[str | None, float]]:
    return transfer_syntaxes(ranges, DICOM) or ((None, 1.0),)


def _stored_offer(uid: str) -> Offer:
    return Offer(DICOM, is_multipart=True, transfer_syntax=uid)


def _choose(stored: str, wanted: Sequence[tuple[str | None, float]]) -> str | None:
    """Return the best syntax; the stored one among equally good ones."""
    possible = [
        (quality, target == stored, target)
        for named, quality in wanted
        if (target := _target(stored, named)) is not None
    ]
    return max(possible)[2] if possible else None


def _target(stored: str, named: str | None) -> str | None:
    if named in (ANY_TRANSFER_SYNTAX, stored):
        return stored
    target = named or EXPLICIT_VR_LITTLE_ENDIAN
    if can_transcode(stored, target):
        return target
    # Nothing was named, and the default cannot be made: videos, private and exotic encodings. A
    # truthfully labelled original helps more than a refusal (PS3.18 8.7.3.5.2 leaves it open).
    return stored if named is None else None


def frame_offers(table: FrameTable, *, is_single: bool) -> tuple[Offer, ...]:
    """List the forms in which frames are given, our preference first.

    Parameters
    ----------
    is_single
        Whether one frame was asked for, so that it may come without parts.
    """
    return _frame_offers(table.delivered_transfer_syntax_uid, table.delivered_media_type, is_single)


def choose_frame(accept: str, table: FrameTable) -> Offer:
    """Return the form in which one frame leaves.

    Parameters
    ----------
    accept
        What the client accepts, as it is written.

    Raises
    ------
    NotAcceptable
        None fits.
    """
    decide = _chosen_frame if len(accept) < _REMEMBERED_LENGTH else _chosen_frame.__wrapped__
    return decide(accept, table.delivered_transfer_syntax_uid)


@lru_cache(maxsize=256)
def _chosen_frame(accept: str, delivered: str) -> Offer:
    return choose(accepted(accept), _frame_offers(delivered, media_type(delivered), True))


def choose_picture(accept: str) -> Offer:
    """Return the form in which a picture leaves.

    Raises
    ------
    NotAcceptable
        None fits.
    """
    decide = _chosen_picture if len(accept) < _REMEMBERED_LENGTH else _chosen_picture.__wrapped__
    return decide(accept)


@lru_cache(maxsize=256)
def _chosen_picture(accept: str) -> Offer:
    return choose(accepted(accept), (Offer(JPEG), Offer(PNG)))


def choose_object(accept: str, instance: Instance) -> tuple[Offer, Planned]:
    """Return the form and the transfer syntax in which one object leaves.

    Raises
    ------
    NotAcceptable
        None fits.
    """
    decide = _chosen_object if len(accept) < _REMEMBERED_LENGTH else _chosen_object.__wrapped__
    offer, target = decide(accept, instance.transfer_syntax_uid)
    if target is None:
        raise not_acceptable([_stored_offer(instance.transfer_syntax_uid)])
    return offer, Planned(instance, target)


@lru_cache(maxsize=256)
def _chosen_object(accept: str, stored: str) -> tuple[Offer, str | None]:
    ranges = accepted(accept)
    offer = choose(ranges, object_offers(is_single=True, is_study=False))
    return offer, _choose(stored, _wanted(fitting(ranges, offer)))


_REMEMBERED_LENGTH: Final = 1024


def fitting(ranges: Sequence[MediaType], offer: Offer) -> Sequence[MediaType]:
    """Return the ranges that say in which transfer syntax an offer is wanted."""
    return tuple(one for one in ranges if one.is_multipart == offer.is_multipart) or ranges


# The frames of a series are asked for one after the other.
@lru_cache(maxsize=128)
def _frame_offers(delivered: str, media_type: str, is_single: bool) -> tuple[Offer, ...]:
    is_native = delivered == EXPLICIT_VR_LITTLE_ENDIAN
    can_decode = not is_native and can_transcode(delivered, EXPLICIT_VR_LITTLE_ENDIAN)
    forms: list[tuple[str, str, bool]] = [
        # media type, transfer syntax, whether it is meant where none is named
        (OCTET_STREAM, delivered, is_native),
    ]
    if can_decode:
        decoded = (OCTET_STREAM, EXPLICIT_VR_LITTLE_ENDIAN, True)
        place = 0 if delivered in UNREADABLE_IN_BROWSERS else 1
        forms.insert(place, decoded)
    if media_type not in (OCTET_STREAM, ""):
        forms.append((media_type, delivered, True))
    elif not can_decode:
        forms[0] = (OCTET_STREAM, delivered, True)
    return tuple(
        Offer(name, is_multipart, syntax, is_default=is_default)
        for is_multipart in ((True, False) if is_single else (True,))
        for name, syntax, is_default in forms
    )


def part_content_type(media_type: str, transfer_syntax_uid: str) -> str:
    """Label a part truthfully: viewers decode by this label and nothing else (C48)."""
    return f"{media_type}; transfer-syntax={transfer_syntax_uid}"
