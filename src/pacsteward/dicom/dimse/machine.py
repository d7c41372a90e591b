"""The state machine of the DICOM upper layer as the table that the standard prints.

Events go in, actions and the next state come out; there is no socket, timer or clock here. The
names of transitions (AE-1, DT-2, AA-8 ...) are those of PS3.8, so that this file can be compared
line by line with tables 9-6 to 9-10.

The table has two conditions inside cells. AE-6 (is the request acceptable to the provider?) is
left to the user of the machine, who answers with `ASSOCIATE_REJECT`: the peer sees the same. AR-8
(release collision) depends on who requested the association, so a machine knows its side.

References
----------
PS3.8 9.2, tables 9-1 to 9-10.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final

from pacsteward.base.errors import Broken


class State(IntEnum):
    """Sta1 to Sta13, PS3.8 tables 9-1 to 9-5."""

    IDLE = 1
    AWAITING_REQUEST = 2
    AWAITING_LOCAL_ANSWER = 3
    AWAITING_CONNECTION = 4
    AWAITING_ANSWER = 5
    ESTABLISHED = 6
    AWAITING_RELEASE_REPLY = 7
    AWAITING_LOCAL_RELEASE = 8
    COLLISION_REQUESTOR_AWAITING_LOCAL_RELEASE = 9
    COLLISION_ACCEPTOR_AWAITING_REPLY = 10
    COLLISION_REQUESTOR_AWAITING_REPLY = 11
    COLLISION_ACCEPTOR_AWAITING_LOCAL_RELEASE = 12
    AWAITING_CLOSE = 13


class Event(IntEnum):
    """Evt1 to Evt19, the rows of PS3.8 table 9-10."""

    ASSOCIATE_REQUEST = 1
    CONNECTED = 2
    ASSOCIATE_AC_PDU = 3
    ASSOCIATE_RJ_PDU = 4
    CONNECTION_ARRIVED = 5
    ASSOCIATE_RQ_PDU = 6
    ASSOCIATE_ACCEPT = 7
    ASSOCIATE_REJECT = 8
    P_DATA_REQUEST = 9
    P_DATA_TF_PDU = 10
    RELEASE_REQUEST = 11
    RELEASE_RQ_PDU = 12
    RELEASE_RP_PDU = 13
    RELEASE_RESPONSE = 14
    ABORT_REQUEST = 15
    ABORT_PDU = 16
    CONNECTION_CLOSED = 17
    ARTIM_EXPIRED = 18
    INVALID_PDU = 19


class Action(Enum):
    """What the machine asks of the one who has the socket, the timer and the user."""

    CONNECT = "connect"
    CLOSE = "close the transport connection"
    START_ARTIM = "start or restart the timer"
    STOP_ARTIM = "stop the timer"
    SEND_ASSOCIATE_RQ = "send A-ASSOCIATE-RQ"
    SEND_ASSOCIATE_AC = "send A-ASSOCIATE-AC"
    SEND_ASSOCIATE_RJ = "send A-ASSOCIATE-RJ"
    SEND_P_DATA = "send P-DATA-TF"
    SEND_RELEASE_RQ = "send A-RELEASE-RQ"
    SEND_RELEASE_RP = "send A-RELEASE-RP"
    SEND_USER_ABORT = "send A-ABORT, source: service user"
    SEND_PROVIDER_ABORT = "send A-ABORT, source: service provider"
    INDICATE_ASSOCIATE = "A-ASSOCIATE indication"
    CONFIRM_ACCEPT = "A-ASSOCIATE confirmation, accepted"
    CONFIRM_REJECT = "A-ASSOCIATE confirmation, rejected"
    INDICATE_P_DATA = "P-DATA indication"
    INDICATE_RELEASE = "A-RELEASE indication"
    CONFIRM_RELEASE = "A-RELEASE confirmation"
    INDICATE_ABORT = "A-ABORT indication, or A-P-ABORT when the provider sent it"
    INDICATE_PROVIDER_ABORT = "A-P-ABORT indication"


@dataclass(frozen=True, slots=True)
class Transition:
    """One of AE-1 to AA-8: what to do and where it leads."""

    name: str
    actions: tuple[Action, ...]
    next_state: State | None
    """None only for AR-8, where the side decides."""


class OutOfOrder(Broken):
    """Our own side asked for what the state does not allow; the standard's empty cells."""


