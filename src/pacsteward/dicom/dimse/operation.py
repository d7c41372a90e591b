"""One request of the peer: whether it is in order, and where its data set goes.

A command set enters; an `Operation` leaves that is either refused already (then its data set is
drained, and the refusal is the answer) or has a sink, or a place to collect a small data set.

References
----------
PS3.7 9.1, 9.3, 10.1, 10.3 and Annex C.
"""

from __future__ import annotations

import logging
from typing import Final, cast

from pacsteward.base.errors import Exhausted
from pacsteward.dicom import status
from pacsteward.dicom.dimse import message as dimse
from pacsteward.dicom.dimse.failure import answer_for
from pacsteward.dicom.dimse.message import CommandSet
from pacsteward.dicom.dimse.service import (
    Answer,
    CommandField,
    DataSink,
    PacedSink,
    PromptSink,
    Request,
    Service,
)

log = logging.getLogger("pacsteward.dicom.dimse")

_NEEDS_DATA_SET: Final = frozenset(
    {
        CommandField.C_STORE,
        CommandField.C_FIND,
        CommandField.C_GET,
        CommandField.C_MOVE,
        CommandField.N_SET,
    }
)
_HAS_NO_DATA_SET: Final = frozenset(
    {CommandField.C_ECHO, CommandField.N_GET, CommandField.N_DELETE}
)
_NEEDS_NO_ROLE: Final = frozenset({CommandField.N_EVENT_REPORT})
"""Storage commitment providers often leave out role selection (PS3.7 D.3.3.4) on the association
that they open for their report."""


class Operation:
    """One request of the peer, from its command set to the last answer.

    Parameters
    ----------
    field
        Command Field (0000,0100), perhaps one that nobody knows.
    """

    __slots__ = (
        "collected",
        "command",
        "context_id",
        "field",
        "is_cancelled",
        "is_complete",
        "is_due",
        "is_finishing",
        "paced",
        "prompt",
        "refusal",
        "request",
        "service",
        "sink",
    )

    def __init__(self, context_id: int, command: CommandSet, field: int) -> None:
        self.context_id = context_id
        self.command = command
        self.field = field
        self.request: Request | None = None
        self.service: Service | None = None
        self.refusal: Answer | None = None
        """Decided already: the data set is drained, then this is the answer."""
        self.sink: DataSink | None = None
        self.paced: PacedSink | None = None
        """The sink, when it can fall behind."""
        self.prompt: PromptSink | None = None
        """The sink, when it needs nobody to wait for its answer."""
        self.collected: bytearray | None = None
        self.is_cancelled = False
        self.is_complete = False
        """All of the request has arrived."""
        self.is_due = False
        """It is for the task of the conversation to answer it."""
        self.is_finishing = False
        """The sink makes its answer: what it does is not interrupted when the peer goes."""

    @property
    def name(self) -> str:
        """The message's name for people, e.g. ``C-STORE``."""
        return message_name(self.field)

    def open(self, request: Request, service: Service) -> None:
        """Ask the service where the data set goes."""
        self.request, self.service = request, service
        if service.receive is None:
            self.collected = bytearray()
            return
        try:
            self.sink = service.receive(request)
        except Exception as error:  # noqa: BLE001 - any fault of a room becomes an answer
            self.fail(error)
        if self.sink is not None and hasattr(self.sink, "is_behind"):
            self.paced = cast(PacedSink, self.sink)
        if self.sink is not None and hasattr(self.sink, "finish_soon"):
            self.prompt = cast(PromptSink, self.sink)

    def collect(self, fragment: memoryview, size_max: int) -> None:
        """Keep a fragment of a data set that goes to no sink, unless it is drained.

        Parameters
        ----------
        size_max
            Of the whole data set.
        """
        if self.collected is not None:
            if len(self.collected) + len(fragment) > size_max:
                self.fail(
                    Exhausted(
                        f"The data set has more than {size_max} bytes.",
                        remedy="Split it up, or raise `dicom.identifier_bytes_max`.",
                    )
                )
            else:
                self.collected += fragment

    def fail(self, error: Exception) -> None:
        """Give up before all has arrived; the rest is drained."""
        self.refusal = answer_for(error, self.field, self.name)
        self.collected = None
        self.abandon()

    def let_go_of_sink(self) -> None:
        """Forget the sink: its slices go, so their chunk can be used again."""
        self.sink = self.paced = self.prompt = None

    def abandon(self) -> None:
        """Tell the sink, once, that it will not be finished."""
        sink = self.sink
        self.let_go_of_sink()
        if sink is not None:
            try:
                sink.abandon()
            except Exception:
                log.exception("A data sink failed while it was abandoned.")


