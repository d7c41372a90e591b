"""An association on a socket: the state machine given hands, eyes and a watch.

Bytes come in through asyncio's buffered protocol; `pdu_reader.py` cuts them into PDUs, which become
events of the machine. The machine's actions become PDUs, timers and calls of the *user*, in the
sense of PS3.8: the side that decides who may come in (`server.py`, `client.py`). Fragments of
messages go to whoever listens, which is `conversation.py`.

Nothing here knows a SOP class. What it guards is the wire:

- after the first malformed PDU nothing more is believed;
- who is silent for too long is cut (`watch.py`); only whole PDUs count as signs of life;
- the door reads on only while somebody takes what was read (`hold`, `release_hold`).

References
----------
PS3.8 chapters 7 and 9.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import cast

from pacsteward.dicom.dimse.association_user import AssociationAborted, AssociationUser
from pacsteward.dicom.dimse.limits import Limits
from pacsteward.dicom.dimse.machine import Action, Event, Machine, State
from pacsteward.dicom.dimse.pdu import (
    HEADER,
    Abort,
    AssociateAccept,
    AssociateReject,
    AssociateRequest,
    ControlPdu,
    ReleaseReply,
    ReleaseRequest,
    encode_pdu,
)
from pacsteward.dicom.dimse.pdu_reader import PduReader
from pacsteward.dicom.dimse.receive_buffer import ChunkPool, ReceiveBuffer
from pacsteward.dicom.dimse.user_information import AbortReason, ProtocolError
from pacsteward.dicom.dimse.watch import Watch

log = logging.getLogger("pacsteward.dicom.dimse")

WRITE_HIGH_WATER_BYTES = 512 * 1024
WRITE_LOW_WATER_BYTES = 128 * 1024

_CLOSING_PATIENCE_S = 1.0

_QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)
"""Linux only. Without it a sender with Nagle's algorithm on waits 40 ms for our delayed ACK in the
middle of a message. Setting it sends an ACK that is due, and the option is not sticky: it is set
whenever more of a message must come. What is whole is acknowledged with our answer."""

_EVENTS: dict[type[ControlPdu], Event] = {
    AssociateRequest: Event.ASSOCIATE_RQ_PDU,
    AssociateAccept: Event.ASSOCIATE_AC_PDU,
    AssociateReject: Event.ASSOCIATE_RJ_PDU,
    ReleaseRequest: Event.RELEASE_RQ_PDU,
    ReleaseReply: Event.RELEASE_RP_PDU,
    Abort: Event.ABORT_PDU,
}


class Association(asyncio.BufferedProtocol):
    """The upper layer of one connection.

    Parameters
    ----------
    user
        Told of everything that is not a fragment of a message.
    is_requestor
        Whether our side asks for the association.
    limits
        Sizes and times.
    pool
        Where receive buffers come from.
    request
        For the requestor: what to send as soon as the connection stands.
    """

    def __init__(
        self,
        user: AssociationUser,
        *,
        is_requestor: bool,
        limits: Limits,
        pool: ChunkPool,
        request: AssociateRequest | None = None,
    ) -> None:
        self._user = user
        self._limits = limits
        self._request = request
        self._machine = Machine(is_requestor=is_requestor)
        if is_requestor:
            self._machine.step(Event.ASSOCIATE_REQUEST)
        self._is_requestor = is_requestor
        self._buffer = ReceiveBuffer(pool, limits.associate_pdu_size_bytes_max + HEADER.size)
        self._reader = PduReader(self, self._machine, limits, self._buffer)
        self._is_giving_way = False
        self._ended_how: str | None = None
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._socket: socket.socket | None = None
        self._is_in_tls = False
        self._watch = Watch(self, limits, self._close_connection)
        self._last_sign = self._loop.time()
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._disconnected = asyncio.Event()
        self._is_in_message: Callable[[], bool] = bool
        self._is_busy: Callable[[], bool] = bool
        self.received_size_bytes = 0
        self.sent_size_bytes = 0
        self._do: dict[Action, Callable[[ControlPdu | None], None]] = {
            Action.CLOSE: lambda _pdu: self._close_connection(),
            Action.START_ARTIM: lambda _pdu: self._watch.start_artim(),
            Action.STOP_ARTIM: lambda _pdu: self._watch.stop_artim(),
            Action.SEND_ASSOCIATE_RQ: self._do_send,
            Action.SEND_ASSOCIATE_AC: self._do_send,
            Action.SEND_ASSOCIATE_RJ: self._do_send,
            Action.SEND_RELEASE_RQ: self._do_send,
            Action.SEND_RELEASE_RP: self._do_send,
            Action.SEND_USER_ABORT: self._do_send_user_abort,
            Action.SEND_PROVIDER_ABORT: self._do_send_provider_abort,
            Action.INDICATE_ASSOCIATE: self._do_indicate_associate,
            Action.CONFIRM_ACCEPT: self._do_confirm,
            Action.CONFIRM_REJECT: self._do_confirm,
            Action.INDICATE_RELEASE: self._do_indicate_release,
            Action.CONFIRM_RELEASE: self._do_confirm_release,
            Action.INDICATE_ABORT: self._do_indicate_abort,
            Action.INDICATE_PROVIDER_ABORT: self._do_indicate_provider_abort,
        }

    # What the user may ask ---------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Where the association stands."""
        return self._machine.state

    @property
    def is_established(self) -> bool:
        """Whether messages may be sent."""
        return self._machine.allows(Event.P_DATA_REQUEST)

    @property
    def ended_how(self) -> str | None:
        """Why the association is over; None while it is not."""
        return self._ended_how

    @property
    def quiet_s(self) -> float:
        """Seconds since the last sign of life."""
        return self._loop.time() - self._last_sign

    @property
    def is_inside(self) -> bool:
        """Whether a message has begun to come and is not whole."""
        return self._buffer.start != self._buffer.end or self._is_in_message()

    @property
    def is_our_turn(self) -> bool:
        """Whether the peer waits for us, or a wait has a timer of its own."""
        return self._reader.is_held or self._is_busy()

    def listen(
        self,
        on_fragment: Callable[[int, int, memoryview], None],
        *,
        is_in_message: Callable[[], bool] = bool,
        is_busy: Callable[[], bool] = bool,
    ) -> None:
        """Give all fragments of messages that come to `on_fragment`.

        Parameters
        ----------
        on_fragment
            Called with presentation context, message control header and fragment.
        is_in_message
            Whether a message has begun to come and is not whole.
        is_busy
            Whether the peer waits for us, or a wait has a timer of its own.
        """
        self._reader.on_fragment = on_fragment
        self._is_in_message = is_in_message
        self._is_busy = is_busy

    def accept(self, answer: AssociateAccept) -> None:
        """Let the requestor in."""
        self._advance(Event.ASSOCIATE_ACCEPT, answer)
        self._established()

    def reject(self, answer: AssociateReject) -> None:
        """Turn the requestor away."""
        self._advance(Event.ASSOCIATE_REJECT, answer)

    def request_release(self) -> None:
        """Ask the peer to part. Nothing happens when it is too late for that."""
        if self._machine.allows(Event.RELEASE_REQUEST):
            self._advance(Event.RELEASE_REQUEST, ReleaseRequest())

    def reply_to_release(self) -> None:
        """Agree to part. Nothing happens when the peer is gone already."""
        if self._machine.allows(Event.RELEASE_RESPONSE):
            self._end("released by the peer")
            self._advance(Event.RELEASE_RESPONSE, ReleaseReply())

    def abort(self, how: str) -> None:
        """End the association at once, in whatever state it is."""
        self._reader.is_deaf = True
        self._end(how)
        if self._machine.allows(Event.ABORT_REQUEST):
            self._advance(Event.ABORT_REQUEST)
        elif self._transport is not None and self._machine.state is not State.AWAITING_CLOSE:
            self._transport.abort()

    def refuse_input(self, error: ProtocolError) -> None:
        """Treat what the peer sent as a malformed PDU (Evt19)."""
        peer = None if self._transport is None else self._transport.get_extra_info("peername")
        told = {"reason": int(error.reason), "address": peer[0] if peer else ""}
        log.info("Malformed input: %s", error.what, extra=told)
        self._reader.is_deaf = True
        self._end(f"cut: {error.what}")
        if self._machine.allows(Event.INVALID_PDU):
            self._advance(Event.INVALID_PDU, Abort(2, error.reason))

    async def close(self) -> None:
        """Close the connection without waiting for the peer to do it, and wait until it is so.

        TLS would wait half a minute for the peer's goodbye; we do not.
        """
        self._close_connection()
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSING_PATIENCE_S):
                await self._disconnected.wait()
        if self._transport is not None:
            self._transport.abort()
        await self._disconnected.wait()

    # Sending -------------------------------------------------------------------------------------

    def send(self, pieces: Sequence[bytes | memoryview]) -> None:
        """Send P-DATA-TF PDUs, given as headers and fragments, with one write.

        The memory of `pieces` must not change until it is on the wire.

        Raises
        ------
        AssociationAborted
            The association is over.
        """
        transport = self._transport
        if transport is None or transport.is_closing() or not self.is_established:
            raise self._over()
        self._machine.step(Event.P_DATA_REQUEST)
        self._last_sign = self._loop.time()
        if len(pieces) == 1:
            self.sent_size_bytes += len(pieces[0])
            transport.write(pieces[0])
        else:
            self.sent_size_bytes += sum(map(len, pieces))
            transport.writelines(pieces)

    @property
    def may_write(self) -> bool:
        """Whether the peer has taken most of what was sent; else `drain` waits for that."""
        return self._may_write.is_set()

    async def drain(self) -> None:
        """Wait until the peer has taken most of what was sent.

        Raises
        ------
        AssociationAborted
            The association is over, or the peer took nothing for `Limits.data_set_idle_s`.
        """
        while not self._may_write.is_set():
            before = self._unsent_size_bytes()
            try:
                async with asyncio.timeout(self._limits.data_set_idle_s):
                    await self._may_write.wait()
            except TimeoutError:
                if self._unsent_size_bytes() >= before and not self._may_write.is_set():
                    self.abort("cut: the peer stopped reading in the middle of a message")
        if not self.is_established:
            raise self._over()

    def _unsent_size_bytes(self) -> int:
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def _over(self) -> AssociationAborted:
        return AssociationAborted(
            "The association is over.", why=f"It was {self._ended_how or 'not established'}."
        )

    # asyncio calls these -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over a new connection."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(WRITE_HIGH_WATER_BYTES, WRITE_LOW_WATER_BYTES)
        self._is_in_tls = transport.get_extra_info("sslcontext") is not None
        self._socket = transport.get_extra_info("socket")
        if self._socket is not None:
            with suppress(OSError):  # a peer that is gone already: connection_lost follows
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if self._is_requestor:
            self._advance(Event.CONNECTED, self._request)
        else:
            self._advance(Event.CONNECTION_ARRIVED)

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Return memory for the next bytes."""
        if self._is_in_tls:
            self._hasten()  # whether a message is whole is not known before its record is
        return self._buffer.room(self._reader.wanted)

    def buffer_updated(self, nbytes: int) -> None:
        """Take note of new bytes."""
        buffer = self._buffer
        self.received_size_bytes += nbytes
        if buffer.start == buffer.end:
            self._last_sign = self._loop.time()
        buffer.end += nbytes
        if self._reader.read():
            self._last_sign = self._loop.time()
        if buffer.start != buffer.end or self._is_in_message():
            self._hasten()

    def _hasten(self) -> None:
        """Have the kernel acknowledge at once what has come."""
        if _QUICK_ACK is not None and self._socket is not None:
            self._socket.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)

    def eof_received(self) -> bool:
        """Let asyncio close the connection: no PDU can follow."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Say goodbye to the user."""
        self._end("cut: the connection was closed by the peer" if exc is None else f"cut: {exc}")
        if self._machine.allows(Event.CONNECTION_CLOSED):
            self._advance(Event.CONNECTION_CLOSED)
        self._watch.stop()
        self._transport = self._socket = None
        self._may_write.set()
        self._buffer.discard()
        self._disconnected.set()
        self._user.disconnected()

    def pause_writing(self) -> None:
        """Stop senders: the peer is slow."""
        self._may_write.clear()

    def resume_writing(self) -> None:
        """Let senders go on."""
        self._may_write.set()

    # Reading -------------------------------------------------------------------------------------

    def hold(self) -> None:
        """Take nothing more from the wire: somebody is behind."""
        self._reader.is_held = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def release_hold(self) -> None:
        """Go on with what was received, then with the wire."""
        self._reader.is_held = False
        self._last_sign = self._loop.time()
        self._go_on()

    def _go_on(self) -> None:
        self._is_giving_way = False
        if self._transport is not None:
            if self._reader.read():
                self._last_sign = self._loop.time()
            if not (self._reader.is_held or self._is_giving_way or self._transport.is_closing()):
                self._transport.resume_reading()

    def message_done(self) -> None:
        """Say that a message was dealt with, so that its memory can serve another."""
        self._last_sign = self._loop.time()
        self._buffer.rewind()

    def give_way(self) -> None:
        """Read on when other associations have had their turn."""
        if self._transport is not None and not self._is_giving_way:
            self._is_giving_way = True
            self._transport.pause_reading()
            self._loop.call_soon(self._go_on)

    # The machine's actions -----------------------------------------------------------------------

    def control_pdu_arrived(self, pdu: ControlPdu) -> None:
        """Do what the machine says upon any PDU but P-DATA-TF."""
        self._advance(_EVENTS[type(pdu)], pdu)

    def p_data_arrived(self) -> bool:
        """Say whether a P-DATA-TF PDU may come now; act upon it if not."""
        actions = self._machine.step(Event.P_DATA_TF_PDU)
        if Action.INDICATE_P_DATA in actions:
            return True
        self._perform(actions, Abort(2, AbortReason.UNEXPECTED_PDU))
        return False

    def _advance(self, event: Event, pdu: ControlPdu | None = None) -> None:
        self._perform(self._machine.step(event), pdu)

    def _perform(self, actions: tuple[Action, ...], pdu: ControlPdu | None) -> None:
        for action in actions:
            self._do[action](pdu)

    def _write(self, pdu: ControlPdu) -> None:
        if self._transport is not None and not self._transport.is_closing():
            data = encode_pdu(pdu)
            self.sent_size_bytes += len(data)
            self._transport.write(data)

    def _do_send(self, pdu: ControlPdu | None) -> None:
        assert pdu is not None
        self._write(pdu)

    def _do_send_user_abort(self, _pdu: ControlPdu | None) -> None:
        self._reader.is_deaf = True
        self._end("aborted by us")
        self._write(Abort(0))

    def _do_send_provider_abort(self, pdu: ControlPdu | None) -> None:
        """Send A-ABORT; an unexpected PDU is the reason unless another is given."""
        self._reader.is_deaf = True
        is_ours = isinstance(pdu, Abort) and pdu.source == 2
        self._write(pdu if is_ours and pdu else Abort(2, AbortReason.UNEXPECTED_PDU))

    def _close_connection(self) -> None:
        self._reader.is_deaf = True
        if self._transport is None:
            return
        if self._unsent_size_bytes():
            # A peer that does not read cannot keep us: what it has not taken is dropped.
            self._transport.abort()
        else:
            self._transport.close()

    def artim_expired(self) -> None:
        """End it: the peer did not do what it had to do in time."""
        self._reader.is_deaf = True
        self._end(f"cut: silent for {self._limits.artim_s:g} s before any association (ARTIM)")
        if self._machine.allows(Event.ARTIM_EXPIRED):
            self._advance(Event.ARTIM_EXPIRED)
        self._close_connection()

    def _do_indicate_associate(self, pdu: ControlPdu | None) -> None:
        assert isinstance(pdu, AssociateRequest)
        self._user.associate_indicated(pdu)

    def _do_confirm(self, pdu: ControlPdu | None) -> None:
        assert isinstance(pdu, AssociateAccept | AssociateReject)
        if isinstance(pdu, AssociateAccept):
            self._established()
        else:
            self._end("refused by the peer")
        self._user.associate_confirmed(pdu)

    def _do_indicate_release(self, _pdu: ControlPdu | None) -> None:
        self._user.release_indicated()

    def _do_confirm_release(self, _pdu: ControlPdu | None) -> None:
        self._end("released by us")
        self._user.release_confirmed()
        # Both sides asked to part at once: the acceptor's reply was due after the requestor's.
        self.reply_to_release()

    def _do_indicate_abort(self, pdu: ControlPdu | None) -> None:
        assert isinstance(pdu, Abort)
        self._reader.is_deaf = True
        self._end(f"aborted by the peer (source {pdu.source}, reason {pdu.reason})")

    def _do_indicate_provider_abort(self, _pdu: ControlPdu | None) -> None:
        self._end("cut: a PDU came that the state does not allow")

    def _end(self, how: str) -> None:
        """Tell the user, once, that the association is over."""
        if self._ended_how is None:
            self._ended_how = how
            self._may_write.set()
            self._user.ended(how)

    def _established(self) -> None:
        self._last_sign = self._loop.time()
        self._buffer.rewind()
        self._watch.look()