def _transitions(*all_of_them: Transition) -> dict[str, Transition]:
    return {transition.name: transition for transition in all_of_them}


_A = Action
_S = State

TRANSITIONS: Final = _transitions(
    # Table 9-6: association establishment.
    Transition("AE-1", (_A.CONNECT,), _S.AWAITING_CONNECTION),
    Transition("AE-2", (_A.SEND_ASSOCIATE_RQ,), _S.AWAITING_ANSWER),
    Transition("AE-3", (_A.CONFIRM_ACCEPT,), _S.ESTABLISHED),
    Transition("AE-4", (_A.CONFIRM_REJECT, _A.CLOSE), _S.IDLE),
    Transition("AE-5", (_A.START_ARTIM,), _S.AWAITING_REQUEST),
    Transition("AE-6", (_A.STOP_ARTIM, _A.INDICATE_ASSOCIATE), _S.AWAITING_LOCAL_ANSWER),
    Transition("AE-7", (_A.SEND_ASSOCIATE_AC,), _S.ESTABLISHED),
    Transition("AE-8", (_A.SEND_ASSOCIATE_RJ, _A.START_ARTIM), _S.AWAITING_CLOSE),
    # Table 9-7: data transfer.
    Transition("DT-1", (_A.SEND_P_DATA,), _S.ESTABLISHED),
    Transition("DT-2", (_A.INDICATE_P_DATA,), _S.ESTABLISHED),
    # Table 9-8: release.
    Transition("AR-1", (_A.SEND_RELEASE_RQ,), _S.AWAITING_RELEASE_REPLY),
    Transition("AR-2", (_A.INDICATE_RELEASE,), _S.AWAITING_LOCAL_RELEASE),
    Transition("AR-3", (_A.CONFIRM_RELEASE, _A.CLOSE), _S.IDLE),
    Transition("AR-4", (_A.SEND_RELEASE_RP, _A.START_ARTIM), _S.AWAITING_CLOSE),
    Transition("AR-5", (_A.STOP_ARTIM,), _S.IDLE),
    Transition("AR-6", (_A.INDICATE_P_DATA,), _S.AWAITING_RELEASE_REPLY),
    Transition("AR-7", (_A.SEND_P_DATA,), _S.AWAITING_LOCAL_RELEASE),
    Transition("AR-8", (_A.INDICATE_RELEASE,), None),
    Transition("AR-9", (_A.SEND_RELEASE_RP,), _S.COLLISION_REQUESTOR_AWAITING_REPLY),
    Transition("AR-10", (_A.CONFIRM_RELEASE,), _S.COLLISION_ACCEPTOR_AWAITING_LOCAL_RELEASE),
    # Table 9-9: abort.
    Transition("AA-1", (_A.SEND_USER_ABORT, _A.START_ARTIM), _S.AWAITING_CLOSE),
    Transition("AA-2", (_A.STOP_ARTIM, _A.CLOSE), _S.IDLE),
    Transition("AA-3", (_A.INDICATE_ABORT, _A.CLOSE), _S.IDLE),
    Transition("AA-4", (_A.INDICATE_PROVIDER_ABORT,), _S.IDLE),
    Transition("AA-5", (_A.STOP_ARTIM,), _S.IDLE),
    Transition("AA-6", (), _S.AWAITING_CLOSE),
    Transition("AA-7", (_A.SEND_PROVIDER_ABORT,), _S.AWAITING_CLOSE),
    Transition(
        "AA-8",
        (_A.SEND_PROVIDER_ABORT, _A.INDICATE_PROVIDER_ABORT, _A.START_ARTIM),
        _S.AWAITING_CLOSE,
    ),
)

_RELEASE_STATES = (7, 8, 9, 10, 11, 12)
_OPEN_STATES = (6, *_RELEASE_STATES)

