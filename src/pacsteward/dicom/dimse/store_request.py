"""C-STORE requests as they go over the wire, for series of hundreds.

Those of one association differ in Message ID and instance, and the fragments of their data sets
have one size but for the last. So the rest is encoded once.

References
----------
PS3.7 9.3.1.1 — C-STORE-RQ; PS3.8 9.3.5 and Annex E — fragments.
"""

from __future__ import annotations

from functools import lru_cache

from pacsteward.base.ids import AeTitle, Uid
from pacsteward.dicom.dimse import message as dimse
from pacsteward.dicom.dimse.message import CommandValue
from pacsteward.dicom.dimse.pdu import CONTROL_LAST, p_data_header
from pacsteward.dicom.dimse.service import CommandField

Originator = tuple[AeTitle, int]
"""AE title and Message ID of the C-MOVE that a C-STORE is a part of, PS3.7 9.1.1."""


def store_command(
    sop_class_uid: Uid, sop_instance_uid: Uid, originator: Originator | None, message_id: int
) -> bytes:
    """Return the command set of a request that has a data set."""
    instance = sop_instance_uid.encode("ascii", "replace")
    if len(instance) % 2:
        instance += b"\0"
    before, between, after = _frame(sop_class_uid, len(instance), originator)
    return b"".join((before, message_id.to_bytes(2, "little"), between, instance, after))


@lru_cache(maxsize=256)
def _frame(
    sop_class_uid: Uid, instance_size: int, originator: Originator | None
) -> tuple[bytes, bytes, bytes]:
    """Return what stands before, between and after Message ID and instance."""
    command: dict[int, CommandValue] = {
        dimse.AFFECTED_SOP_CLASS_UID: sop_class_uid,
        dimse.COMMAND_FIELD: CommandField.C_STORE,
        dimse.MESSAGE_ID: 0,
        dimse.PRIORITY: dimse.PRIORITY_MEDIUM,
        dimse.COMMAND_DATA_SET_TYPE: dimse.WITH_DATA_SET,
        dimse.AFFECTED_SOP_INSTANCE_UID: "0" * instance_size,
    }
    if originator is not None:
        command[dimse.MOVE_ORIGINATOR_AE_TITLE] = originator[0]
        command[dimse.MOVE_ORIGINATOR_MESSAGE_ID] = originator[1]
    whole = dimse.encode_command_set(command)
    number_at = _end_of(command, dimse.MESSAGE_ID) - 2
    instance_at = _end_of(command, dimse.AFFECTED_SOP_INSTANCE_UID) - instance_size
    return (
        whole[:number_at],
        whole[number_at + 2 : instance_at],
        whole[instance_at + instance_size :],
    )


def _end_of(command: dict[int, CommandValue], tag: int) -> int:
    """Return where an element ends: elements stand in the order of their tags."""
    return len(dimse.encode_command_set({one: command[one] for one in command if one <= tag}))


def append_data_set(
    out: list[bytes | memoryview], context_id: int, data_set: memoryview, peer_max: int
) -> None:
    """Append a whole data set, cut into P-DATA-TF PDUs as `FragmentStream` does, none copied."""
    room = (peer_max - 6) & ~1
    at, size = 0, len(data_set)
    if size > room:
        header = p_data_header(context_id, 0, room)
        while size - at > room:
            out += (header, data_set[at : at + room])
            at += room
    out.append(p_data_header(context_id, CONTROL_LAST, size - at))
    if size > at:
        out.append(data_set[at:])
