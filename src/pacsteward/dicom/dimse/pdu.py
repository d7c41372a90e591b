"""The seven PDUs of the DICOM upper layer, as bytes and as values.

`encode_pdu` turns a value into bytes; `decode_pdu` turns a type and a body into a value. P-DATA-TF
is different, since images pass in it: `p_data_header` makes the twelve bytes before a fragment, and
`next_pdv` says where in a body the next one lies, so no payload is copied.

The length field is not seen here: who reads the six bytes of header compares it with the limits
before it reads on (`check_length`).

Where real devices deviate we are lenient, and it is said here:

- reserved fields are not tested (PS3.8 demands that), neither are the AE titles of an
  A-ASSOCIATE-AC; AE titles may be padded with NUL;
- items of unknown type are skipped;
- the reason of an A-ABORT or the numbers of an A-ASSOCIATE-RJ may have values of no table.

What is not tolerated, because nothing sensible follows from it: lengths that do not fit, a context
identifier that is even or used twice, a context without abstract syntax, an empty P-DATA-TF PDU.

References
----------
PS3.8 9.3 and tables 9-11 to 9-26.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from pacsteward.base.ids import AeTitle, Uid
from pacsteward.dicom.dimse.limits import Limits
from pacsteward.dicom.dimse.user_information import (
    AbortReason,
    ProtocolError,
    UserInformation,
    decode_text,
    decode_user_information,
    encode_text,
    encode_user_information,
    item,
    items,
)

HEADER: Final = struct.Struct(">BxI")
"""PDU type, one reserved byte, length of what follows."""

PDV_HEADER: Final = struct.Struct(">IBB")
"""Item length, presentation context ID, message control header (PS3.8 9.3.5.1, Annex E.2)."""

PDV_HEADER_SIZE: Final = PDV_HEADER.size
P_DATA_HEADER: Final = struct.Struct(">BxIIBB")
"""Both together: what comes before the fragment when a P-DATA-TF PDU holds one."""

CONTROL_COMMAND: Final = 0x01
"""Bit of the message control header: the fragment belongs to a command set, not a data set."""
CONTROL_LAST: Final = 0x02
"""Bit of the message control header: the fragment is the last of its set."""

APPLICATION_CONTEXT_NAME: Final = Uid("1.2.840.10008.3.1.1.1")
"""The DICOM application context, PS3.7 Annex A."""

_FIXED = struct.Struct(">H2x16s16s32x")
"""Protocol version, called and calling AE title, and what is reserved between and behind them."""


class PduType(IntEnum):
    """First byte of a PDU."""

    ASSOCIATE_RQ = 0x01
    ASSOCIATE_AC = 0x02
    ASSOCIATE_RJ = 0x03
    P_DATA_TF = 0x04
    RELEASE_RQ = 0x05
    RELEASE_RP = 0x06
    ABORT = 0x07


class ContextResult(IntEnum):
    """Result/Reason of a presentation context, PS3.8 table 9-18."""

    ACCEPTED = 0
    USER_REJECTION = 1
    NO_REASON = 2
    ABSTRACT_SYNTAX_NOT_SUPPORTED = 3
    TRANSFER_SYNTAXES_NOT_SUPPORTED = 4


@dataclass(frozen=True, slots=True)
class ContextProposal:
    """One presentation context of an A-ASSOCIATE-RQ, PS3.8 9.3.2.2."""

    context_id: int
    abstract_syntax: Uid
    transfer_syntaxes: tuple[Uid, ...]


@dataclass(frozen=True, slots=True)
class ContextAnswer:
    """One presentation context of an A-ASSOCIATE-AC, PS3.8 9.3.3.2.

    The transfer syntax of a context that was not accepted has no meaning.
    """

    context_id: int
    result: int
    transfer_syntax: Uid


@dataclass(frozen=True, slots=True)
class AssociateRequest:
    """A-ASSOCIATE-RQ, PS3.8 9.3.2. AE titles are stripped, and not checked yet."""

    called_ae_title: AeTitle
    calling_ae_title: AeTitle
    contexts: tuple[ContextProposal, ...]
    user: UserInformation = field(default_factory=UserInformation)
    application_context_name: Uid = APPLICATION_CONTEXT_NAME
    protocol_version: int = 1


@dataclass(frozen=True, slots=True)
class AssociateAccept:
    """A-ASSOCIATE-AC, PS3.8 9.3.3."""

    called_ae_title: AeTitle
    calling_ae_title: AeTitle
    contexts: tuple[ContextAnswer, ...]
    user: UserInformation = field(default_factory=UserInformation)
    application_context_name: Uid = APPLICATION_CONTEXT_NAME
    protocol_version: int = 1


@dataclass(frozen=True, slots=True)
class AssociateReject:
    """A-ASSOCIATE-RJ, PS3.8 9.3.4; the numbers are those of table 9-21."""

    result: int
    source: int
    reason: int


@dataclass(frozen=True, slots=True)
class ReleaseRequest:
    """A-RELEASE-RQ, PS3.8 9.3.6."""


@dataclass(frozen=True, slots=True)
class ReleaseReply:
    """A-RELEASE-RP, PS3.8 9.3.7."""


@dataclass(frozen=True, slots=True)
class Abort:
    """A-ABORT, PS3.8 9.3.8.

    Parameters
    ----------
    source
        0 the service user, 2 the service provider.
    reason
        Has a meaning only from the provider.
    """

    source: int
    reason: int = AbortReason.NOT_SPECIFIED


ControlPdu = (
    AssociateRequest | AssociateAccept | AssociateReject | ReleaseRequest | ReleaseReply | Abort
)


_FIRST_BYTES: Final = {0x15: "TLS", 0x16: "TLS", **dict.fromkeys(b"DGHOP", "HTTP")}
"""What others begin with: records of TLS (RFC 8446 5.1: alert, handshake), methods of HTTP."""


def _unknown(pdu_type: int) -> ProtocolError:
    """Name the usual mistake, since whoever set it up sees nothing but a broken connection."""
    what = f"PDU type {pdu_type:02X}H is unknown."
    spoken = _FIRST_BYTES.get(pdu_type)
    if spoken is not None:
        what += f" The peer seems to speak {spoken}, which is not spoken here."
    return ProtocolError(what, reason=AbortReason.UNRECOGNIZED_PDU)


def check_length(pdu_type: int, length: int, limits: Limits) -> None:
    """Refuse a length field before anything is read for it.

    Raises
    ------
    ProtocolError
        Unknown type, or more bytes than such a PDU may have.
    """
    bounds = _LENGTHS.get(pdu_type)
    if bounds is None:
        raise _unknown(pdu_type)
    shortest, longest = bounds(limits)
    if not shortest <= length <= longest:
        raise ProtocolError(
            f"A PDU of type {pdu_type:02X}H claims {length} bytes; {shortest} to {longest} are "
            "allowed."
        )


_Bounds = Callable[[Limits], tuple[int, int]]


def _associate_bounds(limits: Limits) -> tuple[int, int]:
    return _FIXED.size, limits.associate_pdu_size_bytes_max


def _p_data_bounds(limits: Limits) -> tuple[int, int]:
    return PDV_HEADER_SIZE, limits.received_pdu_size_bytes_max


def _four(_limits: Limits) -> tuple[int, int]:
    return 4, 4


_LENGTHS: dict[int, _Bounds] = {
    PduType.ASSOCIATE_RQ: _associate_bounds,
    PduType.ASSOCIATE_AC: _associate_bounds,
    PduType.ASSOCIATE_RJ: _four,
    PduType.P_DATA_TF: _p_data_bounds,
    PduType.RELEASE_RQ: _four,
    PduType.RELEASE_RP: _four,
    PduType.ABORT: _four,
}


def encode_pdu(pdu: ControlPdu) -> bytes:
    """Return the bytes of a PDU, header included."""
    match pdu:
        case AssociateRequest():
            return _encode_associate(PduType.ASSOCIATE_RQ, pdu, map(_encode_proposal, pdu.contexts))
        case AssociateAccept():
            return _encode_associate(PduType.ASSOCIATE_AC, pdu, map(_encode_answer, pdu.contexts))
        case AssociateReject():
            return _framed(PduType.ASSOCIATE_RJ, bytes((0, pdu.result, pdu.source, pdu.reason)))
        case ReleaseRequest():
            return _framed(PduType.RELEASE_RQ, bytes(4))
        case ReleaseReply():
            return _framed(PduType.RELEASE_RP, bytes(4))
        case Abort():
            return _framed(PduType.ABORT, bytes((0, 0, pdu.source, pdu.reason)))


def decode_pdu(pdu_type: int, body: bytes) -> ControlPdu:
    """Return the value of a PDU other than P-DATA-TF.

    Parameters
    ----------
    pdu_type
        First byte of its header.
    body
        What follows the six bytes of header.

    Raises
    ------
    ProtocolError
        With the reason for A-ABORT.
    """
    decoder = _DECODERS.get(pdu_type)
    if decoder is None:
        raise _unknown(pdu_type)
    return decoder(body)


def p_data_header(context_id: int, control: int, size_bytes: int) -> bytes:
    """Return what comes before a fragment of `size_bytes` that is a P-DATA-TF PDU of its own."""
    return P_DATA_HEADER.pack(
        PduType.P_DATA_TF, size_bytes + 6, size_bytes + 2, context_id, control
    )


def next_pdv(data: memoryview, at: int, end: int) -> tuple[int, int, int]:
    """Return context ID, control header and size of the fragment of the PDV at `at`.

    Parameters
    ----------
    end
        Where the PDU ends.

    Raises
    ------
    ProtocolError
        The PDV does not fit into the PDU.
    """
    if end - at < PDV_HEADER_SIZE:
        raise ProtocolError("A P-DATA-TF PDU ends in the middle of a PDV header.")
    length, context_id, control = PDV_HEADER.unpack_from(data, at)
    if not 2 <= length <= end - at - 4:
        raise ProtocolError(f"A PDV claims {length} bytes; 2 to {end - at - 4} are possible here.")
    return context_id, control, length - 2


def _framed(pdu_type: PduType, body: bytes) -> bytes:
    return HEADER.pack(pdu_type, len(body)) + body


def _encode_associate(
    pdu_type: PduType, pdu: AssociateRequest | AssociateAccept, contexts: Iterator[bytes]
) -> bytes:
    body = b"".join(
        (
            _FIXED.pack(
                pdu.protocol_version,
                encode_text(pdu.called_ae_title)[:16].ljust(16),
                encode_text(pdu.calling_ae_title)[:16].ljust(16),
            ),
            item(0x10, encode_text(pdu.application_context_name)),
            *contexts,
            item(0x50, encode_user_information(pdu.user)),
        )
    )
    return _framed(pdu_type, body)


def _encode_proposal(proposal: ContextProposal) -> bytes:
    syntaxes = b"".join(item(0x40, encode_text(uid)) for uid in proposal.transfer_syntaxes)
    abstract = item(0x30, encode_text(proposal.abstract_syntax))
    return item(0x20, bytes((proposal.context_id, 0, 0, 0)) + abstract + syntaxes)


def _encode_answer(answer: ContextAnswer) -> bytes:
    syntax = item(0x40, encode_text(answer.transfer_syntax))
    return item(0x21, bytes((answer.context_id, 0, answer.result, 0)) + syntax)


def _decode_request(body: bytes) -> AssociateRequest:
    version, called, calling = _decode_fixed(body, "A-ASSOCIATE-RQ")
    application_context, contexts, user = _decode_variable(body, "A-ASSOCIATE-RQ", 0x20)
    return AssociateRequest(
        called_ae_title=called,
        calling_ae_title=calling,
        contexts=tuple(_decode_proposal(context) for context in contexts),
        user=user,
        application_context_name=application_context,
        protocol_version=version,
    )


def _decode_accept(body: bytes) -> AssociateAccept:
    version, called, calling = _decode_fixed(body, "A-ASSOCIATE-AC")
    application_context, contexts, user = _decode_variable(body, "A-ASSOCIATE-AC", 0x21)
    return AssociateAccept(
        called_ae_title=called,
        calling_ae_title=calling,
        contexts=tuple(_decode_answer(context) for context in contexts),
        user=user,
        application_context_name=application_context,
        protocol_version=version,
    )


def _decode_fixed(body: bytes, what: str) -> tuple[int, AeTitle, AeTitle]:
    if len(body) < _FIXED.size:
        raise ProtocolError(f"{what} has {len(body)} bytes, expected at least {_FIXED.size}.")
    version, called, calling = _FIXED.unpack_from(body)
    return version, AeTitle(decode_text(called)), AeTitle(decode_text(calling))


def _decode_variable(
    body: bytes, what: str, context_item: int
) -> tuple[Uid, list[bytes], UserInformation]:
    """Return application context name, context items and user information."""
    application_context = Uid("")
    contexts: list[bytes] = []
    seen: set[int] = set()
    user = UserInformation()
    for kind, value in items(body, what, _FIXED.size):
        if kind == 0x10:
            application_context = Uid(decode_text(value))
        elif kind == context_item:
            contexts.append(_checked_context(value, what, seen))
        elif kind == 0x50:
            user = decode_user_information(value)
    return application_context, contexts, user


def _checked_context(value: bytes, what: str, seen: set[int]) -> bytes:
    """Return the item's value when its identifier is a possible one, PS3.8 9.3.2.2."""
    if len(value) < 4:
        raise ProtocolError(f"A presentation context item of {what} has {len(value)} bytes.")
    context_id = value[0]
    if context_id % 2 == 0 or context_id in seen:
        fault = "used twice" if context_id in seen else "not an odd number"
        raise ProtocolError(f"Presentation context ID {context_id} of {what} is {fault}.")
    seen.add(context_id)
    return value


