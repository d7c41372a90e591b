"""The DIMSE door: listens, lets in or turns away, and keeps the list of who is inside.

`DimseServer` gives each connection an `Association` and each admitted caller a `Conversation`. It
decides, in this order: is the request acceptable whoever asks (`negotiate.objection`); is there
room; does the house know the caller (`Admit`, in a thread, since it asks the database); is there
room for such a caller, since the last slots are kept for registered peers; what is spoken.

Each arrival, departure and refusal is told to `on_event` and to the log, with AE titles and
addresses, never with anything of a patient.

References
----------
PS3.8 chapter 7 and 9.3.4.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import ssl
from collections.abc import Callable, Collection, Sequence

from pacsteward.base.bind import remedy_of
from pacsteward.base.clock import Clock, SystemClock
from pacsteward.base.errors import Conflict, Unavailable
from pacsteward.dicom.dimse.association import Association
from pacsteward.dicom.dimse.conversation import Conversation
from pacsteward.dicom.dimse.events import (
    AssociationClosed,
    AssociationOpened,
    AssociationRejected,
    ConnectionDropped,
    DoorEvent,
)
from pacsteward.dicom.dimse.limits import Limits
from pacsteward.dicom.dimse.machine import State
from pacsteward.dicom.dimse.negotiate import (
    LOCAL_LIMIT_EXCEEDED,
    TEMPORARY_CONGESTION,
    accept_pdu,
    agree,
    objection,
    send_limit,
)
from pacsteward.dicom.dimse.pdu import AssociateAccept, AssociateReject, AssociateRequest
from pacsteward.dicom.dimse.receive_buffer import Chunk, ChunkPool
from pacsteward.dicom.dimse.service import Admit, Admitted, Caller, Refused, Service

log = logging.getLogger("pacsteward.dicom.dimse")

_BACKLOG = 512
_QUIET_BEFORE_STOP_S = 0.5
_STOP_LOOK_S = 0.05


class DimseServer:
    """Serves DIMSE associations on one port.

    Parameters
    ----------
    services
        Of all rooms; the first that accepts an abstract syntax chooses its transfer syntax.
    admit
        Decides on a caller; runs in a thread.
    ae_titles
        Titles that we are called by.
    accepts_called
        Decides on the called AE title instead of `ae_titles`.
    on_event
        Told of arrivals, departures and refusals, in the event loop; it must be quick.
    more_chunks
        Gives memory to receive into that is shared with another process, if there is any.
    """

    def __init__(
        self,
        services: Sequence[Service],
        admit: Admit,
        limits: Limits | None = None,
        *,
        ae_titles: Collection[str] = (),
        accepts_called: Callable[[str], bool] | None = None,
        clock: Clock | None = None,
        on_event: Callable[[DoorEvent], None] = lambda _event: None,
        more_chunks: Callable[[], Chunk | None] | None = None,
    ) -> None:
        self.services = tuple(services)
        self.admit = admit
        self.limits = limits or Limits()
        self.accepts_called = accepts_called or frozenset(ae_titles).__contains__
        self.clock = clock or SystemClock()
        self.pool = ChunkPool(self.limits.receive_chunk_size_bytes, more_chunks)
        self.is_stopping = False
        self._on_event = on_event
        self._listener: asyncio.Server | None = None
        self._guests: set[_Guest] = set()
        self._ending: dict[asyncio.Task[None], Conversation] = {}

    async def start(
        self,
        host: str | None,
        port: int,
        *,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Listen.

        Parameters
        ----------
        host
            Address, or None for all.
        port
            0 for a free one; `port` tells which.
        tls
            Speak TLS with this context.

        Raises
        ------
        Conflict
            This server listens already.
        Unavailable
            The address cannot be had.
        """
        if self._listener is not None:
            raise Conflict("The DIMSE door is open already.")
        try:
            self._listener = await asyncio.get_running_loop().create_server(
                self._guest,
                host,
                port,
                ssl=tls,
                ssl_handshake_timeout=None if tls is None else self.limits.artim_s,
                backlog=_BACKLOG,
            )
        except OSError as error:
            raise Unavailable(
                f"The DIMSE door could not open port {port} on {host or 'all addresses'}.",
                why=f"The system says: {error.strerror or error}.",
                remedy=remedy_of(error, "Choose another port, or stop the program that uses it."),
            ) from error
        self.is_stopping = False
        log.info("The DIMSE door listens.", extra={"host": host, "port": self.port})

    @property
    def port(self) -> int:
        """The port that is listened on, 0 when it is closed."""
        if self._listener is None or not self._listener.sockets:
            return 0
        return int(self._listener.sockets[0].getsockname()[1])

    async def stop(self, grace_s: float) -> None:
        """Finish what was begun, then close.

        New connections are refused at once. An association ends when it is released, or when
        nothing has happened in it for half a second; what still runs after `grace_s` is aborted.
        """
        self.is_stopping = True
        if self._listener is not None:
            self._listener.close()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_s
        while self._guests and loop.time() < deadline:
            quiet = [guest for guest in self._guests if guest.is_quiet(_QUIET_BEFORE_STOP_S)]
            await asyncio.gather(*(guest.end_now() for guest in quiet))
            await asyncio.sleep(_STOP_LOOK_S)
        await asyncio.gather(*(guest.end_now() for guest in tuple(self._guests)))
        await self._see_off(deadline - loop.time())
        if self._listener is not None:
            await self._listener.wait_closed()
            self._listener = None
        log.info("The DIMSE door is closed.")

    async def _see_off(self, grace_s: float) -> None:
        """Let handlers end whose callers are gone: an object that came whole is kept."""
        if self._ending:
            await asyncio.wait(set(self._ending), timeout=max(grace_s, 0))
        for conversation in tuple(self._ending.values()):
            conversation.cancel()
        if self._ending:
            await asyncio.wait(set(self._ending))

    # For the guests ------------------------------------------------------------------------------

    def tell(self, event: DoorEvent) -> None:
        """Pass an event on; whoever listens cannot hurt the door."""
        try:
            self._on_event(event)
        except Exception:
            log.exception("The listener of the DIMSE door failed.")

    def has_room(self, *, is_registered: bool) -> bool:
        """Whether one more association may be established, for such a caller."""
        inside = sum(guest.is_inside for guest in self._guests)
        reserved = 0 if is_registered else self.limits.reserved_for_registered
        return inside < self.limits.associations_max - reserved

    def may_wait(self) -> bool:
        """Whether one more connection may wait for its association."""
        waiting = sum(not guest.is_inside for guest in self._guests)
        return waiting <= self.limits.connections_waiting_max

    def arrived(self, guest: _Guest) -> None:
        """Keep account of a connection."""
        self._guests.add(guest)

    def left(self, guest: _Guest, conversation: Conversation | None) -> None:
        """Forget a connection; its last handler may still be ending."""
        self._guests.discard(guest)
        if conversation is not None:
            task = asyncio.get_running_loop().create_task(conversation.closed())
            self._ending[task] = conversation
            task.add_done_callback(lambda done: self._ending.pop(done, None))

    def _guest(self) -> asyncio.BufferedProtocol:
        return _Guest(self).link


