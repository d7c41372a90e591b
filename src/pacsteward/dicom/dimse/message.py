"""DIMSE messages: command sets as values, and messages cut into P-DATA-TF PDUs.

A message is a command set (group 0000, always Implicit VR Little Endian) and perhaps a data set,
which is not looked into here. Command sets enter as bytes and leave as a mapping from tag to value,
and back; a data set enters as pieces of any size and leaves as PDUs that fit the peer, made of
headers and slices, so that no byte of an image is copied on its way out.

Where real devices deviate we are lenient, and it is said here: the group length may be missing or
wrong, elements may be in any order, values may be of odd length, unknown elements of group 0000 are
skipped (older editions had more of them).

References
----------
PS3.7 6.3, 9.3, 10.3, Annexes C and E; PS3.8 Annex E.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from pacsteward.dicom.dimse.pdu import CONTROL_COMMAND, CONTROL_LAST, p_data_header
from pacsteward.dicom.dimse.service import Answer, CommandField, SubOperations
from pacsteward.dicom.dimse.user_information import ProtocolError

CommandValue = str | int | tuple[int, ...]
CommandSet = Mapping[int, CommandValue]

AFFECTED_SOP_CLASS_UID: Final = 0x00000002
REQUESTED_SOP_CLASS_UID: Final = 0x00000003
COMMAND_FIELD: Final = 0x00000100
MESSAGE_ID: Final = 0x00000110
MESSAGE_ID_BEING_RESPONDED_TO: Final = 0x00000120
MOVE_DESTINATION: Final = 0x00000600
PRIORITY: Final = 0x00000700
COMMAND_DATA_SET_TYPE: Final = 0x00000800
STATUS: Final = 0x00000900
OFFENDING_ELEMENT: Final = 0x00000901
ERROR_COMMENT: Final = 0x00000902
AFFECTED_SOP_INSTANCE_UID: Final = 0x00001000
REQUESTED_SOP_INSTANCE_UID: Final = 0x00001001
EVENT_TYPE_ID: Final = 0x00001002
ATTRIBUTE_IDENTIFIER_LIST: Final = 0x00001005
ACTION_TYPE_ID: Final = 0x00001008
REMAINING_SUB_OPERATIONS: Final = 0x00001020
COMPLETED_SUB_OPERATIONS: Final = 0x00001021
FAILED_SUB_OPERATIONS: Final = 0x00001022
WARNING_SUB_OPERATIONS: Final = 0x00001023
MOVE_ORIGINATOR_AE_TITLE: Final = 0x00001030
MOVE_ORIGINATOR_MESSAGE_ID: Final = 0x00001031

NO_DATA_SET: Final = 0x0101
"""Command Data Set Type of a message without one; any other value announces a data set."""
WITH_DATA_SET: Final = 0x0001
RESPONSE_BIT: Final = 0x8000
PRIORITY_MEDIUM: Final = 0x0000

_VR: Final[dict[int, str]] = {
    0x00000000: "UL",
    AFFECTED_SOP_CLASS_UID: "UI",
    REQUESTED_SOP_CLASS_UID: "UI",
    COMMAND_FIELD: "US",
    MESSAGE_ID: "US",
    MESSAGE_ID_BEING_RESPONDED_TO: "US",
    MOVE_DESTINATION: "AE",
    PRIORITY: "US",
    COMMAND_DATA_SET_TYPE: "US",
    STATUS: "US",
    OFFENDING_ELEMENT: "AT",
    ERROR_COMMENT: "LO",
    0x00000903: "US",  # Error ID
    AFFECTED_SOP_INSTANCE_UID: "UI",
    REQUESTED_SOP_INSTANCE_UID: "UI",
    EVENT_TYPE_ID: "US",
    ATTRIBUTE_IDENTIFIER_LIST: "AT",
    ACTION_TYPE_ID: "US",
    REMAINING_SUB_OPERATIONS: "US",
    COMPLETED_SUB_OPERATIONS: "US",
    FAILED_SUB_OPERATIONS: "US",
    WARNING_SUB_OPERATIONS: "US",
    MOVE_ORIGINATOR_AE_TITLE: "AE",
    MOVE_ORIGINATOR_MESSAGE_ID: "US",
}
"""The elements of PS3.7 E.1."""

_SIZES: Final = {"US": 2, "UL": 4}
_ELEMENT = struct.Struct("<HHI")
_SHORT_ELEMENT = struct.Struct("<HHIH")
_LONG_ELEMENT = struct.Struct("<HHII")
_AT = struct.Struct("<HH")
_GROUP_LENGTH_SIZE: Final = _LONG_ELEMENT.size

BY_REQUESTED: Final = frozenset(
    {CommandField.N_GET, CommandField.N_SET, CommandField.N_ACTION, CommandField.N_DELETE}
)
"""Requests that name their object with Requested SOP Class/Instance UID, PS3.7 10.3."""


@dataclass(frozen=True, slots=True)
class Response:
    """One response message of a peer.

    Parameters
    ----------
    status
        Value of Status (0000,0900).
    comment
        Error Comment (0000,0902), "" without one.
    data_set
        Encoded in the context's transfer syntax; None without one.
    """

    status: int
    comment: str
    command: CommandSet
    data_set: bytes | None = None

    @property
    def is_pending(self) -> bool:
        """Whether more responses follow (PS3.7 Annex C)."""
        return self.status in (0xFF00, 0xFF01)

    @property
    def sub_operations(self) -> SubOperations:
        """The counters of a C-MOVE or C-GET response; those not given count 0."""
        remaining = self.command.get(REMAINING_SUB_OPERATIONS)
        return SubOperations(
            remaining=remaining if isinstance(remaining, int) else None,
            completed=number(self.command, COMPLETED_SUB_OPERATIONS) or 0,
            failed=number(self.command, FAILED_SUB_OPERATIONS) or 0,
            warning=number(self.command, WARNING_SUB_OPERATIONS) or 0,
        )


def number(command: CommandSet, tag: int) -> int | None:
    """Return the value of a US element, None when it is missing."""
    value = command.get(tag)
    return value if isinstance(value, int) else None


def text(command: CommandSet, tag: int) -> str:
    """Return the value of a UI, AE or LO element, "" when it is missing."""
    value = command.get(tag)
    return value if isinstance(value, str) else ""


def decode_command_set(data: bytes | bytearray | memoryview) -> dict[int, CommandValue]:
    """Read a command set.

    Raises
    ------
    ProtocolError
        An element does not fit, is not of group 0000, or a number has another size than its VR.
    """
    command: dict[int, CommandValue] = {}
    data = bytes(data)
    at, end = 0, len(data)
    while at < end:
        if end - at < _ELEMENT.size:
            raise ProtocolError("A command set ends in the middle of an element header.")
        group, element, length = _ELEMENT.unpack_from(data, at)
        at += _ELEMENT.size
        if group != 0:
            raise ProtocolError(f"A command set holds an element of group {group:04X}.")
        if length > end - at:
            raise ProtocolError(
                f"Command element (0000,{element:04X}) claims {length} bytes where {end - at} are."
            )
        vr = _VR.get(element)
        if vr == "US" and length == 2:  # most of them
            command[element] = data[at] | data[at + 1] << 8
        elif vr == "UI" and length:
            command[element] = data[at : at + length].decode("latin-1").strip(" \0")
        elif vr is not None and length:
            command[element] = _decode_value(vr, data[at : at + length], element)
        at += length
    command.pop(0, None)
    return command


def encode_command_set(command: CommandSet) -> bytes:
    """Return a command set with its group length, in order of tags."""
    body = b"".join(_encode_element(tag, command[tag]) for tag in sorted(command))
    return _LONG_ELEMENT.pack(0, 0, 4, len(body)) + body


def response_command_set(
    request: CommandSet, answer: Answer, *, has_data_set: bool
) -> dict[int, CommandValue]:
    """Return the command set that answers `request`.

    The SOP class and instance of the request are repeated (optional in PS3.7 9.3 and 10.3; some
    requestors miss them), those of `answer.extra` win.
    """
    field = number(request, COMMAND_FIELD) or 0
    command: dict[int, CommandValue] = {
        COMMAND_FIELD: field | RESPONSE_BIT,
        MESSAGE_ID_BEING_RESPONDED_TO: number(request, MESSAGE_ID) or 0,
        COMMAND_DATA_SET_TYPE: WITH_DATA_SET if has_data_set else NO_DATA_SET,
        STATUS: answer.status,
    }
    by_requested = field in BY_REQUESTED
    sop_class = REQUESTED_SOP_CLASS_UID if by_requested else AFFECTED_SOP_CLASS_UID
    instance = REQUESTED_SOP_INSTANCE_UID if by_requested else AFFECTED_SOP_INSTANCE_UID
    if sop_class in request:
        command[AFFECTED_SOP_CLASS_UID] = request[sop_class]
    if instance in request:
        command[AFFECTED_SOP_INSTANCE_UID] = request[instance]
    if answer.offending:
        command[OFFENDING_ELEMENT] = answer.offending
    if answer.comment:
        command[ERROR_COMMENT] = error_comment(answer.comment)
    if answer.sub_operations is not None:
        command.update(_counters(answer.sub_operations))
    command.update(answer.extra)
    return command


def store_response(context_id: int, request: CommandSet, answer: Answer) -> bytes:
    """Return a plain answer to a C-STORE that names class and instance, as one P-DATA-TF PDU.

    Those of an association differ in Message ID and instance: the rest is encoded once for each
    length that the latter has.
    """
    instance = text(request, AFFECTED_SOP_INSTANCE_UID).encode("ascii", "replace")
    if len(instance) % 2:
        instance += b"\0"
    before, between = _store_response_frame(
        context_id,
        text(request, AFFECTED_SOP_CLASS_UID),
        answer.status,
        answer.comment,
        len(instance),
    )
    message_id = number(request, MESSAGE_ID) or 0
    return b"".join((before, message_id.to_bytes(2, "little"), between, instance))


@lru_cache(maxsize=1024)
def _store_response_frame(
    context_id: int, sop_class_uid: str, status: int, comment: str, instance_size: int
) -> tuple[bytes, bytes]:
    """Return what stands before the Message ID, and between it and the instance, which is last."""
    request: dict[int, CommandValue] = {
        AFFECTED_SOP_CLASS_UID: sop_class_uid,
        COMMAND_FIELD: CommandField.C_STORE,
        AFFECTED_SOP_INSTANCE_UID: "0" * instance_size,
    }
    command = response_command_set(request, Answer(status, comment=comment), has_data_set=False)
    encoded = encode_command_set(command)
    whole = p_data_header(context_id, CONTROL_COMMAND | CONTROL_LAST, len(encoded)) + encoded
    earlier = [tag for tag in command if tag <= MESSAGE_ID_BEING_RESPONDED_TO]
    begins_at = len(whole) - len(encoded) + _GROUP_LENGTH_SIZE
    at = begins_at + sum(len(_encode_element(tag, command[tag])) for tag in earlier)
    return whole[: at - 2], whole[at : len(whole) - instance_size]


def error_comment(comment: str) -> str:
    """Return a text as Error Comment takes it: LO, at most 64 characters, default repertoire."""
    plain = "".join(
        character if " " <= character <= "~" and character != "\\" else "?" for character in comment
    )
    return plain[:64].rstrip()


def whole_pdus(context_id: int, payload: bytes, *, is_command: bool, peer_max: int) -> list[bytes]:
    """Return a command set, or a small data set, as headers and fragments in order.

    Parameters
    ----------
    peer_max
        The longest P-DATA-TF PDU to send, without its header.
    """
    if len(payload) <= peer_max - 6:  # nearly always
        control = CONTROL_LAST | (CONTROL_COMMAND if is_command else 0)
        return [p_data_header(context_id, control, len(payload)), payload]
    stream = FragmentStream(context_id, peer_max, is_command=is_command)
    pieces: list[bytes | memoryview] = []
    stream.feed(payload, pieces)
    stream.end(pieces)
    return [bytes(piece) for piece in pieces]


class FragmentStream:
    """Cuts one command set or data set, given in pieces of any size, into P-DATA-TF PDUs.

    Every PDU is as long as the peer takes, except the last; fragments have an even number of bytes
    whatever the pieces are. A fragment may be made of slices of several pieces; none is copied.

    Parameters
    ----------
    context_id
        Presentation context of the message.
    peer_max
        The longest P-DATA-TF PDU to send, without its six bytes of header; at least 8.
    """

    def __init__(self, context_id: int, peer_max: int, *, is_command: bool = False) -> None:
        self._context_id = context_id
        self._control = CONTROL_COMMAND if is_command else 0
        self._room = (peer_max - 6) & ~1
        self._waiting: list[bytes | memoryview] = []
        self._waiting_size = 0

    def feed(self, piece: bytes | memoryview, out: list[bytes | memoryview]) -> None:
        """Take the next piece; append to `out` the PDUs that are full because of it."""
        at, size = 0, len(piece)
        if size <= self._room - self._waiting_size:  # a small piece waits as it is
            if size:
                self._waiting.append(piece)
                self._waiting_size += size
            return
        view = memoryview(piece)
        while at < size:
            # A full fragment goes out only when more comes: the last one needs another flag.
            if self._waiting_size == self._room:
                self._emit(out, 0)
            taken = min(size - at, self._room - self._waiting_size)
            self._waiting.append(view[at : at + taken])
            self._waiting_size += taken
            at += taken

    def end(self, out: list[bytes | memoryview]) -> None:
        """All pieces were given: append the last PDU, which may be an empty fragment."""
        self._emit(out, CONTROL_LAST)

    def _emit(self, out: list[bytes | memoryview], last: int) -> None:
        out.append(p_data_header(self._context_id, self._control | last, self._waiting_size))
        out.extend(self._waiting)
        self._waiting.clear()
        self._waiting_size = 0


def message_ids() -> Iterator[int]:
    """Yield Message IDs 1 to 65,535 over and over; 0 is legal but confuses some devices."""
    while True:
        yield from range(1, 0x10000)


def _counters(counters: SubOperations) -> dict[int, CommandValue]:
    values: dict[int, CommandValue] = {
        COMPLETED_SUB_OPERATIONS: min(counters.completed, 0xFFFF),
        FAILED_SUB_OPERATIONS: min(counters.failed, 0xFFFF),
        WARNING_SUB_OPERATIONS: min(counters.warning, 0xFFFF),
    }
    if counters.remaining is not None:
        values[REMAINING_SUB_OPERATIONS] = min(counters.remaining, 0xFFFF)
    return values


def _decode_value(vr: str, value: bytes, element: int) -> CommandValue:
    if vr in _SIZES:
        if len(value) != _SIZES[vr]:
            raise ProtocolError(
                f"Command element (0000,{element:04X}) of VR {vr} has {len(value)} bytes."
            )
        return int.from_bytes(value, "little")
    if vr == "AT":
        if len(value) % 4:
            raise ProtocolError(f"Command element (0000,{element:04X}) is not a list of tags.")
        return tuple(group << 16 | number for group, number in _AT.iter_unpack(value))
    return value.decode("latin-1").strip(" \0")


# Of a message few elements differ from those of the one before.
@lru_cache(maxsize=1024)
def _encode_element(tag: int, value: CommandValue) -> bytes:
    vr = _VR[tag]
    if isinstance(value, int):
        if vr == "US":
            return _SHORT_ELEMENT.pack(0, tag, 2, value)
        if vr == "AT":
            return _ELEMENT.pack(0, tag, 4) + _AT.pack(value >> 16, value & 0xFFFF)
        return _LONG_ELEMENT.pack(0, tag, 4, value)
    if isinstance(value, tuple):
        tags = b"".join(_AT.pack(one >> 16, one & 0xFFFF) for one in value)
        return _ELEMENT.pack(0, tag, len(tags)) + tags
    encoded = value.encode("ascii", "replace")
    if len(encoded) % 2:
        encoded += b"\0" if vr == "UI" else b" "
    return _ELEMENT.pack(0, tag, len(encoded)) + encoded