_ROWS: Final[dict[Event, dict[str, tuple[int, ...]]]] = {
    Event.ASSOCIATE_REQUEST: {"AE-1": (1,)},
    Event.CONNECTED: {"AE-2": (4,)},
    Event.ASSOCIATE_AC_PDU: {
        "AA-1": (2,),
        "AE-3": (5,),
        "AA-8": (3, *_OPEN_STATES),
        "AA-6": (13,),
    },
    Event.ASSOCIATE_RJ_PDU: {
        "AA-1": (2,),
        "AE-4": (5,),
        "AA-8": (3, *_OPEN_STATES),
        "AA-6": (13,),
    },
    Event.CONNECTION_ARRIVED: {"AE-5": (1,)},
    Event.ASSOCIATE_RQ_PDU: {"AE-6": (2,), "AA-8": (3, 5, *_OPEN_STATES), "AA-7": (13,)},
    Event.ASSOCIATE_ACCEPT: {"AE-7": (3,)},
    Event.ASSOCIATE_REJECT: {"AE-8": (3,)},
    Event.P_DATA_REQUEST: {"DT-1": (6,), "AR-7": (8,)},
    Event.P_DATA_TF_PDU: {
        "AA-1": (2,),
        "DT-2": (6,),
        "AR-6": (7,),
        "AA-8": (3, 5, 8, 9, 10, 11, 12),
        "AA-6": (13,),
    },
    Event.RELEASE_REQUEST: {"AR-1": (6,)},
    Event.RELEASE_RQ_PDU: {
        "AA-1": (2,),
        "AR-2": (6,),
        "AR-8": (7,),
        "AA-8": (3, 5, 8, 9, 10, 11, 12),
        "AA-6": (13,),
    },
    Event.RELEASE_RP_PDU: {
        "AA-1": (2,),
        "AR-3": (7, 11),
        "AR-10": (10,),
        "AA-8": (3, 5, 6, 8, 9, 12),
        "AA-6": (13,),
    },
    Event.RELEASE_RESPONSE: {"AR-4": (8, 12), "AR-9": (9,)},
    Event.ABORT_REQUEST: {"AA-1": (3, 5, *_OPEN_STATES), "AA-2": (4,)},
    Event.ABORT_PDU: {"AA-2": (2, 13), "AA-3": (3, 5, *_OPEN_STATES)},
    Event.CONNECTION_CLOSED: {"AA-5": (2,), "AA-4": (3, 4, 5, *_OPEN_STATES), "AR-5": (13,)},
    Event.ARTIM_EXPIRED: {"AA-2": (2, 13)},
    Event.INVALID_PDU: {"AA-1": (2,), "AA-8": (3, 5, *_OPEN_STATES), "AA-7": (13,)},
}

TABLE: Final[dict[tuple[Event, State], Transition]] = {
    (event, State(number)): TRANSITIONS[name]
    for event, cells in _ROWS.items()
    for name, numbers in cells.items()
    for number in numbers
}
"""Table 9-10. What is missing here are its empty cells: events that our own side must not cause."""


class Machine:
    """Where one association stands.

    Parameters
    ----------
    is_requestor
        Whether our side asked for the association.
    """

    def __init__(self, *, is_requestor: bool) -> None:
        self.state = State.IDLE
        self._is_requestor = is_requestor

    def step(self, event: Event) -> tuple[Action, ...]:
        """Move on, and return what has to be done, in this order.

        Raises
        ------
        OutOfOrder
            The event is one of our own side, and the state does not allow it. The state stays.
        """
        transition = TABLE.get((event, self.state))
        if transition is None:
            raise OutOfOrder(
                f"{event.name} is not possible in state Sta{self.state.value} {self.state.name}.",
                why="PS3.8 table 9-10 has an empty cell there.",
            )
        self.state = transition.next_state or self._after_release_collision()
        return transition.actions

    def allows(self, event: Event) -> bool:
        """Whether `step` would accept the event now."""
        return (event, self.state) in TABLE

    def _after_release_collision(self) -> State:
        """Return the state after AR-8, PS3.8 table 9-8."""
        if self._is_requestor:
            return State.COLLISION_REQUESTOR_AWAITING_LOCAL_RELEASE
        return State.COLLISION_ACCEPTOR_AWAITING_REPLY