class _Guest:
    """One connection, from its first byte to its last; the user of its upper layer."""

    def __init__(self, server: DimseServer) -> None:
        self._server = server
        self.link = _ServerLink(self, server)
        self._caller: Caller | None = None
        self._admission: asyncio.Task[None] | None = None
        self._conversation: Conversation | None = None
        self._opened_at = server.clock.now()
        self._opened_monotonic = server.clock.monotonic()
        self._address = ""
        self._was_rejected = False

    @property
    def is_inside(self) -> bool:
        """Whether it takes a slot."""
        return self._conversation is not None and self.link.ended_how is None

    def is_quiet(self, quiet_s: float) -> bool:
        """Whether nothing has happened here for a while, and nothing is under way."""
        if self._conversation is None:
            return self.link.state is not State.AWAITING_LOCAL_ANSWER
        return self._conversation.is_quiet and self.link.quiet_s >= quiet_s

    async def end_now(self) -> None:
        """End whatever there is."""
        if self._conversation is not None:
            self._conversation.cancel()
        self.link.abort("cut: the archive is stopping")
        await self.link.close()

    # The upper layer calls these -----------------------------------------------------------------

    def connected(self, address: str) -> None:
        """Take note of a new connection, or drop it when there are too many."""
        self._address = address
        self._server.arrived(self)
        if not self._server.may_wait():
            self.link.abort("cut: too many connections wait for an association")

    def associate_indicated(self, request: AssociateRequest) -> None:
        """Look at the request; what needs the database goes on in a task."""
        user = request.user
        self._caller = Caller(
            calling_ae_title=request.calling_ae_title,
            called_ae_title=request.called_ae_title,
            address=self._address,
            association_id=secrets.token_hex(4),
            user_identity=user.identity,
            implementation_class_uid=user.implementation_class_uid,
            implementation_version_name=user.implementation_version_name,
        )
        refused = objection(request, self._server.accepts_called)
        if refused is None and self._server.is_stopping:
            refused = TEMPORARY_CONGESTION
        if refused is None and not self._server.has_room(is_registered=True):
            refused = LOCAL_LIMIT_EXCEEDED
        if refused is not None:
            self._reject(refused)
        else:
            admission = self._admit(request, self._caller)
            self._admission = asyncio.get_running_loop().create_task(admission)

    def associate_confirmed(self, _answer: AssociateAccept | AssociateReject) -> None:
        """Never called: we did not ask (the table answers with AA-8)."""

    def release_indicated(self) -> None:
        """Part: whoever releases wants no more answers."""
        self.link.reply_to_release()

    def release_confirmed(self) -> None:
        """Never called: we do not ask for release."""

    def ended(self, how: str) -> None:
        """Stop what runs for this caller."""
        if self._admission is not None:
            self._admission.cancel()
        if self._conversation is not None:
            self._conversation.ended()
            self._tell_closed(how)
        elif not self._was_rejected:
            now = self._server.clock.now()
            self._server.tell(ConnectionDropped(now, self._address, how))

    def disconnected(self) -> None:
        """Leave the list."""
        self._server.left(self, self._conversation)

    # Admission -----------------------------------------------------------------------------------

    async def _admit(self, request: AssociateRequest, caller: Caller) -> None:
        """Ask who this is, and answer the request."""
        verdict = await self._verdict(caller)
        if self.link.state is not State.AWAITING_LOCAL_ANSWER:
            return  # the caller did not wait
        if isinstance(verdict, Refused):
            self._reject(verdict)
        elif self._server.is_stopping:
            self._reject(TEMPORARY_CONGESTION)
        elif not self._server.has_room(is_registered=verdict.is_registered):
            self._reject(LOCAL_LIMIT_EXCEEDED)
        else:
            self._let_in(request, caller, verdict)

    async def _verdict(self, caller: Caller) -> Admitted | Refused:
        try:
            async with asyncio.timeout(self._server.limits.artim_s):
                return await asyncio.to_thread(self._server.admit, caller)
        except Exception:  # a caller must get its answer whatever is broken behind the door
            log.exception("Nobody could say whether a caller may come in.")
            return TEMPORARY_CONGESTION

    def _let_in(self, request: AssociateRequest, caller: Caller, admitted: Admitted) -> None:
        server = self._server
        agreement = agree(request, server.services, admitted.quirks)
        answer = accept_pdu(request, agreement, server.limits, admitted.user_identity_response)
        self._opened_at = server.clock.now()
        self._opened_monotonic = server.clock.monotonic()
        self._conversation = Conversation(
            self.link,
            caller=caller,
            agreed=agreement.contexts,
            permissions=admitted.permissions,
            limits=server.limits,
            peer_max=send_limit(request.user),
            is_requestor=False,
        )
        self.link.accept(answer)
        log.info(
            "Association opened by %s.",
            caller.calling_ae_title,
            extra={
                "association": caller.association_id,
                "called": caller.called_ae_title,
                "address": caller.address,
                "contexts": f"{len(agreement.contexts)} of {len(agreement.answers)}",
            },
        )
        server.tell(AssociationOpened(self._opened_at, caller))

    def _reject(self, refused: Refused) -> None:
        assert self._caller is not None
        self._was_rejected = True
        self.link.reject(AssociateReject(refused.result, refused.source, refused.reason))
        log.info(
            "Association refused to %r: %s",
            self._caller.calling_ae_title,
            refused.why,
            extra={
                "called": repr(self._caller.called_ae_title),
                "address": self._caller.address,
                "result": f"{refused.result}/{refused.source}/{refused.reason}",
            },
        )
        now = self._server.clock.now()
        self._server.tell(AssociationRejected(now, self._caller, refused))

    def _tell_closed(self, how: str) -> None:
        assert self._caller is not None
        assert self._conversation is not None
        clock = self._server.clock
        event = AssociationClosed(
            at=clock.now(),
            caller=self._caller,
            how=how,
            duration_s=clock.monotonic() - self._opened_monotonic,
            requests=self._conversation.requests,
            received_size_bytes=self.link.received_size_bytes,
            sent_size_bytes=self.link.sent_size_bytes,
        )
        log.info(
            "Association of %s over: %s.",
            self._caller.calling_ae_title,
            how,
            extra={
                "association": self._caller.association_id,
                "duration_s": round(event.duration_s, 3),
                "requests": event.requests,
                "received_size_bytes": event.received_size_bytes,
                "sent_size_bytes": event.sent_size_bytes,
            },
        )
        self._server.tell(event)


class _ServerLink(Association):
    """An association that tells its guest who has connected."""

    def __init__(self, guest: _Guest, server: DimseServer) -> None:
        super().__init__(guest, is_requestor=False, limits=server.limits, pool=server.pool)
        self._guest = guest

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over a new connection."""
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self._guest.connected(str(peer[0]) if peer else "")
