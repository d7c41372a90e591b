"""DIMSE messages over an established association: who asks, who answers, one thing at a time.

Fragments come in from the upper layer and become messages. A request of the peer becomes an
`Operation`: it is checked, its data set flows into the service's sink (or is collected when it is
small by nature), the service's answers go out. A response of the peer is given to `Outgoing`, which
asked.

One operation runs at a time, as both sides agreed (PS3.7 D.3.3.3: an asynchronous operations window
of one is the default). While it runs the wire is still read, so that C-CANCEL, the responses to
sub-operations, abort and release are seen; only another *request* makes the door stop reading until
its turn comes.

Where real devices deviate: a response that nobody waits for, or a C-CANCEL for what is done
already, is dropped.

References
----------
PS3.7 chapters 7, 9 and 10; PS3.4 for which statuses a service may use.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from typing import Final

from pacsteward.dicom.dimse import message as dimse
from pacsteward.dicom.dimse.association import Association
from pacsteward.dicom.dimse.association_user import AssociationAborted
from pacsteward.dicom.dimse.failure import answer_for
from pacsteward.dicom.dimse.limits import Limits
from pacsteward.dicom.dimse.message import CommandSet, Response
from pacsteward.dicom.dimse.negotiate import Agreed
from pacsteward.dicom.dimse.operation import (
    Operation,
    has_data_set,
    objection,
    unknown_operation,
)
from pacsteward.dicom.dimse.outgoing import Outgoing
from pacsteward.dicom.dimse.pdu import CONTROL_COMMAND, CONTROL_LAST
from pacsteward.dicom.dimse.service import (
    COMMAND_FIELDS,
    Answer,
    Answers,
    Caller,
    CommandField,
    DataSink,
    PacedSink,
    Request,
    Service,
)
from pacsteward.dicom.dimse.user_information import ProtocolError
from pacsteward.dicom.status import CANCEL

log = logging.getLogger("pacsteward.dicom.dimse")

_PENDING_BEFORE_A_BREATH: Final = 8
_NONE: Final[frozenset[str]] = frozenset()


class _Intake:
    """Where the data set that is arriving goes."""

    __slots__ = ("context_id", "done", "size", "take")

    def __init__(
        self, context_id: int, take: Callable[[memoryview], None], done: Callable[[], None]
    ) -> None:
        self.context_id = context_id
        self.take = take
        self.done = done
        self.size = 0


class Conversation:
    """All messages of one association.

    Parameters
    ----------
    link
        The established association.
    caller
        Whom handlers are told to speak with.
    agreed
        The accepted contexts by their identifiers.
    permissions
        What the peer may do; None when it need not be allowed anything, since we called it.
    peer_max
        The longest P-DATA-TF PDU that the peer takes.
    is_requestor
        Whether our side requested the association; roles are the requestor's.
    """

    def __init__(
        self,
        link: Association,
        *,
        caller: Caller,
        agreed: Mapping[int, Agreed],
        permissions: frozenset[str] | None,
        limits: Limits,
        peer_max: int,
        is_requestor: bool,
    ) -> None:
        self._link = link
        self._caller = caller
        self._agreed = agreed
        self._permissions = permissions
        self._limits = limits
        self._is_requestor = is_requestor
        self._command = bytearray()
        self._command_context = 0
        self._intake: _Intake | None = None
        self._operation: Operation | None = None
        self._next: tuple[int, CommandSet] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._pacing: asyncio.Task[None] | None = None
        self._parting: asyncio.Future[None] | None = None
        """Of who waits for the last answer of a `PromptSink`, which finds nobody."""
        self._is_over = False
        self._is_cancelled = False
        self.requests = 0
        self.extra_services: dict[CommandField, Service] = {}
        """Serves requests for a while: C-STORE during a C-GET of ours."""
        self.outgoing = Outgoing(
            link,
            [one.context for one in agreed.values()],
            limits=limits,
            peer_max=peer_max,
            is_requestor=is_requestor,
        )
        self._task = asyncio.get_running_loop().create_task(self._serve())
        link.listen(self.fragment, is_in_message=self._is_in_message, is_busy=self._is_busy)

    # What others may know ------------------------------------------------------------------------

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is under way in either direction."""
        return not (self._operation or self.outgoing.is_waiting or self._is_in_message())

    def _is_in_message(self) -> bool:
        return self._intake is not None or bool(self._command)

    def _is_busy(self) -> bool:
        """Whether it is our turn, or a wait that has a timer of its own."""
        operation = self._operation
        return (operation is not None and operation.is_complete) or self.outgoing.is_waiting

    def ended(self) -> None:
        """Stop what runs and leave nothing half done: the association is over."""
        self._is_over = True
        self._intake = None
        self.outgoing.ended()
        operation = self._operation
        if operation is not None:
            operation.is_cancelled = True
            if operation.is_finishing:
                if not operation.is_due:
                    self._task.cancel()  # it has nothing to do with this answer
                # Else the loop ends by itself when its answer finds nobody.
                return
            operation.abandon()
        self.cancel()

    def cancel(self) -> None:
        """Stop the handler, even in the middle of `DataSink.finish`."""
        self._is_cancelled = True
        if self._pacing is not None:
            self._pacing.cancel()
        self._task.cancel()
        self._part()

    async def closed(self) -> None:
        """Wait until the handler that was running has ended, too."""
        await asyncio.wait({self._task})
        operation = self._operation
        if operation is not None and operation.is_finishing and not self._is_cancelled:
            self._parting = asyncio.get_running_loop().create_future()
            await asyncio.wait({self._parting})

    def _part(self) -> None:
        if self._parting is not None and not self._parting.done():
            self._parting.set_result(None)

    # Receiving -----------------------------------------------------------------------------------

    def fragment(self, context_id: int, control: int, data: memoryview) -> None:
        """Take one fragment from the wire.

        Raises
        ------
        ProtocolError
            It belongs to no message.
        """
        if control & CONTROL_COMMAND:
            self._command_fragment(context_id, control, data)
            return
        intake = self._intake
        if intake is None or intake.context_id != context_id:
            raise ProtocolError(f"A data set came on context {context_id} that nobody announced.")
        if size := len(data):
            intake.size += size
            if intake.size > self._limits.instance_size_bytes_max:
                raise ProtocolError(
                    f"A data set is larger than {self._limits.instance_size_bytes_max} bytes."
                )
            intake.take(data)
        if control & CONTROL_LAST:
            self._intake = None
            intake.done()

    def _command_fragment(self, context_id: int, control: int, data: memoryview) -> None:
        if self._intake is not None:
            raise ProtocolError("A command came in the middle of a data set.")
        if self._command and context_id != self._command_context:
            raise ProtocolError("The fragments of a command came on two contexts.")
        if context_id not in self._agreed:
            raise ProtocolError(f"A command came on context {context_id}, which was not accepted.")
        if len(self._command) + len(data) > self._limits.command_set_size_bytes_max:
            raise ProtocolError("A command set is larger than allowed.")
        if not control & CONTROL_LAST:
            self._command += data
            self._command_context = context_id
            return
        whole = bytes(self._command) + data
        self._command.clear()
        self._command_arrived(context_id, dimse.decode_command_set(whole))

    def _command_arrived(self, context_id: int, command: CommandSet) -> None:
        field = dimse.number(command, dimse.COMMAND_FIELD)
        if field is None:
            raise ProtocolError("A command set has no Command Field (0000,0100).")
        if field & dimse.RESPONSE_BIT:
            self._response_arrived(context_id, command)
        elif field == CommandField.C_CANCEL:
            self._cancel_arrived(context_id, command)
        elif self._operation is not None:
            # Its turn comes when the operation that runs is answered; nothing is read until then.
            self._next = (context_id, command)
            self._link.hold()
        else:
            self._begin(context_id, command, field)

    def _response_arrived(self, context_id: int, command: CommandSet) -> None:
        status = dimse.number(command, dimse.STATUS)
        message_id = dimse.number(command, dimse.MESSAGE_ID_BEING_RESPONDED_TO)
        if status is None or message_id is None:
            raise ProtocolError("A response has no Status or no Message ID Being Responded To.")
        comment = dimse.text(command, dimse.ERROR_COMMENT)
        if not has_data_set(command):
            self.outgoing.deliver(message_id, Response(status, comment, command))
            return
        collected = bytearray()

        def take(fragment: memoryview) -> None:
            collected.extend(fragment)
            if len(collected) > self._limits.identifier_size_bytes_max:
                raise ProtocolError("The data set of a response is larger than allowed.")

        def done() -> None:
            response = Response(status, comment, command, bytes(collected))
            self.outgoing.deliver(message_id, response)

        self._intake = _Intake(context_id, take, done)

    def _cancel_arrived(self, context_id: int, command: CommandSet) -> None:
        cancelled = dimse.number(command, dimse.MESSAGE_ID_BEING_RESPONDED_TO)
        operation = self._operation
        if operation is not None and cancelled == dimse.number(operation.command, dimse.MESSAGE_ID):
            operation.is_cancelled = True
        if has_data_set(command):  # it has none (PS3.7 9.3.2.3); what comes is drained
            self._intake = _Intake(context_id, _drop, _nothing)

    def _begin(self, context_id: int, command: CommandSet, field: int) -> None:
        """Open an operation and say where its data set goes."""
        message_id = dimse.number(command, dimse.MESSAGE_ID)
        if message_id is None:
            raise ProtocolError("A request has no Message ID (0000,0110), so it has no answer.")
        self.requests += 1
        operation = self._operation = Operation(context_id, command, field)
        self._check_and_open(operation, message_id)
        if has_data_set(command):
            self._intake = _Intake(context_id, self._take, self._completed)
        else:
            self._completed()

    def _take(self, fragment: memoryview) -> None:
        """Take a fragment of the data set of the operation that is arriving."""
        operation = self._operation
        assert operation is not None
        sink = operation.sink
        if sink is None:
            operation.collect(fragment, self._limits.identifier_size_bytes_max)
            return
        try:
            sink.write(fragment)
        except Exception as error:  # noqa: BLE001 - any fault of a room becomes an answer
            operation.fail(error)
        paced = operation.paced
        if paced is not None and paced.is_behind():
            self._pace(operation, paced)

    def _completed(self) -> None:
        """Let the operation that arrived be answered."""
        operation = self._operation
        assert operation is not None
        operation.is_complete = True
        if operation.prompt is None or self._pacing is not None:
            self._let_task_answer(operation)
            return
        operation.is_finishing = True
        try:
            is_told = operation.prompt.finish_soon(partial(self._finished, operation))
        except Exception:  # noqa: BLE001 - `finish` meets it again, and it becomes an answer
            is_told = False
        if not is_told:
            operation.is_finishing = False
            self._let_task_answer(operation)

    def _let_task_answer(self, operation: Operation) -> None:
        operation.is_due = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _check_and_open(self, operation: Operation, message_id: int) -> None:
        """Open the operation at the service that serves it, or note why it is refused."""
        field = COMMAND_FIELDS.get(operation.field)
        if field is None:
            operation.refusal = unknown_operation()
            return
        agreed = self._agreed[operation.context_id]
        service = self.extra_services.get(field) or agreed.services.get(field)
        request = Request(
            caller=self._caller,
            context=agreed.context,
            command_field=field,
            message_id=message_id,
            command=operation.command,
            permissions=self._permissions or _NONE,
            extended=agreed.extended,
            is_cancelled=lambda: operation.is_cancelled,
            channel=self.outgoing,
        )
        refusal = objection(
            request,
            service,
            is_requestor=self._is_requestor,
            checks_permission=self._permissions is not None,
        )
        if refusal is None and service is not None:
            operation.open(request, service)
        elif refusal is not None:
            operation.refusal = refusal
            log.info(
                "%s was refused with %04XH: %s",
                operation.name,
                refusal.status,
                refusal.comment,
                extra={"association": self._caller.association_id},
            )

    def _pace(self, operation: Operation, sink: PacedSink) -> None:
        """Stop reading while a sink is behind."""
        self._link.hold()
        catching_up = self._catch_up(operation, sink)
        self._pacing = asyncio.get_running_loop().create_task(catching_up)

    async def _catch_up(self, operation: Operation, sink: PacedSink) -> None:
        try:
            await sink.catch_up()
        except Exception as error:  # noqa: BLE001 - any fault of a room becomes an answer
            operation.fail(error)
        if not self._is_over:
            self._link.release_hold()

    # Answering -----------------------------------------------------------------------------------

    def _finished(self, operation: Operation, answer: Answer) -> None:
        """Send the answer of a `PromptSink`, as the task would."""
        operation.is_finishing = False
        operation.let_go_of_sink()
        if self._is_over:
            self._part()
        elif not self.outgoing.may_answer_now:
            operation.refusal = answer
            self._let_task_answer(operation)
        else:
            try:
                self.outgoing.answer_now(operation.context_id, operation.command, answer)
                self._done()
            except AssociationAborted:
                self._task.cancel()  # nobody is left; the association has told its end already
            except Exception:
                log.exception("An association is cut because of a fault of ours.")
                self._link.abort("cut: a fault of ours")

    async def _serve(self) -> None:
        """Answer one operation after the other, until the association is over."""
        try:
            while not self._is_over:
                operation = await self._complete_operation()
                if self._pacing is not None:
                    await self._pacing
                    self._pacing = None
                await self._perform(operation)
                self._done()
        except AssociationAborted:
            pass  # the answer found nobody; the association has told its end already
        except Exception:
            log.exception("An association is cut because of a fault of ours.")
            self._link.abort("cut: a fault of ours")

    async def _complete_operation(self) -> Operation:
        """Wait until all of a request has arrived, and return its operation."""
        while self._operation is None or not self._operation.is_due:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        self._waiter = None
        return self._operation

    def _done(self) -> None:
        """Make room for the next operation, which may be waiting already."""
        self._operation = None
        if self._next is None:
            self._link.message_done()
            return
        context_id, command = self._next
        self._next = None
        try:
            self._begin(context_id, command, dimse.number(command, dimse.COMMAND_FIELD) or 0)
        except ProtocolError as error:
            self._link.refuse_input(error)
        else:
            self._link.release_hold()

    async def _perform(self, operation: Operation) -> None:
        if operation.refusal is not None:
            await self._answer(operation, operation.refusal)
        elif operation.sink is not None:
            await self._answer(operation, await self._finish(operation, operation.sink))
        else:
            await self._respond(operation)

    async def _finish(self, operation: Operation, sink: DataSink) -> Answer:
        operation.is_finishing = True
        try:
            return await sink.finish()
        except Exception as error:  # noqa: BLE001 - any fault of a room becomes an answer
            return answer_for(error, operation.field, operation.name)
        finally:
            operation.is_finishing = False
            operation.let_go_of_sink()

    async def _respond(self, operation: Operation) -> None:
        """Send the answers of a service until the first that is final."""
        answers = self._answers(operation)
        try:
            pending = 0
            async for together in answers:
                is_stopped = operation.is_cancelled and operation.field == CommandField.C_FIND
                if together[0].is_pending and is_stopped:
                    # The service has not looked yet; the door keeps the promise of PS3.7 9.3.2.3.
                    await self._answer(operation, Answer(CANCEL))
                    return
                await self._answer(operation, *together)
                if not together[-1].is_pending:
                    return
                pending += len(together)
                if pending >= _PENDING_BEFORE_A_BREATH:
                    pending = 0
                    await asyncio.sleep(0)  # C-CANCEL and the other associations come to word
        finally:
            await answers.aclose()

    async def _answers(self, operation: Operation) -> AsyncGenerator[Sequence[Answer], None]:
        """Yield the answers of a service, those given together, and one for what it raises."""
        service, request = operation.service, operation.request
        assert service is not None
        assert request is not None
        data_set = bytes(operation.collected or b"") if has_data_set(operation.command) else None
        operation.collected = None
        given: AsyncIterator[Answers] | None = None
        try:
            if service.respond is None:
                raise TypeError(f"Service {service.name} has no handler.")
            given = service.respond(request, data_set)
            async for answers in given:
                together = (answers,) if isinstance(answers, Answer) else answers
                if not together:
                    continue
                yield together
                if not together[-1].is_pending:
                    return
            raise RuntimeError(f"Service {service.name} gave no final answer.")
        except Exception as error:  # noqa: BLE001 - any fault of a room becomes an answer
            yield (answer_for(error, operation.field, operation.name),)
        finally:
            close = getattr(given, "aclose", None)
            if close is not None:
                await close()

    async def _answer(self, operation: Operation, *answers: Answer) -> None:
        await self.outgoing.answer(operation.context_id, operation.command, *answers)


def _drop(_fragment: memoryview) -> None:
    """Take a fragment that nobody wants."""


def _nothing() -> None:
    """Do nothing more."""
