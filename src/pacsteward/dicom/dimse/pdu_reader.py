"""What came from the wire, cut into PDUs: the eyes of an association.

Bytes that were received go in. Out come, in their order, fragments of messages, to `on_fragment`,
and all other PDUs, to the association, which steps its machine. Nearly all that ever comes is
P-DATA-TF PDUs of one fragment each: they are taken in one loop, with a few comparisons for each;
whatever is not quite as it should be goes the long way, which says what is wrong with it.

Nothing is believed before it is checked: a length field is compared with the limits before a byte
is read for it, a caller's first word must be A-ASSOCIATE-RQ, and after the first malformed PDU
what follows is thrown away unread.

References
----------
PS3.8 9.3 — structure of the PDUs; 9.3.5 and annex E — P-DATA-TF.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from pacsteward.dicom.dimse.limits import Limits
from pacsteward.dicom.dimse.machine import Machine, State
from pacsteward.dicom.dimse.pdu import (
    HEADER,
    P_DATA_HEADER,
    PDV_HEADER_SIZE,
    ControlPdu,
    PduType,
    check_length,
    decode_pdu,
    next_pdv,
)
from pacsteward.dicom.dimse.receive_buffer import ReceiveBuffer
from pacsteward.dicom.dimse.user_information import AbortReason, ProtocolError

_READS_AT_A_TIME = 1_000
"""Of one association; a sound sender's buffer holds a hundred PDVs, another's 150,000."""


class Reading(Protocol):
    """The association that reads, and acts on what it reads."""

    def control_pdu_arrived(self, pdu: ControlPdu) -> None:
        """Take any PDU but P-DATA-TF."""
        ...

    def p_data_arrived(self) -> bool:
        """Say whether a P-DATA-TF PDU may come now; act upon it if not."""
        ...

    def refuse_input(self, error: ProtocolError) -> None:
        """Treat what the peer sent as a malformed PDU."""
        ...

    def give_way(self) -> None:
        """Read on when other associations have had their turn."""
        ...


class PduReader:
    """Reads one association's buffer.

    Parameters
    ----------
    link
        Whose it is.
    machine
        Its state machine, which is only looked at.
    buffer
        What was received and not yet taken.
    """

    def __init__(
        self, link: Reading, machine: Machine, limits: Limits, buffer: ReceiveBuffer
    ) -> None:
        self._link = link
        self._machine = machine
        self._limits = limits
        self._buffer = buffer
        self._pdu_rest = 0
        """Bytes of the P-DATA-TF PDU whose fragments are being read one by one."""
        self.on_fragment: Callable[[int, int, memoryview], None] = _nobody_listens
        self.wanted = HEADER.size
        """At least so many bytes must come before there is anything to be read."""
        self.is_held = False
        """Whether nothing may be taken for now: somebody is behind."""
        self.is_deaf = False
        """Whether nothing more is believed."""

    def read(self) -> bool:
        """Take all whole PDUs that are there, or the first of very many.

        Returns
        -------
        bool
            Whether there were any: a sign of life.
        """
        left = _READS_AT_A_TIME
        try:
            while left > 0 and not (self.is_held or self.is_deaf):
                taken = self._read_fragments(left) or self._read_one()
                if not taken:
                    break
                left -= taken
            else:
                if left <= 0:
                    self._link.give_way()
        except ProtocolError as error:
            self._link.refuse_input(error)
        if self.is_deaf:
            # Not from the beginning again: an object that came before may lie there and be on its
            # way to the disk.
            self._buffer.start = self._buffer.end
        return left != _READS_AT_A_TIME

    def _read_fragments(self, count_max: int) -> int:
        """Take P-DATA-TF PDUs that hold one fragment, nearly all that ever come; return how many.

        Whatever is not quite as it should be is left to `_read_one`, which does the same in steps
        and says what is wrong.
        """
        buffer, machine = self._buffer, self._machine
        longest = self._limits.received_pdu_size_bytes_max
        count = 0
        while count < count_max and not (self._pdu_rest or self.is_held or self.is_deaf):
            start = buffer.start
            if buffer.end - start < P_DATA_HEADER.size:
                break
            pdu_type, length, item_length, context_id, control = P_DATA_HEADER.unpack_from(
                buffer.view, start
            )
            end = start + HEADER.size + length
            if (
                pdu_type != PduType.P_DATA_TF
                or item_length != length - 4
                or not PDV_HEADER_SIZE <= length <= longest
                or end > buffer.end
                or machine.state is not State.ESTABLISHED  # DT-2 changes nothing
            ):
                break
            count += 1
            # Moved on before the call, since the listener may hold and let go again.
            buffer.start = end
            self.on_fragment(context_id, control, buffer.view[start + P_DATA_HEADER.size : end])
        if count:
            self.wanted = HEADER.size
        return count

    def _read_one(self) -> bool:
        """Take one PDV or one PDU; return False when more bytes are needed."""
        buffer = self._buffer
        if self._pdu_rest:
            self._read_pdv()
            return True
        available = buffer.end - buffer.start
        if available < HEADER.size:
            self.wanted = HEADER.size - available
            return False
        pdu_type, length = HEADER.unpack_from(buffer.view, buffer.start)
        check_length(pdu_type, length, self._limits)
        self._check_first_word(pdu_type)
        if available < HEADER.size + length:
            self.wanted = HEADER.size + length - available
            return False
        self.wanted = HEADER.size
        buffer.start += HEADER.size
        if pdu_type == PduType.P_DATA_TF:
            self._begin_p_data(length)
        else:
            body = bytes(buffer.view[buffer.start : buffer.start + length])
            buffer.start += length
            self._link.control_pdu_arrived(decode_pdu(pdu_type, body))
        return True

    def _check_first_word(self, pdu_type: int) -> None:
        """Refuse a caller that begins with anything but A-ASSOCIATE-RQ before its bytes come.

        The table does the same (AA-1), only later.
        """
        is_awaited = pdu_type in (PduType.ASSOCIATE_RQ, PduType.ABORT)
        if self._machine.state is State.AWAITING_REQUEST and not is_awaited:
            raise ProtocolError(
                f"A PDU of type {pdu_type:02X}H came before any association.",
                reason=AbortReason.UNEXPECTED_PDU,
            )

    def _begin_p_data(self, length: int) -> None:
        if self._link.p_data_arrived():
            self._pdu_rest = length
        else:
            self._buffer.start += length

    def _read_pdv(self) -> None:
        buffer = self._buffer
        end = buffer.start + self._pdu_rest
        context_id, control, size = next_pdv(buffer.view, buffer.start, end)
        begin = buffer.start + PDV_HEADER_SIZE
        # Moved on before the call, since the listener may hold and let go again.
        buffer.start = begin + size
        self._pdu_rest -= PDV_HEADER_SIZE + size
        self.on_fragment(context_id, control, buffer.view[begin : begin + size])


def _nobody_listens(_context_id: int, _control: int, _fragment: memoryview) -> None:
    raise ProtocolError("Data came before the association was ready for it.")