def _decode_proposal(value: bytes) -> ContextProposal:
    abstract_syntaxes: list[Uid] = []
    transfer_syntaxes: list[Uid] = []
    for kind, uid in items(value, "a presentation context item", 4):
        if kind == 0x30:
            abstract_syntaxes.append(Uid(decode_text(uid)))
        elif kind == 0x40:
            transfer_syntaxes.append(Uid(decode_text(uid)))
    if len(abstract_syntaxes) != 1:
        raise ProtocolError(
            f"Presentation context {value[0]} has {len(abstract_syntaxes)} abstract syntaxes, "
            "expected one."
        )
    return ContextProposal(value[0], abstract_syntaxes[0], tuple(transfer_syntaxes))


def _decode_answer(value: bytes) -> ContextAnswer:
    transfer_syntax = Uid("")
    for kind, uid in items(value, "a presentation context item", 4):
        if kind == 0x40:
            transfer_syntax = Uid(decode_text(uid))
    if value[2] == ContextResult.ACCEPTED and not transfer_syntax:
        raise ProtocolError(f"Context {value[0]} is accepted without a transfer syntax.")
    return ContextAnswer(value[0], value[2], transfer_syntax)


def _four_bytes(body: bytes, what: str) -> bytes:
    if len(body) != 4:
        raise ProtocolError(f"{what} has {len(body)} bytes, expected 4.")
    return body


def _decode_reject(body: bytes) -> AssociateReject:
    return AssociateReject(*_four_bytes(body, "A-ASSOCIATE-RJ")[1:])


def _decode_release_request(body: bytes) -> ReleaseRequest:
    _four_bytes(body, "A-RELEASE-RQ")
    return ReleaseRequest()


def _decode_release_reply(body: bytes) -> ReleaseReply:
    _four_bytes(body, "A-RELEASE-RP")
    return ReleaseReply()


def _decode_abort(body: bytes) -> Abort:
    return Abort(*_four_bytes(body, "A-ABORT")[2:])


_DECODERS: dict[int, Callable[[bytes], ControlPdu]] = {
    PduType.ASSOCIATE_RQ: _decode_request,
    PduType.ASSOCIATE_AC: _decode_accept,
    PduType.ASSOCIATE_RJ: _decode_reject,
    PduType.RELEASE_RQ: _decode_release_request,
    PduType.RELEASE_RP: _decode_release_reply,
    PduType.ABORT: _decode_abort,
}
