"""User information of A-ASSOCIATE PDUs: what both sides say of themselves beside the contexts.

Bytes of the User Information item (type 50H) enter, a `UserInformation` leaves, and back. The
sub-items are those of PS3.7 D.3.3 and of PS3.8 D.1; unknown ones are skipped, as PS3.8 9.3.1
demands.

Where real devices deviate we are lenient, and it is said here:

- UIDs padded with NUL or space (the upper layer forbids it, data sets demand it) are stripped;
- a missing Maximum Length sub-item counts as 16,384, the customary default of toolkits;
- a missing Implementation Class UID is an empty one;
- of a sub-item sent twice where one is allowed, the last counts.

References
----------
PS3.7 D.3.3.1-D.3.3.7, PS3.8 9.3.2.3, 9.3.3.3 and Annex D.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import IntEnum

from pacsteward.base.errors import Invalid
from pacsteward.base.ids import Uid
from pacsteward.dicom.dimse.service import UserIdentity

ITEM_HEADER = struct.Struct(">BxH")
"""Item type, one reserved byte, item length: the same for items and sub-items."""

_SHORT = struct.Struct(">H")
_LONG = struct.Struct(">I")
_PAIR = struct.Struct(">HH")

DEFAULT_MAX_PDU_SIZE_BYTES = 16_384
_NO_UID = Uid("")


class AbortReason(IntEnum):
    """Reason/Diag. of an A-ABORT whose source is the service provider, PS3.8 table 9-26."""

    NOT_SPECIFIED = 0
    UNRECOGNIZED_PDU = 1
    UNEXPECTED_PDU = 2
    UNRECOGNIZED_PARAMETER = 4
    UNEXPECTED_PARAMETER = 5
    INVALID_PARAMETER = 6


class ProtocolError(Invalid):
    """The peer sent what the upper layer cannot take; the answer is A-ABORT.

    Parameters
    ----------
    what
        One sentence for the log, with found and expected values.
    reason
        Reason/Diag. of the A-ABORT PDU.
    """

    def __init__(self, what: str, *, reason: AbortReason = AbortReason.INVALID_PARAMETER) -> None:
        super().__init__(what)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class RoleSelection:
    """SCP/SCU Role Selection, PS3.7 D.3.3.4. Roles are those of the association requestor."""

    sop_class_uid: Uid
    scu: bool
    scp: bool


@dataclass(frozen=True, slots=True)
class ExtendedNegotiation:
    """SOP Class Extended Negotiation, PS3.7 D.3.3.5."""

    sop_class_uid: Uid
    information: bytes


@dataclass(frozen=True, slots=True)
class CommonExtendedNegotiation:
    """SOP Class Common Extended Negotiation, PS3.7 D.3.3.6: parsed, checked, not used."""

    sop_class_uid: Uid
    service_class_uid: Uid
    related_general_sop_class_uids: tuple[Uid, ...] = ()


@dataclass(frozen=True, slots=True)
class UserInformation:
    """All sub-items of one User Information item.

    Parameters
    ----------
    max_pdu_size_bytes
        Longest P-DATA-TF PDU that the speaker wants to receive; 0 means no limit (PS3.8 D.1).
    asynchronous_window
        Operations invoked and performed at once, 0 for any number; None when not spoken of.
    identity_response
        Server response of the user identity negotiation, in an A-ASSOCIATE-AC only.
    """

    max_pdu_size_bytes: int = DEFAULT_MAX_PDU_SIZE_BYTES
    implementation_class_uid: Uid = _NO_UID
    implementation_version_name: str = ""
    asynchronous_window: tuple[int, int] | None = None
    roles: tuple[RoleSelection, ...] = ()
    extended: tuple[ExtendedNegotiation, ...] = ()
    common_extended: tuple[CommonExtendedNegotiation, ...] = ()
    identity: UserIdentity | None = None
    identity_response: bytes | None = field(default=None, repr=False)


def encode_user_information(information: UserInformation) -> bytes:
    """Return the value of a User Information item (without the item's own header)."""
    parts = [item(0x51, _LONG.pack(information.max_pdu_size_bytes))]
    if information.implementation_class_uid:
        parts.append(item(0x52, encode_text(information.implementation_class_uid)))
    if information.asynchronous_window is not None:
        parts.append(item(0x53, _PAIR.pack(*information.asynchronous_window)))
    for role in information.roles:
        flags = bytes((role.scu, role.scp))
        parts.append(item(0x54, _counted(encode_text(role.sop_class_uid)) + flags))
    if information.implementation_version_name:
        parts.append(item(0x55, encode_text(information.implementation_version_name)))
    for extended in information.extended:
        uid = _counted(encode_text(extended.sop_class_uid))
        parts.append(item(0x56, uid + extended.information))
    for common in information.common_extended:
        related = b"".join(
            _counted(encode_text(uid)) for uid in common.related_general_sop_class_uids
        )
        parts.append(
            item(
                0x57,
                _counted(encode_text(common.sop_class_uid))
                + _counted(encode_text(common.service_class_uid))
                + _counted(related),
            )
        )
    if information.identity is not None:
        identity = information.identity
        head = bytes((identity.kind, identity.wants_response))
        parts.append(item(0x58, head + _counted(identity.primary) + _counted(identity.secondary)))
    if information.identity_response is not None:
        parts.append(item(0x59, _counted(information.identity_response)))
    return b"".join(parts)


def decode_user_information(value: bytes) -> UserInformation:
    """Read the value of a User Information item.

    Raises
    ------
    ProtocolError
        A sub-item is longer than what holds it, or too short for what it must hold.
    """
    information = UserInformation()
    for kind, body in items(value, "User Information"):
        reader = _READERS.get(kind)
        if reader is not None:
            information = reader(information, body)
    return information


def items(data: bytes, where: str, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield type and value of the items that follow each other in `data`.

    Raises
    ------
    ProtocolError
        An item does not fit into what is left.
    """
    at = start
    while at < len(data):
        if len(data) - at < ITEM_HEADER.size:
            raise ProtocolError(f"{where} ends in the middle of an item header.")
        kind, length = ITEM_HEADER.unpack_from(data, at)
        at += ITEM_HEADER.size
        if length > len(data) - at:
            raise ProtocolError(
                f"Item {kind:02X}H in {where} claims {length} bytes where {len(data) - at} are."
            )
        yield kind, data[at : at + length]
        at += length


def item(kind: int, value: bytes) -> bytes:
    """Return one item or sub-item with its header.

    Raises
    ------
    Invalid
        The value does not fit into an item, e.g. a user identity token of over 64 KiB.
    """
    if len(value) > 0xFFFF:
        raise Invalid(
            f"Item {kind:02X}H of an association request was not encoded.",
            why=f"It has {len(value)} bytes; the length field ends at 65,535 (PS3.8 9.3.1).",
        )
    return ITEM_HEADER.pack(kind, len(value)) + value


def encode_text(text: str) -> bytes:
    """Return a UID or name as the upper layer sends it: ASCII, without padding."""
    return text.encode("ascii", "replace")


def decode_text(value: bytes) -> str:
    """Return a UID or name without padding; Latin-1, so that any bytes can be compared."""
    return value.decode("latin-1").strip(" \0")


def _counted(value: bytes) -> bytes:
    if len(value) > 0xFFFF:
        raise Invalid(
            "A field of an association request was not encoded.",
            why=f"It has {len(value)} bytes; the length field ends at 65,535.",
        )
    return _SHORT.pack(len(value)) + value


def _uncounted(body: bytes, at: int, what: str) -> tuple[bytes, int]:
    """Return a field that has its length before it, and the position behind it."""
    if len(body) - at < _SHORT.size:
        raise ProtocolError(f"{what} ends before the length of a field.")
    (length,) = _SHORT.unpack_from(body, at)
    at += _SHORT.size
    if length > len(body) - at:
        raise ProtocolError(f"{what}: a field claims {length} bytes where {len(body) - at} are.")
    return body[at : at + length], at + length


def _exactly(body: bytes, size: int, what: str) -> None:
    if len(body) != size:
        raise ProtocolError(f"{what} has {len(body)} bytes, expected {size}.")


def _read_max_length(information: UserInformation, body: bytes) -> UserInformation:
    _exactly(body, 4, "The Maximum Length sub-item")
    return replace(information, max_pdu_size_bytes=_LONG.unpack(body)[0])


def _read_class_uid(information: UserInformation, body: bytes) -> UserInformation:
    return replace(information, implementation_class_uid=Uid(decode_text(body)))


def _read_version_name(information: UserInformation, body: bytes) -> UserInformation:
    return replace(information, implementation_version_name=decode_text(body))


def _read_window(information: UserInformation, body: bytes) -> UserInformation:
    _exactly(body, 4, "The Asynchronous Operations Window sub-item")
    invoked, performed = _PAIR.unpack(body)
    return replace(information, asynchronous_window=(invoked, performed))


def _read_role(information: UserInformation, body: bytes) -> UserInformation:
    uid, at = _uncounted(body, 0, "A Role Selection sub-item")
    if len(body) - at < 2:
        raise ProtocolError("A Role Selection sub-item ends before its two roles.")
    role = RoleSelection(Uid(decode_text(uid)), body[at] == 1, body[at + 1] == 1)
    return replace(information, roles=(*information.roles, role))


def _read_extended(information: UserInformation, body: bytes) -> UserInformation:
    uid, at = _uncounted(body, 0, "An Extended Negotiation sub-item")
    one = ExtendedNegotiation(Uid(decode_text(uid)), body[at:])
    return replace(information, extended=(*information.extended, one))


def _read_common_extended(information: UserInformation, body: bytes) -> UserInformation:
    what = "A Common Extended Negotiation sub-item"
    sop_class, at = _uncounted(body, 0, what)
    service_class, at = _uncounted(body, at, what)
    related: list[Uid] = []
    if at < len(body):
        listed, _end = _uncounted(body, at, what)
        position = 0
        while position < len(listed):
            uid, position = _uncounted(listed, position, what)
            related.append(Uid(decode_text(uid)))
    one = CommonExtendedNegotiation(
        Uid(decode_text(sop_class)), Uid(decode_text(service_class)), tuple(related)
    )
    return replace(information, common_extended=(*information.common_extended, one))


def _read_identity(information: UserInformation, body: bytes) -> UserInformation:
    what = "The User Identity sub-item"
    if len(body) < 2:
        raise ProtocolError(f"{what} ends before its type.")
    primary, at = _uncounted(body, 2, what)
    # The secondary field may be absent altogether where it would be empty: some clients stop here.
    secondary = _uncounted(body, at, what)[0] if at < len(body) else b""
    identity = UserIdentity(body[0], primary, secondary, wants_response=body[1] == 1)
    return replace(information, identity=identity)


def _read_identity_response(information: UserInformation, body: bytes) -> UserInformation:
    response = _uncounted(body, 0, "The User Identity response")[0] if body else b""
    return replace(information, identity_response=response)


_READERS: dict[int, Callable[[UserInformation, bytes], UserInformation]] = {
    0x51: _read_max_length,
    0x52: _read_class_uid,
    0x53: _read_window,
    0x54: _read_role,
    0x55: _read_version_name,
    0x56: _read_extended,
    0x57: _read_common_extended,
    0x58: _read_identity,
    0x59: _read_identity_response,
}
