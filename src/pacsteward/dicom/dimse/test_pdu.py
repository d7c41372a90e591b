"""PDUs: what we say is what others hear, and nonsense has one answer."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pynetdicom import pdu as independent

from pacsteward.base.ids import AeTitle, Uid
from pacsteward.dicom.dimse import Limits, ProtocolError, UserIdentity
from pacsteward.dicom.dimse.pdu import (
    Abort,
    AssociateAccept,
    AssociateReject,
    AssociateRequest,
    ContextAnswer,
    ContextProposal,
    PduType,
    ReleaseReply,
    ReleaseRequest,
    check_length,
    decode_pdu,
    encode_pdu,
    p_data_header,
)
from pacsteward.dicom.dimse.test_support import (
    CT,
    EXPLICIT,
    IMPLICIT,
    VERIFICATION,
    presentation_data_values,
)
from pacsteward.dicom.dimse.user_information import (
    AbortReason,
    CommonExtendedNegotiation,
    ExtendedNegotiation,
    RoleSelection,
    UserInformation,
)

FULL = UserInformation(
    max_pdu_size_bytes=131072,
    implementation_class_uid=Uid("1.2.3.4"),
    implementation_version_name="TEST_1",
    asynchronous_window=(4, 5),
    roles=(RoleSelection(CT, scu=True, scp=True), RoleSelection(VERIFICATION, False, True)),
    extended=(ExtendedNegotiation(CT, b"\1\0\1"),),
    common_extended=(CommonExtendedNegotiation(CT, VERIFICATION, (EXPLICIT, IMPLICIT)),),
    identity=UserIdentity(2, b"name", b"secret", wants_response=True),
)
REQUEST = AssociateRequest(
    AeTitle("OURS"),
    AeTitle("A TITLE OF 16 CH"),
    (ContextProposal(1, CT, (EXPLICIT, IMPLICIT)), ContextProposal(255, VERIFICATION, (IMPLICIT,))),
    FULL,
)
ACCEPT = AssociateAccept(
    AeTitle("OURS"),
    AeTitle("THEIRS"),
    (ContextAnswer(1, 0, EXPLICIT), ContextAnswer(255, 3, IMPLICIT)),
    UserInformation(roles=FULL.roles, identity_response=b"ticket"),
)


@pytest.mark.parametrize(
    "pdu",
    [
        REQUEST,
        ACCEPT,
        AssociateReject(1, 1, 7),
        ReleaseRequest(),
        ReleaseReply(),
        Abort(2, 6),
    ],
    ids=lambda pdu: type(pdu).__name__,
)
def test_every_pdu_comes_back_as_it_was(pdu):
    data = encode_pdu(pdu)
    pdu_type, length = struct.unpack_from(">BxI", data)
    assert length == len(data) - 6
    assert decode_pdu(pdu_type, data[6:]) == pdu


def test_another_implementation_reads_our_request():
    theirs = independent.A_ASSOCIATE_RQ()
    theirs.decode(encode_pdu(REQUEST))
    assert theirs.calling_ae_title == "A TITLE OF 16 CH"
    assert [c.context_id for c in theirs.presentation_context] == [1, 255]
    assert theirs.presentation_context[0].abstract_syntax == CT
    assert theirs.presentation_context[0].transfer_syntax == [EXPLICIT, IMPLICIT]
    information = theirs.user_information
    assert information.maximum_length == 131072
    assert information.async_ops_window.maximum_number_operations_invoked == 4
    assert information.role_selection[VERIFICATION].scp_role == 1
    assert information.ext_neg[0].app_info == b"\1\0\1"
    assert information.user_identity.secondary_field == b"secret"
    assert information.common_ext_neg[0].related_general_sop_class_identification == [
        EXPLICIT,
        IMPLICIT,
    ]


def test_we_read_the_request_of_another_implementation():
    theirs = independent.A_ASSOCIATE_RQ()
    theirs.decode(encode_pdu(REQUEST))
    again = theirs.encode()
    assert decode_pdu(PduType.ASSOCIATE_RQ, again[6:]) == REQUEST


def test_padding_of_real_devices_is_stripped():
    request = AssociateRequest(
        AeTitle("OURS"), AeTitle("THEIRS"), (ContextProposal(1, Uid("1.2.3"), (Uid("1.2"),)),)
    )
    data = encode_pdu(request).replace(b"THEIRS".ljust(16), b"THEIRS".ljust(16, b"\0"))
    data = data.replace(b"\x30\0\0\x051.2.3", b"\x30\0\0\x061.2.3\0")
    data = data.replace(struct.pack(">BBH", 0x20, 0, 20), struct.pack(">BBH", 0x20, 0, 21))
    decoded = decode_pdu(PduType.ASSOCIATE_RQ, data[6:])
    assert isinstance(decoded, AssociateRequest)
    assert decoded.calling_ae_title == "THEIRS"
    assert decoded.contexts[0].abstract_syntax == "1.2.3"


def test_unknown_items_are_skipped():
    data = encode_pdu(REQUEST)[6:] + struct.pack(">BBH", 0x7F, 0, 3) + b"abc"
    assert decode_pdu(PduType.ASSOCIATE_RQ, data) == REQUEST


def test_missing_user_information_means_the_customary_pdu_size():
    body = encode_pdu(AssociateRequest(AeTitle("A"), AeTitle("B"), ()))[6:]
    body = body[: body.index(b"\x50\0")]
    decoded = decode_pdu(PduType.ASSOCIATE_RQ, body)
    assert isinstance(decoded, AssociateRequest)
    assert decoded.user.max_pdu_size_bytes == 16384


def test_secrets_are_not_printed():
    assert "secret" not in repr(REQUEST)
    assert "ticket" not in repr(ACCEPT)


BODY = encode_pdu(REQUEST)[6:]
FIXED = BODY[:68]


def context(context_id: int, *sub_items: bytes) -> bytes:
    value = bytes((context_id, 0, 0, 0)) + b"".join(sub_items)
    return struct.pack(">BBH", 0x20, 0, len(value)) + value


ABSTRACT = b"\x30\0\0\x031.2"


@pytest.mark.parametrize(
    ("pdu_type", "body", "reason"),
    [
        (0x00, b"", AbortReason.UNRECOGNIZED_PDU),
        (0x08, bytes(4), AbortReason.UNRECOGNIZED_PDU),
        (0x01, b"", AbortReason.INVALID_PARAMETER),
        (0x01, BODY[:67], AbortReason.INVALID_PARAMETER),
        (0x01, BODY[:-1], AbortReason.INVALID_PARAMETER),
        (0x01, FIXED + b"\x10\0\xff\xff", AbortReason.INVALID_PARAMETER),
        (0x01, FIXED + b"\x10\0", AbortReason.INVALID_PARAMETER),
        (0x01, FIXED + context(2, ABSTRACT), AbortReason.INVALID_PARAMETER),
        (0x01, FIXED + context(0, ABSTRACT), AbortReason.INVALID_PARAMETER),
        (0x01, FIXED + context(1, ABSTRACT) * 2, AbortReason.INVALID_PARAMETER),
        (0x01, FIXED + context(1), AbortReason.INVALID_PARAMETER),
        (0x01, FIXED + context(1, ABSTRACT, ABSTRACT), AbortReason.INVALID_PARAMETER),
        (0x01, FIXED + b"\x20\0\0\x01\1", AbortReason.INVALID_PARAMETER),
        (0x01, FIXED + b"\x50\0\0\x07\x51\0\0\x03\0\0\0", AbortReason.INVALID_PARAMETER),
        (0x01, FIXED + b"\x50\0\0\x08\x54\0\0\x04\0\xff1.", AbortReason.INVALID_PARAMETER),
        (0x01, FIXED + b"\x50\0\0\x07\x54\0\0\x03\0\x011", AbortReason.INVALID_PARAMETER),
        (0x01, FIXED + b"\x50\0\0\x05\x58\0\0\x01\1", AbortReason.INVALID_PARAMETER),
        (0x01, FIXED + b"\x50\0\0\x05\x53\0\0\x01\1", AbortReason.INVALID_PARAMETER),
        (0x01, FIXED + b"\x50\0\0\x05\x57\0\0\x01\0", AbortReason.INVALID_PARAMETER),
        (0x02, FIXED + b"\x21\0\0\x04\1\0\0\0", AbortReason.INVALID_PARAMETER),
        (0x03, bytes(3), AbortReason.INVALID_PARAMETER),
        (0x05, b"", AbortReason.INVALID_PARAMETER),
        (0x06, bytes(5), AbortReason.INVALID_PARAMETER),
        (0x07, bytes(3), AbortReason.INVALID_PARAMETER),
    ],
)
def test_malformed_pdus_are_refused_with_a_reason(pdu_type, body, reason):
    with pytest.raises(ProtocolError) as caught:
        decode_pdu(pdu_type, body)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("pdu_type", "length", "is_allowed"),
    [
        (PduType.ASSOCIATE_RQ, 68, True),
        (PduType.ASSOCIATE_RQ, 131_072, True),
        (PduType.ASSOCIATE_RQ, 131_073, False),
        (PduType.ASSOCIATE_RQ, 67, False),
        (PduType.ASSOCIATE_AC, 0xFFFFFFFF, False),
        (PduType.P_DATA_TF, 262_144, True),
        (PduType.P_DATA_TF, 262_145, False),
        (PduType.P_DATA_TF, 0xFFFFFFFF, False),
        (PduType.P_DATA_TF, 0, False),
        (PduType.RELEASE_RQ, 4, True),
        (PduType.RELEASE_RQ, 5, False),
        (PduType.ABORT, 0, False),
        (0x47, 4, False),
    ],
)
def test_length_fields_are_judged_before_anything_is_read(pdu_type, length, is_allowed):
    if is_allowed:
        check_length(pdu_type, length, Limits())
    else:
        with pytest.raises(ProtocolError):
            check_length(pdu_type, length, Limits())


def test_fragments_are_slices_of_the_pdu():
    first, second = b"abcd", b"efg"
    body = bytearray(p_data_header(1, 0, 4)[6:] + first + p_data_header(3, 2, 3)[6:] + second)
    values = list(presentation_data_values(memoryview(body)))
    assert [(number, control, bytes(data)) for number, control, data in values] == [
        (1, 0, b"abcd"),
        (3, 2, b"efg"),
    ]
    body[6] = ord("X")
    assert bytes(values[0][2]) == b"Xbcd"


@pytest.mark.parametrize(
    "body", [b"\0\0", b"\0\0\0\1\1", b"\0\0\0\1\1\0", b"\0\0\0\0\1\0", b"\0\0\0\3\1\0", b"\xff" * 6]
)
def test_a_pdv_that_does_not_fit_is_refused(body):
    with pytest.raises(ProtocolError):
        list(presentation_data_values(memoryview(body)))


uids = st.from_regex(r"[0-9]{1,5}(\.[0-9]{1,5}){1,6}", fullmatch=True).map(Uid)
titles = st.from_regex(r"[A-Z0-9_]{1,16}", fullmatch=True).map(AeTitle)


@settings(max_examples=100, deadline=None)
@given(
    called=titles,
    calling=titles,
    contexts=st.lists(
        st.tuples(uids, st.lists(uids, max_size=4).map(tuple)), min_size=1, max_size=128
    ),
    size=st.integers(0, 0xFFFFFFFF),
    information=st.binary(max_size=40),
)
def test_any_request_comes_back_as_it_was(called, calling, contexts, size, information):
    request = AssociateRequest(
        called,
        calling,
        tuple(ContextProposal(2 * n + 1, *context) for n, context in enumerate(contexts)),
        UserInformation(size, extended=(ExtendedNegotiation(contexts[0][0], information),)),
    )
    assert decode_pdu(PduType.ASSOCIATE_RQ, encode_pdu(request)[6:]) == request


@settings(max_examples=400, deadline=None)
@given(pdu_type=st.integers(0, 9), noise=st.binary(max_size=300))
def test_noise_is_a_value_or_a_protocol_error(pdu_type, noise):
    for body in (noise, FIXED + noise):
        try:
            decode_pdu(pdu_type, body)
        except ProtocolError:
            continue


@settings(max_examples=400, deadline=None)
@given(at=st.integers(0, len(BODY) - 1), byte=st.integers(0, 255), cut=st.integers(0, 40))
def test_a_damaged_request_is_a_value_or_a_protocol_error(at, byte, cut):
    body = bytearray(BODY)
    body[at] = byte
    try:
        decode_pdu(PduType.ASSOCIATE_RQ, bytes(body[: len(body) - cut]))
    except ProtocolError:
        return
