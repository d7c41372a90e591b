"""Which transfer syntax leaves for which Accept."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pacsteward.archive import Instance, Location
from pacsteward.dicom.frames import FrameTable
from pacsteward.dicom.pixels import ImagePixel
from pacsteward.dicom.web.errors import NotAcceptable
from pacsteward.dicom.web.negotiation import accepted, choose
from pacsteward.features.retrieve.representations import frame_offers, plan

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
JPEG_LS = "1.2.840.10008.1.2.4.80"
JPEG_PROGRESSIVE = "1.2.840.10008.1.2.4.55"
MPEG4 = "1.2.840.10008.1.2.4.102"


def instance(transfer_syntax_uid: str, **values: object) -> Instance:
    given = {
        "instance_key": 1,
        "sop_instance_uid": "1.2.3",
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
        "series_instance_uid": "1.2.2",
        "study_instance_uid": "1.2.1",
        "transfer_syntax_uid": transfer_syntax_uid,
        "instance_number": "1",
        "number_of_frames": "",
        "rows": "2",
        "columns": "2",
        "modality": "CT",
        "patient_id": "P",
        "issuer_of_patient_id": "",
        "has_pixel_data": True,
        "size_bytes": 8,
        "checksum": 0,
        "location": Location("landing", "1", 1, 0, 8),
        "file_meta": b"",
        "received_at": datetime(2026, 1, 1, tzinfo=UTC),
        "series_version": 1,
    }
    return Instance(**{**given, **values})  # type: ignore[arg-type]


def chosen(stored: str, accept: str) -> str:
    (planned,) = plan([instance(stored)], accepted(accept)).planned
    return planned.transfer_syntax_uid


def test_c53_without_a_transfer_syntax_it_is_explicit_little_endian() -> None:
    assert chosen(IMPLICIT, 'multipart/related; type="application/dicom"') == EXPLICIT
    assert chosen(JPEG_LS, "*/*") == EXPLICIT
    assert chosen(EXPLICIT, "application/dicom") == EXPLICIT


@pytest.mark.parametrize("stored", [IMPLICIT, EXPLICIT, JPEG_LS, MPEG4])
def test_c48_any_transfer_syntax_means_as_stored(stored: str) -> None:
    assert (
        chosen(stored, 'multipart/related; type="application/dicom"; transfer-syntax=*') == stored
    )


def test_f052_a_named_transfer_syntax_is_made() -> None:
    accept = f'multipart/related; type="application/dicom"; transfer-syntax={JPEG_LS}'
    assert chosen(EXPLICIT, accept) == JPEG_LS


def test_the_stored_one_is_taken_among_equals_and_quality_comes_first() -> None:
    pair = (
        "application/dicom; transfer-syntax={}; q={}, application/dicom; transfer-syntax={}; q={}"
    )
    assert chosen(JPEG_LS, pair.format(EXPLICIT, 1, JPEG_LS, 1)) == JPEG_LS
    assert chosen(JPEG_LS, pair.format(EXPLICIT, 1, JPEG_LS, 0.5)) == EXPLICIT


def test_a_video_leaves_as_it_is_when_nothing_was_named() -> None:
    assert chosen(MPEG4, "application/dicom") == MPEG4


def test_what_cannot_be_made_is_not_acceptable() -> None:
    with pytest.raises(NotAcceptable):
        chosen(MPEG4, f"application/dicom; transfer-syntax={JPEG_LS}")


def test_a_study_is_given_as_far_as_it_can() -> None:
    accept = accepted(f"application/dicom; transfer-syntax={EXPLICIT}")
    found = plan([instance(MPEG4), instance(JPEG_LS)], accept)
    assert not found.is_complete
    assert [one.instance.transfer_syntax_uid for one in found.planned] == [JPEG_LS]


def table(stored: str) -> FrameTable:
    image = ImagePixel(2, 2, bits_allocated=16, bits_stored=16, high_bit=15)
    fragments = b"\0" * 12 if stored not in (IMPLICIT, EXPLICIT) else b""
    return FrameTable(stored, image, 0, 0, fragments=fragments)


MULTIPART = 'multipart/related; type="{}"{}'


@pytest.mark.parametrize(
    ("stored", "accept", "media_type", "syntax"),
    [
        (JPEG_LS, MULTIPART.format("application/octet-stream", '; transfer-syntax="*"'),
         "application/octet-stream", JPEG_LS),
        (JPEG_LS, MULTIPART.format("application/octet-stream", ""),
         "application/octet-stream", EXPLICIT),
        (JPEG_LS, MULTIPART.format("image/jls", ""), "image/jls", JPEG_LS),
        (JPEG_LS, MULTIPART.format("image/jls", f"; transfer-syntax={JPEG_LS}"),
         "image/jls", JPEG_LS),
        (JPEG_LS, "*/*", "application/octet-stream", EXPLICIT),
        (IMPLICIT, MULTIPART.format("application/octet-stream", "; transfer-syntax=*"),
         "application/octet-stream", EXPLICIT),
        (JPEG_PROGRESSIVE, MULTIPART.format("application/octet-stream", "; transfer-syntax=*"),
         "application/octet-stream", EXPLICIT),
        (JPEG_PROGRESSIVE,
         MULTIPART.format("application/octet-stream", f"; transfer-syntax={JPEG_PROGRESSIVE}"),
         "application/octet-stream", JPEG_PROGRESSIVE),
    ],
)  # fmt: skip
def test_c49_frames_come_in_the_form_that_was_asked_for(
    stored: str, accept: str, media_type: str, syntax: str
) -> None:
    offer = choose(accepted(accept), frame_offers(table(stored), is_single=True))
    assert (offer.media_type, offer.transfer_syntax, offer.is_multipart) == (
        media_type,
        syntax,
        True,
    )


def test_f060_one_frame_may_come_alone() -> None:
    offers = frame_offers(table(JPEG_LS), is_single=True)
    alone = choose(accepted("application/octet-stream; transfer-syntax=*"), offers)
    assert (alone.is_multipart, alone.transfer_syntax) == (False, JPEG_LS)
    several = frame_offers(table(JPEG_LS), is_single=False)
    with pytest.raises(NotAcceptable):
        choose(accepted("image/jls"), several)


def test_c52_a_form_that_cannot_be_made_is_not_acceptable() -> None:
    with pytest.raises(NotAcceptable):
        choose(accepted("image/jp2"), frame_offers(table(JPEG_LS), is_single=True))
