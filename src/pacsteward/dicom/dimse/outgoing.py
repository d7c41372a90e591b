"""What we send on an association: messages in batches of PDUs, and requests with their responses.

On the requestor's side this is all that `client.py` does, on the acceptor's side the answers of
services and the sub-operations of C-GET: an `Outgoing` is the `SubOperationChannel` of requests.

A data set goes to the wire in slices of the memory it was given in, a megabyte at a time, so most
images at once; the next batch is taken from its source only when the peer has read most of the one
before. So a study of any size costs no more memory than that.

References
----------
PS3.7 chapters 9 and 10; PS3.8 Annex E.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, Mapping, Sequence
from typing import Final, TypeGuard

from pacsteward.base.errors import Unsupported
from pacsteward.base.ids import Uid
from pacsteward.dicom.dimse import message as dimse
from pacsteward.dicom.dimse.association import Association
from pacsteward.dicom.dimse.association_user import AssociationAborted
from pacsteward.dicom.dimse.limits import Limits
from pacsteward.dicom.dimse.message import CommandSet, CommandValue, FragmentStream, Response
from pacsteward.dicom.dimse.pdu import HEADER
from pacsteward.dicom.dimse.service import Answer, CommandField, PresentationContext
from pacsteward.dicom.dimse.store_request import Originator, append_data_set, store_command

DataSet = bytes | memoryview | AsyncIterable[bytes | memoryview]
"""A data set to send: whole, or in pieces of any size."""

_BATCH_SIZE_BYTES: Final = 1024 * 1024


class Exchange:
    """One request of ours and its responses, for one who waits for them."""

    def __init__(self, context_id: int, message_id: int) -> None:
        self.context_id = context_id
        self.message_id = message_id
        self._arrived: deque[Response | AssociationAborted] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def put(self, response: Response | AssociationAborted) -> None:
        """Take a response, or the end of the association."""
        self._arrived.append(response)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def get(self, patience: Patience) -> Response | AssociationAborted:
        """Wait for the next one.

        Raises
        ------
        TimeoutError
            None came in time.
        """
        # For each object that is sent: a queue and `asyncio.timeout` take five times as long.
        if not self._arrived:
            self._waiter = patience.waiter()
            try:
                await self._waiter
            finally:
                patience.done(self._waiter)
                self._waiter = None
        return self._arrived.popleft()


class Patience:
    """Futures that end after a while, with one timer for all that come after each other.

    Objects follow each other by the thousand, and nearly all are answered within a millisecond: a
    timer for each would be made in vain. This one looks, when it has run out, who waits since when.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._until: dict[asyncio.Future[None], float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def waiter(self) -> asyncio.Future[None]:
        """Return a future that fails with `TimeoutError` unless it is `done` in time."""
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        self._until[waiter] = loop.time() + self._timeout_s
        if self._timer is None:
            self._timer = loop.call_later(self._timeout_s, self._look, loop)
        return waiter

    def done(self, waiter: asyncio.Future[None]) -> None:
        """Forget a future."""
        self._until.pop(waiter, None)

    def close(self) -> None:
        """Let nobody wait any more, once all have been told why."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        for waiter, until in self._until.items():
            if until <= now and not waiter.done():
                waiter.set_exception(TimeoutError())
        waiting = [until for until in self._until.values() if until > now]
        if waiting:
            self._timer = loop.call_later(min(waiting) - now, self._look, loop)


class Outgoing:
    """Sends messages on one association, one after the other.

    Parameters
    ----------
    contexts
        The accepted ones.
    peer_max
        The longest P-DATA-TF PDU that the peer takes.
    is_requestor
        Whether our side requested the association; roles are the requestor's.
    """

    def __init__(
        self,
        link: Association,
        contexts: Sequence[PresentationContext],
        *,
        limits: Limits,
        peer_max: int,
        is_requestor: bool,
    ) -> None:
        self._link = link
        self._contexts = {context.context_id: context for context in contexts}
        self._limits = limits
        self._peer_max = peer_max
        self._is_requestor = is_requestor
        self._exchanges: dict[int, Exchange] = {}
        self._patience = Patience(limits.response_s)
        self._message_ids = dimse.message_ids()
        self._sending = asyncio.Lock()
        self._turn = asyncio.Lock()

    @property
    def contexts(self) -> tuple[PresentationContext, ...]:
        """All accepted contexts."""
        return tuple(self._contexts.values())

    @property
    def is_waiting(self) -> bool:
        """Whether the peer owes a response."""
        return bool(self._exchanges)

    # Requests of ours ----------------------------------------------------------------------------

    async def store(
        self,
        context_id: int,
        sop_class_uid: Uid,
        sop_instance_uid: Uid,
        chunks: DataSet,
        *,
        move_originator: Originator | None = None,
    ) -> tuple[int, str]:
        """Send one instance; return the peer's status and Error Comment.

        Parameters
        ----------
        chunks
            The data set in the context's transfer syntax. Memory given must not change before this
            returns: it goes to the wire without being copied.
        move_originator
            AE title and Message ID of the C-MOVE that this is a part of, PS3.7 9.1.1.

        Raises
        ------
        Unsupported
            The context was not accepted, or not in the role that storing needs.
        AssociationAborted
            The association ended, or the peer did not answer in time.
        """
        async with self._turn:  # an operations window of one, PS3.7 D.3.3.3
            self._check_may_ask(context_id)
            message_id = next(self._message_ids)
            command = store_command(sop_class_uid, sop_instance_uid, move_originator, message_id)
            exchange = await self._ask(context_id, message_id, command, chunks)
            response = await self.next_response(exchange)
        return response.status, response.comment

    async def invoke(
        self, context_id: int, command: CommandSet, data_set: DataSet | None = None
    ) -> Response:
        """Send a request that has one response, and return that."""
        async with self._turn:  # an operations window of one, PS3.7 D.3.3.3
            exchange = await self.begin(context_id, command, data_set)
            return await self.next_response(exchange)

    async def begin(
        self, context_id: int, command: CommandSet, data_set: DataSet | None = None
    ) -> Exchange:
        """Send a request; its responses are asked for with `next_response`."""
        self._check_may_ask(context_id)
        message_id = next(self._message_ids)
        encoded = _encoded({**command, dimse.MESSAGE_ID: message_id}, data_set)
        return await self._ask(context_id, message_id, encoded, data_set)

    async def _ask(
        self, context_id: int, message_id: int, command: bytes, data_set: DataSet | None
    ) -> Exchange:
        exchange = Exchange(context_id, message_id)
        self._exchanges[message_id] = exchange
        try:
            await self._send(context_id, command, data_set)
        except BaseException:
            self._exchanges.pop(message_id, None)
            raise
        return exchange

    async def next_response(self, exchange: Exchange) -> Response:
        """Wait for the next response to a request of ours.

        Raises
        ------
        AssociationAborted
            The association ended, or `Limits.response_s` passed without a response.
        """
        try:
            response = await exchange.get(self._patience)
        except TimeoutError:
            self._link.abort(f"cut: no response for {self._limits.response_s:g} s")
            raise self._gone() from None
        if isinstance(response, AssociationAborted):
            raise response
        return response

    async def cancel(self, exchange: Exchange) -> None:
        """Ask the peer to stop; its final response still comes (PS3.7 9.3.2.3)."""
        command: dict[int, CommandValue] = {
            dimse.COMMAND_FIELD: CommandField.C_CANCEL,
            dimse.MESSAGE_ID_BEING_RESPONDED_TO: exchange.message_id,
        }
        await self._send(exchange.context_id, _encoded(command, None), None)

    def deliver(self, message_id: int, response: Response) -> None:
        """Give a response to the one who waits for it, if anybody does."""
        exchange = self._exchanges.get(message_id)
        if exchange is not None:
            if not response.is_pending:
                del self._exchanges[message_id]
            exchange.put(response)

    def ended(self) -> None:
        """Tell all who wait that nothing will come any more."""
        for exchange in self._exchanges.values():
            exchange.put(self._gone())
        self._exchanges.clear()
        self._patience.close()

    # Answers -------------------------------------------------------------------------------------

    async def answer(self, context_id: int, request: CommandSet, *answers: Answer) -> None:
        """Send answers, each with its command and data set, with one write."""
        encoded = self._encode(context_id, request, answers)
        if self._sending.locked():
            async with self._sending:
                self._link.send([encoded])
                await self._link.drain()
            return
        # Whole messages, so nobody's are mixed with them.
        self._link.send([encoded])
        if not self._link.may_write:
            async with self._sending:
                await self._link.drain()

    @property
    def may_answer_now(self) -> bool:
        """Whether an answer neither mixes with a message on its way, nor has to wait."""
        return self._link.may_write and not self._sending.locked()

    def answer_now(self, context_id: int, request: CommandSet, answer: Answer) -> None:
        """Send one answer, while `may_answer_now`."""
        self._link.send([self._encode(context_id, request, (answer,))])

    def _encode(self, context_id: int, request: CommandSet, answers: Sequence[Answer]) -> bytes:
        pieces: list[bytes] = []
        heads: dict[tuple[int, str], list[bytes]] = {}
        for answer in answers:
            data_set = answer.data_set
            if data_set is None or not answer.is_plain:
                pieces += self._head(context_id, request, answer)
            else:
                # The answers to a query differ in their data sets only.
                kind = answer.status, answer.comment
                if kind not in heads:
                    heads[kind] = self._head(context_id, request, answer)
                pieces += heads[kind]
            if data_set is not None:
                pieces += self._pdus(context_id, data_set, is_command=False)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _head(self, context_id: int, request: CommandSet, answer: Answer) -> list[bytes]:
        has_data_set = answer.data_set is not None
        if answer.is_plain and not has_data_set and _is_store_of_one(request):
            pdu = dimse.store_response(context_id, request, answer)
            if len(pdu) <= self._peer_max + HEADER.size:
                return [pdu]
        command = dimse.response_command_set(request, answer, has_data_set=has_data_set)
        return self._pdus(context_id, dimse.encode_command_set(command), is_command=True)

    # The wire ------------------------------------------------------------------------------------

    def _check_may_ask(self, context_id: int) -> None:
        context = self._contexts.get(context_id)
        if context is None:
            raise Unsupported(
                f"Presentation context {context_id} cannot be used.",
                why="The peer did not accept it.",
            )
        if not (context.as_scu if self._is_requestor else context.as_scp):
            raise Unsupported(
                f"Nothing can be sent on presentation context {context_id}.",
                why="The peer did not take the role that receives (PS3.7 D.3.3.4).",
            )

    async def _send(self, context_id: int, command: bytes, data_set: DataSet | None) -> None:
        """Send one message; never hold more of it in memory than a batch of PDUs."""
        pieces: list[bytes | memoryview] = [*self._pdus(context_id, command, is_command=True)]
        if _is_short(data_set) and not self._sending.locked():
            # A whole message with one write, so nobody's is mixed with it.
            append_data_set(pieces, context_id, memoryview(data_set), self._peer_max)
            self._link.send(pieces)
            if self._link.may_write:
                return
            pieces, data_set = [], None
        async with self._sending:
            if data_set is None:
                await self._write(pieces)
                return
            try:
                await self._send_data_set(context_id, pieces, data_set)
            except BaseException:
                # Half a message cannot be taken back: only the end of the association ends it.
                self._link.abort("cut: our side could not go on in the middle of a message")
                raise

    async def _send_data_set(
        self, context_id: int, pieces: list[bytes | memoryview], data_set: DataSet
    ) -> None:
        """Send `pieces`, which hold the command set, and the data set behind it."""
        if _is_short(data_set):
            append_data_set(pieces, context_id, memoryview(data_set), self._peer_max)
            await self._write(pieces)
            return
        stream = FragmentStream(context_id, self._peer_max)
        if isinstance(data_set, bytes | memoryview):
            *others, last = _cut(data_set)
            for window in others:
                stream.feed(window, pieces)
                pieces = await self._write(pieces)
            stream.feed(last, pieces)
        else:
            async for chunk in data_set:
                for window in _cut(chunk):
                    stream.feed(window, pieces)
                    pieces = await self._write(pieces)
        stream.end(pieces)
        await self._write(pieces)

    async def _write(self, pieces: list[bytes | memoryview]) -> list[bytes | memoryview]:
        """Send what there is with one write, and return a list for what comes next."""
        if pieces:
            self._link.send(pieces)
        await self._link.drain()
        return []

    def _pdus(self, context_id: int, payload: bytes, *, is_command: bool) -> list[bytes]:
        return dimse.whole_pdus(context_id, payload, is_command=is_command, peer_max=self._peer_max)

    def _gone(self) -> AssociationAborted:
        return AssociationAborted(
            "The association ended before the answer came.",
            why=f"It was {self._link.ended_how}.",
        )


def _encoded(command: Mapping[int, CommandValue], data_set: DataSet | None) -> bytes:
    kind = dimse.NO_DATA_SET if data_set is None else dimse.WITH_DATA_SET
    return dimse.encode_command_set({**command, dimse.COMMAND_DATA_SET_TYPE: kind})


def _is_store_of_one(request: CommandSet) -> bool:
    """Whether it is a C-STORE request that names class and instance, as all should."""
    return (
        request.get(dimse.COMMAND_FIELD) == CommandField.C_STORE
        and dimse.AFFECTED_SOP_CLASS_UID in request
        and dimse.AFFECTED_SOP_INSTANCE_UID in request
    )


def _is_short(data_set: DataSet | None) -> TypeGuard[bytes | memoryview]:
    return isinstance(data_set, bytes | memoryview) and len(data_set) <= _BATCH_SIZE_BYTES


def _cut(chunk: bytes | memoryview) -> list[memoryview]:
    """Return memory in pieces that fit the write buffer."""
    view = memoryview(chunk)
    size = _BATCH_SIZE_BYTES
    return [view[at : at + size] for at in range(0, len(view), size)]
