"""The other side of the door: we ask, another application entity answers.

::

    async with connect("10.0.0.7", 104, calling=ours, called=theirs, contexts=[…]) as association:
        await association.echo()
        async for response in association.find(context, identifier):
            ...

Leaving the block releases the association; leaving it with an exception aborts it. What can go
wrong before the block is entered has three names: `Unavailable` (nobody there),
`AssociationRefused` (somebody there who does not want us, with the reason as a sentence) and
`AssociationAborted`.

One operation runs at a time. Who stops iterating over responses need not clean up: the next
operation, or the release, sends C-CANCEL for what is left.

References
----------
PS3.7 chapters 9 and 10; PS3.8 9.3.4, table 9-21.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

from pacsteward.base.errors import Unavailable, Unsupported
from pacsteward.base.ids import AeTitle, Uid
from pacsteward.dicom.dimse import message as dimse
from pacsteward.dicom.dimse.association import Association
from pacsteward.dicom.dimse.association_user import AssociationAborted
from pacsteward.dicom.dimse.conversation import Conversation
from pacsteward.dicom.dimse.limits import Limits
from pacsteward.dicom.dimse.message import CommandValue, Response
from pacsteward.dicom.dimse.negotiate import (
    Agreed,
    ProposedContext,
    accepted_contexts,
    request_pdu,
    send_limit,
)
from pacsteward.dicom.dimse.outgoing import DataSet
from pacsteward.dicom.dimse.pdu import AssociateAccept, AssociateReject, AssociateRequest
from pacsteward.dicom.dimse.receive_buffer import ChunkPool
from pacsteward.dicom.dimse.responses import Responses
from pacsteward.dicom.dimse.service import (
    Caller,
    CommandField,
    PresentationContext,
    Receive,
    Service,
    UserIdentity,
)
from pacsteward.dicom.uids import VERIFICATION

log = logging.getLogger("pacsteward.dicom.dimse")

_REASONS: Final[dict[tuple[int, int], tuple[str, str]]] = {
    (1, 1): ("It gave no reason.", "Look into the log of the other system."),
    (1, 2): ("It does not support the DICOM application context.", "Is it a DICOM port at all?"),
    (1, 3): (
        "It does not know our AE title.",
        "Have our AE title and address entered in the other system.",
    ),
    (1, 7): (
        "It is not called by that AE title.",
        "Correct the peer's AE title here; upper and lower case differ.",
    ),
    (2, 1): ("Its upper layer gave no reason.", "Look into the log of the other system."),
    (2, 2): ("It does not support our protocol version.", "Ask the vendor for an update."),
    (3, 1): ("It is congested for the moment.", "It will be tried again, or try later."),
    (3, 2): (
        "It has no room for another association.",
        "Try later, or let fewer associations be opened to it at once.",
    ),
}
"""Source and reason of A-ASSOCIATE-RJ, PS3.8 table 9-21: what it means, what to do."""


class AssociationRefused(Unavailable):
    """The peer answered with A-ASSOCIATE-RJ.

    Parameters
    ----------
    result
        1 for good, 2 for the moment.
    source
        1 service user, 2 service provider (ACSE), 3 service provider (presentation).
    """

    def __init__(self, called: str, result: int, source: int, reason: int) -> None:
        self.result = result
        self.source = source
        self.reason = reason
        why, remedy = _REASONS.get((source, reason), ("It gave an unknown reason.", ""))
        super().__init__(
            f"{called} refused the association ({result}/{source}/{reason}).",
            why=why,
            remedy=remedy,
        )


class ClientAssociation:
    """An association that we requested, ready for operations; made by `connect`.

    Parameters
    ----------
    called
        AE title of the peer, for messages.
    """

    def __init__(
        self, called: AeTitle, calling: AeTitle, limits: Limits, services: Sequence[Service]
    ) -> None:
        self._called = called
        self._calling = calling
        self._limits = limits
        self._services = services
        self._request: AssociateRequest | None = None
        self._accept: AssociateAccept | None = None
        self._conversation: Conversation | None = None
        self._responses: Responses | None = None
        self._released = asyncio.Event()
        self._link: Association | None = None
        self._answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # What was agreed -----------------------------------------------------------------------------

    @property
    def contexts(self) -> tuple[PresentationContext, ...]:
        """The accepted contexts, in the order in which they were proposed."""
        return self._talk().outgoing.contexts

    @property
    def peer_implementation(self) -> tuple[str, str]:
        """Implementation class UID and version name of the peer."""
        assert self._accept is not None
        user = self._accept.user
        return user.implementation_class_uid, user.implementation_version_name

    @property
    def identity_response(self) -> bytes | None:
        """What the peer answered to our user identity; None when it said nothing."""
        assert self._accept is not None
        return self._accept.user.identity_response

    def extended(self, sop_class_uid: Uid) -> bytes:
        """Return the application information that the peer answered for a SOP class, or b""."""
        assert self._accept is not None
        answers = self._accept.user.extended
        return next((one.information for one in answers if one.sop_class_uid == sop_class_uid), b"")

    def context(
        self, abstract_syntax: Uid, transfer_syntax: Uid | None = None
    ) -> PresentationContext:
        """Return the accepted context for a SOP class.

        Raises
        ------
        Unsupported
            The peer did not accept one.
        """
        for context in self.contexts:
            if context.abstract_syntax == abstract_syntax and (
                transfer_syntax in (None, context.transfer_syntax)
            ):
                return context
        raise Unsupported(
            f"{self._called} does not take SOP class {abstract_syntax}"
            + (f" in transfer syntax {transfer_syntax}." if transfer_syntax else "."),
            why="It did not accept a presentation context for it.",
            remedy="Have it allowed there, or send to another peer.",
        )

    # Operations ----------------------------------------------------------------------------------

    async def echo(self) -> Response:
        """Send C-ECHO; status 0x0000 says that the peer is there and knows us."""
        context = self.context(VERIFICATION)
        return await self.invoke(context.context_id, CommandField.C_ECHO, VERIFICATION)

    async def store(
        self,
        context_id: int,
        sop_class_uid: Uid,
        sop_instance_uid: Uid,
        chunks: DataSet,
        *,
        move_originator: tuple[AeTitle, int] | None = None,
    ) -> tuple[int, str]:
        """Send one instance; return the peer's status and Error Comment.

        Parameters
        ----------
        chunks
            The data set in the context's transfer syntax, whole or in pieces; memory given must
            not change before this returns.
        move_originator
            AE title and Message ID of the C-MOVE that this is a part of.
        """
        await self._settle()
        return await self._talk().outgoing.store(
            context_id, sop_class_uid, sop_instance_uid, chunks, move_originator=move_originator
        )

    def find(self, context: PresentationContext, identifier: DataSet) -> Responses:
        """Ask C-FIND; the identifier is encoded in the context's transfer syntax."""
        return self._many(context, CommandField.C_FIND, identifier)

    def move(
        self, context: PresentationContext, destination: AeTitle, identifier: DataSet
    ) -> Responses:
        """Ask C-MOVE to `destination`."""
        extra = {dimse.MOVE_DESTINATION: destination}
        return self._many(context, CommandField.C_MOVE, identifier, extra)

    def get(
        self, context: PresentationContext, identifier: DataSet, *, on_store: Receive
    ) -> Responses:
        """Ask C-GET; each instance that comes is given a sink by `on_store`.

        It comes on contexts that were proposed with ``scp=True``.
        """
        return self._many(context, CommandField.C_GET, identifier, on_store=on_store)

    async def invoke(
        self,
        context_id: int,
        field: CommandField,
        sop_class_uid: Uid,
        sop_instance_uid: Uid | None = None,
        data_set: DataSet | None = None,
        *,
        extra: Mapping[int, CommandValue] | None = None,
    ) -> Response:
        """Send a request that has one response: C-ECHO and the DIMSE-N messages.

        Parameters
        ----------
        extra
            Further command elements by tag, e.g. Action Type ID (0000,1008).
        """
        await self._settle()
        by_requested = field in dimse.BY_REQUESTED
        command: dict[int, CommandValue] = {
            dimse.REQUESTED_SOP_CLASS_UID
            if by_requested
            else dimse.AFFECTED_SOP_CLASS_UID: sop_class_uid,
            dimse.COMMAND_FIELD: field,
            **(extra or {}),
        }
        if sop_instance_uid is not None:
            tag = (
                dimse.REQUESTED_SOP_INSTANCE_UID
                if by_requested
                else dimse.AFFECTED_SOP_INSTANCE_UID
            )
            command[tag] = sop_instance_uid
        return await self._talk().outgoing.invoke(context_id, command, data_set)

    async def release(self) -> None:
        """Part in good manner; abort when the peer does not agree in time."""
        assert self._link is not None
        if self._link.ended_how is None:
            with suppress(AssociationAborted):
                await self._settle()
            self._link.request_release()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._limits.artim_s):
                    await self._released.wait()
        await self.abort()

    async def abort(self) -> None:
        """End the association at once; harmless when it is over."""
        assert self._link is not None
        self._link.abort("aborted by us")
        await self._link.close()
        if self._conversation is not None:
            await self._conversation.closed()

    def _many(
        self,
        context: PresentationContext,
        field: CommandField,
        identifier: DataSet,
        extra: Mapping[int, CommandValue] | None = None,
        on_store: Receive | None = None,
    ) -> Responses:
        command: dict[int, CommandValue] = {
            dimse.AFFECTED_SOP_CLASS_UID: context.abstract_syntax,
            dimse.COMMAND_FIELD: field,
            dimse.PRIORITY: dimse.PRIORITY_MEDIUM,
            **(extra or {}),
        }
        self._responses = Responses(
            self._talk(), context.context_id, command, identifier, on_store, self._responses
        )
        return self._responses

    async def _settle(self) -> None:
        """Stop an operation whose responses nobody asks for any more."""
        responses, self._responses = self._responses, None
        if responses is not None:
            await responses.cancel()

    def _talk(self) -> Conversation:
        if self._conversation is None:
            raise AssociationAborted("The association was not established.")
        return self._conversation

    # The upper layer calls these -----------------------------------------------------------------

    def attach(self, link: Association, request: AssociateRequest) -> None:
        """Take note of the upper layer and of what it will ask."""
        self._link = link
        self._request = request

    async def established(self) -> None:
        """Wait for the peer's answer.

        Raises
        ------
        AssociationRefused, AssociationAborted
            It was not the one we hoped for.
        """
        await self._answer

    def associate_indicated(self, _request: AssociateRequest) -> None:
        """Never called: we ask (the table answers with AA-8)."""

    def associate_confirmed(self, answer: AssociateAccept | AssociateReject) -> None:
        """Take the peer's answer."""
        assert self._request is not None
        assert self._link is not None
        if isinstance(answer, AssociateReject):
            refused = AssociationRefused(self._called, answer.result, answer.source, answer.reason)
            if not self._answer.done():
                self._answer.set_exception(refused)
            return
        accepted = accepted_contexts(self._request, answer)
        self._accept = answer
        self._conversation = Conversation(
            self._link,
            caller=Caller(
                calling_ae_title=self._called,
                called_ae_title=self._calling,
                address="",
                association_id=secrets.token_hex(4),
                implementation_class_uid=answer.user.implementation_class_uid,
                implementation_version_name=answer.user.implementation_version_name,
            ),
            agreed={number: self._agreed(context) for number, context in accepted.items()},
            permissions=None,
            limits=self._limits,
            peer_max=send_limit(answer.user),
            is_requestor=True,
        )
        if not self._answer.done():
            self._answer.set_result(None)

    def _agreed(self, context: PresentationContext) -> Agreed:
        """Return what the peer may ask on a context: our `services`, e.g. N-EVENT-REPORT."""
        served = {
            command: service
            for service in reversed(self._services)
            if service.accepts(context.abstract_syntax)
            for command in service.commands
        }
        return Agreed(context, served, self.extended(context.abstract_syntax))

    def release_indicated(self) -> None:
        """Agree: the peer wants to part."""
        assert self._link is not None
        self._link.reply_to_release()

    def release_confirmed(self) -> None:
        """Wake who waits for the release."""
        self._released.set()

    def ended(self, how: str) -> None:
        """Wake who waits for anything."""
        if not self._answer.done() and how != "refused by the peer":
            error = AssociationAborted(
                f"{self._called} did not accept the association.", why=f"It was {how}."
            )
            self._answer.set_exception(error)
        if self._conversation is not None:
            self._conversation.ended()
        self._released.set()

    def disconnected(self) -> None:
        """Do nothing more: who waits for this waits for the upper layer."""


