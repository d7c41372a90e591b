"""What is read from the wire is the same however it is cut, and stops where somebody says so."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest

from pacsteward.dicom.dimse import pdu_reader
from pacsteward.dicom.dimse.limits import Limits
from pacsteward.dicom.dimse.machine import Machine, State
from pacsteward.dicom.dimse.pdu import Abort, ControlPdu, PduType, ReleaseRequest, encode_pdu
from pacsteward.dicom.dimse.pdu_reader import PduReader
from pacsteward.dicom.dimse.receive_buffer import ChunkPool, ReceiveBuffer
from pacsteward.dicom.dimse.user_information import ProtocolError


def p_data(*fragments: tuple[int, int, bytes]) -> bytes:
    """Encode a P-DATA-TF PDU of fragments with their presentation context and control header."""
    values = b"".join(
        struct.pack(">IBB", len(fragment) + 2, context_id, control) + fragment
        for context_id, control, fragment in fragments
    )
    return struct.pack(">BxI", PduType.P_DATA_TF, len(values)) + values


ONE_EACH = (p_data((1, 3, b"command")), p_data((1, 0, b"data")), p_data((1, 2, b"")))
"""PDUs as nearly all are."""
TWO_IN_ONE = p_data((1, 1, b"com"), (1, 3, b"mand"))
"""A PDU that goes the long way."""
SAID = [(3, b"command"), (0, b"data"), (2, b""), (1, b"com"), (3, b"mand"), ReleaseRequest()]


class Link:
    """An association that writes down what it is told."""

    def __init__(self, state: State = State.ESTABLISHED) -> None:
        machine = Machine(is_requestor=False)
        machine.state = state
        self.buffer = ReceiveBuffer(ChunkPool(4096), 4096)
        self.reader = PduReader(self, machine, Limits(), self.buffer)
        self.reader.on_fragment = self.fragment
        self.heard: list[ControlPdu | tuple[int, bytes] | str] = []
        self.allows_p_data = True
        self.hears_first: int | None = None

    def fragment(self, _context_id: int, control: int, fragment: memoryview) -> None:
        self.heard.append((control, bytes(fragment)))
        if len(self.heard) == self.hears_first:
            self.reader.is_held = True

    def control_pdu_arrived(self, pdu: ControlPdu) -> None:
        self.heard.append(pdu)

    def p_data_arrived(self) -> bool:
        return self.allows_p_data

    def refuse_input(self, error: ProtocolError) -> None:
        self.heard.append(error.what)
        self.reader.is_deaf = True

    def give_way(self) -> None:
        self.heard.append("gave way")

    def receive(self, *pieces: bytes) -> bool:
        """Take `pieces` as they come, and say whether the last one showed that the peer lives."""
        lives = False
        for piece in pieces:
            room = self.buffer.room(self.reader.wanted)
            room[: len(piece)] = piece
            self.buffer.end += len(piece)
            lives = self.reader.read()
        return lives


def cut(data: bytes, size: int) -> Sequence[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("size", [1, 2, 5, 7, 13, 1000])
def test_what_is_heard_does_not_depend_on_how_it_came(size: int) -> None:
    link = Link()
    link.receive(*cut(b"".join(ONE_EACH) + TWO_IN_ONE + encode_pdu(ReleaseRequest()), size))
    assert link.heard == SAID


def test_only_a_whole_pdu_is_a_sign_of_life() -> None:
    link = Link()
    *drips, last = cut(ONE_EACH[0], 1)
    for drip in drips:
        assert not link.receive(drip)
    assert link.receive(last)
    assert link.receive(TWO_IN_ONE)
    assert link.receive(encode_pdu(ReleaseRequest()))


@pytest.mark.parametrize("hears_first", [1, 2, 3, 4])
def test_who_is_behind_is_given_nothing_more_and_loses_nothing(hears_first: int) -> None:
    link = Link()
    link.hears_first = hears_first
    link.receive(b"".join(ONE_EACH) + TWO_IN_ONE, encode_pdu(ReleaseRequest()))
    assert link.heard == SAID[:hears_first]
    link.reader.is_held = False
    link.reader.read()
    assert link.heard == SAID


def test_nothing_is_believed_after_the_first_malformed_pdu() -> None:
    link = Link()
    link.receive(ONE_EACH[0] + b"\x63\0\0\0\0\1" + ONE_EACH[1], ONE_EACH[2])
    assert link.heard[0] == SAID[0]
    assert len(link.heard) == 2
    assert link.buffer.start == link.buffer.end


def test_a_length_is_compared_with_the_limits_before_its_bytes_come() -> None:
    link = Link()
    link.receive(b"\x04\0\x7f\xff\xff\xff")
    assert link.reader.is_deaf


def test_the_first_word_is_refused_before_its_bytes_come() -> None:
    link = Link(State.AWAITING_REQUEST)
    link.receive(b"\x04\0\0\0\0\x50")
    assert link.reader.is_deaf
    other = Link(State.AWAITING_REQUEST)
    other.receive(encode_pdu(Abort(0)))
    assert other.heard == [Abort(0)]


def test_a_p_data_pdu_that_may_not_come_is_passed_over_as_a_whole() -> None:
    link = Link(State.AWAITING_RELEASE_REPLY)
    link.allows_p_data = False
    link.receive(ONE_EACH[0] + TWO_IN_ONE + encode_pdu(ReleaseRequest()))
    assert link.heard == [ReleaseRequest()]


def test_others_have_their_turn_after_very_many_fragments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdu_reader, "_READS_AT_A_TIME", 2)
    link = Link()
    link.receive(b"".join(ONE_EACH))
    assert link.heard == [*SAID[:2], "gave way"]
    link.reader.read()
    assert link.heard == [*SAID[:2], "gave way", SAID[2]]
