"""C-STORE requests that are made from one another are those that are encoded one by one."""

from __future__ import annotations

import pytest

from pacsteward.base.ids import AeTitle, Uid
from pacsteward.dicom.dimse import message as dimse
from pacsteward.dicom.dimse.message import CommandValue, FragmentStream, encode_command_set
from pacsteward.dicom.dimse.service import CommandField
from pacsteward.dicom.dimse.store_request import Originator, append_data_set, store_command

CT, MR = Uid("1.2.840.10008.5.1.4.1.1.2"), Uid("1.2.840.10008.5.1.4.1.1.4")


@pytest.mark.parametrize("originator", [None, (AeTitle("ODD"), 7), (AeTitle("MOVE_SCU"), 65535)])
@pytest.mark.parametrize("sop_class", [CT, MR])
def test_a_request_is_the_one_that_is_encoded_by_itself(
    sop_class: Uid, originator: Originator | None
) -> None:
    for instance, message_id in ((Uid("1.2.3"), 1), (Uid("1.2.34"), 4711), (Uid("1.2.5"), 65535)):
        command: dict[int, CommandValue] = {
            dimse.AFFECTED_SOP_CLASS_UID: sop_class,
            dimse.COMMAND_FIELD: CommandField.C_STORE,
            dimse.MESSAGE_ID: message_id,
            dimse.PRIORITY: dimse.PRIORITY_MEDIUM,
            dimse.COMMAND_DATA_SET_TYPE: dimse.WITH_DATA_SET,
            dimse.AFFECTED_SOP_INSTANCE_UID: instance,
        }
        if originator is not None:
            command[dimse.MOVE_ORIGINATOR_AE_TITLE] = originator[0]
            command[dimse.MOVE_ORIGINATOR_MESSAGE_ID] = originator[1]
        made = store_command(sop_class, instance, originator, message_id)
        assert made == encode_command_set(command)


@pytest.mark.parametrize("peer_max", [8, 9, 16, 106, 107, 16_384])
def test_a_data_set_is_cut_as_one_in_pieces_is(peer_max: int) -> None:
    for size in (0, 1, 2, 3, 99, 100, 101, 102, 200, 300, 20_000):
        data_set = bytes(number % 251 for number in range(size))
        stream = FragmentStream(5, peer_max)
        expected: list[bytes | memoryview] = []
        stream.feed(data_set, expected)
        stream.end(expected)
        made: list[bytes | memoryview] = []
        append_data_set(made, 5, memoryview(data_set), peer_max)
        assert b"".join(made) == b"".join(expected)
