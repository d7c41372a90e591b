"""Command sets and the cutting of messages into PDUs."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pynetdicom.dsutils import decode as independent_decode
from pynetdicom.dsutils import encode as independent_encode

from pacsteward.dicom.dimse import Answer, CommandField, ProtocolError, SubOperations
from pacsteward.dicom.dimse import message as dimse
from pacsteward.dicom.dimse.message import (
    FragmentStream,
    decode_command_set,
    encode_command_set,
    error_comment,
    message_ids,
    response_command_set,
)
from pacsteward.dicom.dimse.test_support import (
    CT,
    find_command,
    presentation_data_values,
    store_command,
)


def theirs() -> Dataset:
    command = Dataset()
    command.AffectedSOPClassUID = CT
    command.CommandField = 1
    command.MessageID = 7
    command.Priority = 2
    command.CommandDataSetType = 1
    command.AffectedSOPInstanceUID = "1.2.3"
    command.MoveOriginatorApplicationEntityTitle = "MOVER"
    command.MoveOriginatorMessageID = 9
    return command


OURS = {
    0x0002: CT,
    0x0100: 1,
    0x0110: 7,
    0x0700: 2,
    0x0800: 1,
    0x1000: "1.2.3",
    0x1030: "MOVER",
    0x1031: 9,
}


def test_we_read_command_sets_of_another_implementation():
    encoded = independent_encode(theirs(), True, True)
    assert encoded is not None
    assert decode_command_set(encoded) == OURS


def test_another_implementation_reads_our_command_sets():
    from io import BytesIO

    encoded = encode_command_set(OURS)
    (length,) = struct.unpack_from("<I", encoded, 8)
    assert length == len(encoded) - 12
    decoded = independent_decode(BytesIO(encoded), True, True)
    del decoded[0x00000000]
    assert decoded == theirs()


def test_tags_and_comments_come_back_as_they_were():
    command = {0x0901: (0x00100010, 0x0020000D), 0x0902: "odd", 0x1005: (0x00080018,)}
    assert decode_command_set(encode_command_set(command)) == command


@pytest.mark.parametrize(
    "data",
    [
        b"\0\0\0",
        b"\0\0\0\1\2\0\0\0\1",
        b"\x08\0\0\1\2\0\0\0\1\0",
        b"\0\0\0\1\4\0\0\0\1\0\0\0",
        b"\0\0\0\1\xff\xff\xff\xff\1\0",
        b"\0\0\1\x09\3\0\0\0abc",
    ],
)
def test_malformed_command_sets_are_refused(data):
    with pytest.raises(ProtocolError):
        decode_command_set(data)


def test_command_sets_without_group_length_or_with_old_elements_are_read():
    element = struct.pack("<HHIH", 0, 0x0100, 2, 0x30)
    old = struct.pack("<HHI", 0, 0x0010, 4) + b"OLD "
    assert decode_command_set(old + element) == {0x0100: 0x30}


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_noise_is_a_command_set_or_a_protocol_error(noise):
    try:
        decode_command_set(noise)
    except ProtocolError:
        return


def test_c92_error_comment_is_short_and_plain():
    command = response_command_set(
        store_command(), Answer(0xA700, comment="Müller\\ " + "x" * 100), has_data_set=False
    )
    comment = decode_command_set(encode_command_set(command))[dimse.ERROR_COMMENT]
    assert comment == "M?ller? " + "x" * 56
    assert error_comment("a\r\nb") == "a??b"


def test_c83_remaining_is_absent_when_the_answer_has_none():
    counters = SubOperations(remaining=None, completed=3, failed=1, warning=0)
    command = response_command_set(
        find_command(), Answer(0xB000, sub_operations=counters), has_data_set=True
    )
    assert dimse.REMAINING_SUB_OPERATIONS not in command
    assert command[dimse.FAILED_SUB_OPERATIONS] == 1


def test_answer_names_the_object_of_dimse_n_as_affected():
    request = {
        dimse.REQUESTED_SOP_CLASS_UID: CT,
        dimse.REQUESTED_SOP_INSTANCE_UID: "1.2.3",
        dimse.COMMAND_FIELD: CommandField.N_SET,
        dimse.MESSAGE_ID: 4,
    }
    command = response_command_set(request, Answer(0), has_data_set=False)
    assert command[dimse.AFFECTED_SOP_CLASS_UID] == CT
    assert command[dimse.AFFECTED_SOP_INSTANCE_UID] == "1.2.3"
    assert command[dimse.COMMAND_FIELD] == 0x8120


@settings(max_examples=200, deadline=None)
@given(
    pieces=st.lists(st.binary(max_size=90), max_size=12),
    peer_max=st.integers(8, 100),
)
def test_any_pieces_become_pdus_that_fit_the_peer(pieces, peer_max):
    stream = FragmentStream(3, peer_max)
    out: list[bytes | memoryview] = []
    for piece in pieces:
        stream.feed(piece, out)
    stream.end(out)
    wire = memoryview(b"".join(out))
    fragments = []
    at = 0
    while at < len(wire):
        pdu_type, length = struct.unpack_from(">BxI", wire, at)
        assert pdu_type == 4
        assert length <= peer_max
        fragments += presentation_data_values(wire[at + 6 : at + 6 + length])
        at += 6 + length
    assert b"".join(bytes(data) for _n, _c, data in fragments) == b"".join(pieces)
    assert [control for _n, control, _d in fragments] == [0] * (len(fragments) - 1) + [2]
    assert {number for number, _c, _d in fragments} == {3}
    full = (peer_max - 6) & ~1
    assert all(len(data) == full for _n, _c, data in fragments[:-1])


def test_payload_is_not_copied_on_its_way_to_the_wire():
    payload = bytearray(100_000)
    stream = FragmentStream(1, 16384)
    out: list[bytes | memoryview] = []
    stream.feed(memoryview(payload), out)
    stream.end(out)
    slices = [piece for piece in out if isinstance(piece, memoryview)]
    assert all(piece.obj is payload for piece in slices)
    assert sum(map(len, slices)) == 100_000


def test_message_ids_never_are_zero():
    numbers = message_ids()
    first_round = [next(numbers) for _ in range(0xFFFF)]
    assert first_round[0] == 1
    assert 0 not in first_round
    assert next(numbers) == 1


@given(
    message_id=st.integers(0, 0xFFFF),
    instance=st.text("0123456789.é", max_size=64),
    status=st.sampled_from([0x0000, 0xB000, 0xA700]),
    comment=st.text(max_size=80),
)
def test_answers_to_c_store_made_from_a_frame_are_those_made_from_values(
    message_id, instance, status, comment
):
    request = {
        dimse.AFFECTED_SOP_CLASS_UID: "1.2.840.10008.5.1.4.1.1.2",
        dimse.COMMAND_FIELD: CommandField.C_STORE,
        dimse.MESSAGE_ID: message_id,
        dimse.AFFECTED_SOP_INSTANCE_UID: instance,
    }
    answer = Answer(status, comment=comment)
    values = dimse.response_command_set(request, answer, has_data_set=False)
    encoded = dimse.encode_command_set(values)
    pieces = dimse.whole_pdus(7, encoded, is_command=True, peer_max=1 << 16)
    assert dimse.store_response(7, request, answer) == b"".join(pieces)