def message_name(field: int) -> str:
    """Return what people call a Command Field, e.g. ``C-STORE``."""
    try:
        return CommandField(field).name.replace("_", "-")
    except ValueError:
        return f"{field:04X}H"


def objection(
    request: Request,
    service: Service | None,
    *,
    is_requestor: bool,
    checks_permission: bool,
) -> Answer | None:
    """Return why a request is refused, in the order in which PS3.7 would have it; None if not.

    Parameters
    ----------
    service
        Who would serve it; None when nobody does.
    is_requestor
        Whether our side requested the association; roles are the requestor's.
    checks_permission
        Whether the peer needs the service's permission.
    """
    field, context = request.command_field, request.context
    if service is None:
        comment = f"{message_name(field)} is not served on this context"
        return Answer(status.UNRECOGNIZED_OPERATION, comment=comment)
    named = request.affected_sop_class_uid
    if named != context.abstract_syntax and (refusal := _class_objection(field, named, service)):
        return refusal
    if not (context.as_scp if is_requestor else context.as_scu) and field not in _NEEDS_NO_ROLE:
        comment = "The role for this request was not negotiated"
        return Answer(status.SOP_CLASS_NOT_SUPPORTED, comment=comment)
    if checks_permission and service.permission not in request.permissions:
        return Answer(status.NOT_AUTHORIZED, comment=f"Not authorized: {service.permission}")
    if field in (_HAS_NO_DATA_SET if has_data_set(request.command) else _NEEDS_DATA_SET):
        has_one = field in _HAS_NO_DATA_SET
        comment = "This request has no data set" if has_one else "This request needs a data set"
        tag = dimse.COMMAND_DATA_SET_TYPE
        return Answer(status.MISTYPED_ARGUMENT, comment=comment, offending=(tag,))
    return None


def unknown_operation() -> Answer:
    """Return the answer to a Command Field that PS3.7 E.1 does not have."""
    return Answer(status.UNRECOGNIZED_OPERATION, comment="Unrecognized operation")


def has_data_set(command: CommandSet) -> bool:
    """Whether a data set follows, PS3.7 E.1; a command that does not say so has none."""
    return command.get(dimse.COMMAND_DATA_SET_TYPE, dimse.NO_DATA_SET) != dimse.NO_DATA_SET


def _class_objection(field: CommandField, named: str, service: Service) -> Answer | None:
    """Refuse a SOP class that is not its context's, PS3.7 9.1 and 10.1."""
    tag = dimse.AFFECTED_SOP_CLASS_UID
    if not named:
        comment = "SOP Class UID is missing"
        return Answer(status.MISTYPED_ARGUMENT, comment=comment, offending=(tag,))
    if field < CommandField.N_EVENT_REPORT:
        comment = "SOP Class differs from that of the presentation context"
        return Answer(status.SOP_CLASS_NOT_SUPPORTED, comment=comment, offending=(tag,))
    # Messages of UPS Push travel on contexts of UPS Watch, Pull and Event (PS3.4 CC.2), those of a
    # Meta SOP Class on the context of the latter: DIMSE-N may differ within one service.
    if service.accepts(named):
        return None
    return Answer(status.NO_SUCH_SOP_CLASS, comment="No such SOP Class on this context")
