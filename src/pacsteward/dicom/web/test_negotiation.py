"""What clients write into Accept, and what they get for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pacsteward.base.errors import Invalid, PacstewardError
from pacsteward.dicom.web.errors import NotAcceptable
from pacsteward.dicom.web.negotiation import (
    DICOM,
    DICOM_JSON,
    DICOM_XML,
    JPEG,
    OCTET_STREAM,
    PNG,
    Offer,
    accepted,
    choose,
    parse_media_type,
    transfer_syntaxes,
)

JSON_OFFER = Offer(DICOM_JSON)
XML_OFFER = Offer(DICOM_XML, is_multipart=True)


@pytest.mark.parametrize("header", [None, "", "*/*", "*", "application/*", "text/html, */*;q=0.1"])
def test_a_client_that_takes_anything_gets_our_preference(header: str | None) -> None:
    assert choose(accepted(header), (JSON_OFFER, XML_OFFER)) is JSON_OFFER


def test_c30_json_is_given_beside_a_multipart_alternative() -> None:
    header = 'application/dicom+json, multipart/related; type="application/dicom+xml"; q=0.9'
    assert choose(accepted(header), (XML_OFFER, JSON_OFFER)) is JSON_OFFER


def test_the_quality_decides_before_our_preference() -> None:
    offers = (Offer(JPEG), Offer(PNG))
    assert choose(accepted("image/jpeg;q=0.5, image/png"), offers).media_type == PNG
    assert choose(accepted("image/*"), offers).media_type == JPEG


def test_the_most_specific_range_decides_the_quality() -> None:
    offers = (Offer(JPEG), Offer(PNG))
    assert choose(accepted("*/*, image/jpeg;q=0"), offers).media_type == PNG


def test_nothing_that_fits_is_not_acceptable_and_says_what_there_is() -> None:
    with pytest.raises(NotAcceptable) as raised:
        choose(accepted("text/html"), (JSON_OFFER, XML_OFFER))
    assert raised.value.http_status == 406
    assert "application/dicom+json" in raised.value.remedy
    assert 'multipart/related; type="application/dicom+xml"' in raised.value.remedy


@pytest.mark.parametrize(
    "header",
    [
        'multipart/related; type="application/octet-stream"; transfer-syntax="*"',
        'multipart/related; type="application/octet-stream"; transfer-syntax=*',
        "multipart/related; type=application/octet-stream; transfer-syntax=*",
        'Multipart/Related;TYPE="Application/Octet-Stream";Transfer-Syntax=*',
    ],
)
def test_c47_any_transfer_syntax_is_understood_quoted_and_unquoted(header: str) -> None:
    (only,) = accepted(header)
    assert (only.part, only.transfer_syntax) == (OCTET_STREAM, "*")
    offer = Offer(
        OCTET_STREAM, is_multipart=True, transfer_syntax="1.2.840.10008.1.2.5", is_default=False
    )
    assert choose((only,), (offer,)) is offer


def test_a_range_without_transfer_syntax_means_the_default_one() -> None:
    stored = Offer(OCTET_STREAM, True, "1.2.840.10008.1.2.5", is_default=False)
    plain = Offer(OCTET_STREAM, True, "1.2.840.10008.1.2.1")
    ranges = accepted('multipart/related; type="application/octet-stream"')
    assert choose(ranges, (stored, plain)) is plain
    assert choose(accepted("*/*"), (stored, plain)) is plain


def test_a_single_part_is_given_only_to_who_asks_for_its_type() -> None:
    parts, single = Offer(DICOM, is_multipart=True), Offer(DICOM)
    assert choose(accepted("application/dicom"), (parts, single)) is single
    assert choose(accepted("*/*"), (parts, single)) is parts
    assert choose(accepted('multipart/related; type="application/dicom"'), (single, parts)) is parts
    assert choose(accepted("multipart/related"), (single, parts)) is parts


def test_transfer_syntaxes_come_best_first() -> None:
    ranges = accepted(
        'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.1; q=0.4, '
        'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.4.80, '
        "image/jpeg"
    )
    assert transfer_syntaxes(ranges, DICOM) == (
        ("1.2.840.10008.1.2.4.80", 1.0),
        ("1.2.840.10008.1.2.1", 0.4),
    )


def test_a_comma_in_quotes_separates_nothing() -> None:
    one = accepted('text/plain; note="a, b; c \\" d"')
    assert len(one) == 1
    assert one[0].parameters["note"] == 'a, b; c " d'


@pytest.mark.parametrize("text", ["nonsense", "a/b/c d", "/", "text/", '"'])
def test_what_is_no_media_type_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        parse_media_type(text)


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        ranges = accepted(text)
    except PacstewardError:
        return
    assert all(0 <= one.quality <= 1 for one in ranges)