@asynccontextmanager
async def connect(
    host: str,
    port: int,
    *,
    calling: AeTitle,
    called: AeTitle,
    contexts: Sequence[ProposedContext],
    extended: Mapping[Uid, bytes] | None = None,
    identity: UserIdentity | None = None,
    services: Sequence[Service] = (),
    limits: Limits | None = None,
    timeout_s: float = 15.0,
    tls: ssl.SSLContext | None = None,
    server_name: str | None = None,
) -> AsyncIterator[ClientAssociation]:
    """Open an association with a peer.

    Parameters
    ----------
    contexts
        1 to 128; numbered in their order.
    extended
        SOP Class Extended Negotiation: application information by SOP class.
    services
        Serve requests of the peer, e.g. N-EVENT-REPORT of a storage commitment provider.
    timeout_s
        For the connection, TLS included, and again for the answer to the association request.
    tls
        Speak TLS with this context.
    server_name
        Name that the peer's certificate must bear, when it is not `host`.

    Raises
    ------
    Unavailable
        Nobody answers at that address.
    AssociationRefused, AssociationAborted
        Somebody does, but there is no association.
    """
    limits = limits or Limits()
    request = request_pdu(
        called=called,
        calling=calling,
        contexts=contexts,
        extended=extended or {},
        identity=identity,
        limits=limits,
    )
    association = ClientAssociation(called, calling, limits, services)
    link = Association(
        association,
        is_requestor=True,
        limits=limits,
        pool=ChunkPool(limits.receive_chunk_size_bytes),
        request=request,
    )
    association.attach(link, request)
    await _open(link, host, port, called, timeout_s, tls, server_name)
    try:
        async with asyncio.timeout(timeout_s):
            await association.established()
    except TimeoutError:
        await association.abort()
        raise Unavailable(
            f"{called} at {host}:{port} did not answer the association request.",
            why=f"Nothing came for {timeout_s:g} s.",
            remedy="Is that port a DICOM port, and does it speak TLS?",
        ) from None
    except BaseException:
        await association.abort()
        raise
    try:
        yield association
    except BaseException:
        await association.abort()
        raise
    await association.release()


async def _open(
    link: Association,
    host: str,
    port: int,
    called: str,
    timeout_s: float,
    tls: ssl.SSLContext | None,
    server_name: str | None,
) -> None:
    """Connect the upper layer to its peer."""
    try:
        async with asyncio.timeout(timeout_s):
            await asyncio.get_running_loop().create_connection(
                lambda: link,
                host,
                port,
                ssl=tls,
                server_hostname=server_name if tls is not None else None,
            )
    except TimeoutError:
        raise Unavailable(
            f"{called} at {host}:{port} could not be reached.",
            why=f"The connection was not made within {timeout_s:g} s.",
            remedy="Check address, port and firewalls.",
        ) from None
    except OSError as error:
        raise Unavailable(
            f"{called} at {host}:{port} could not be reached.",
            why=f"The system says: {error.strerror or error}.",
            remedy="Check address, port and firewalls, and that the peer is running.",
        ) from error
