"""The state table, as dialogues and beside another implementation of the same table."""

from __future__ import annotations

import pytest
from pynetdicom import fsm as independent

from pacsteward.dicom.dimse.machine import TABLE, Action, Event, Machine, OutOfOrder, State


def play(machine: Machine, *lines: tuple[Event, tuple[Action, ...], State]) -> None:
    for event, actions, state in lines:
        assert machine.step(event) == actions, event
        assert machine.state is state, event


def test_table_9_10_is_the_one_that_others_read_in_the_standard():
    ours = {
        (f"Evt{event.value}", f"Sta{state.value}"): transition.name
        for (event, state), transition in TABLE.items()
    }
    assert ours == independent.TRANSITION_TABLE


def test_requestor_calls_speaks_and_parts():
    play(
        Machine(is_requestor=True),
        (Event.ASSOCIATE_REQUEST, (Action.CONNECT,), State.AWAITING_CONNECTION),
        (Event.CONNECTED, (Action.SEND_ASSOCIATE_RQ,), State.AWAITING_ANSWER),
        (Event.ASSOCIATE_AC_PDU, (Action.CONFIRM_ACCEPT,), State.ESTABLISHED),
        (Event.P_DATA_REQUEST, (Action.SEND_P_DATA,), State.ESTABLISHED),
        (Event.P_DATA_TF_PDU, (Action.INDICATE_P_DATA,), State.ESTABLISHED),
        (Event.RELEASE_REQUEST, (Action.SEND_RELEASE_RQ,), State.AWAITING_RELEASE_REPLY),
        (Event.P_DATA_TF_PDU, (Action.INDICATE_P_DATA,), State.AWAITING_RELEASE_REPLY),
        (Event.RELEASE_RP_PDU, (Action.CONFIRM_RELEASE, Action.CLOSE), State.IDLE),
    )


def test_acceptor_lets_in_answers_and_lets_go():
    play(
        Machine(is_requestor=False),
        (Event.CONNECTION_ARRIVED, (Action.START_ARTIM,), State.AWAITING_REQUEST),
        (
            Event.ASSOCIATE_RQ_PDU,
            (Action.STOP_ARTIM, Action.INDICATE_ASSOCIATE),
            State.AWAITING_LOCAL_ANSWER,
        ),
        (Event.ASSOCIATE_ACCEPT, (Action.SEND_ASSOCIATE_AC,), State.ESTABLISHED),
        (Event.RELEASE_RQ_PDU, (Action.INDICATE_RELEASE,), State.AWAITING_LOCAL_RELEASE),
        (Event.P_DATA_REQUEST, (Action.SEND_P_DATA,), State.AWAITING_LOCAL_RELEASE),
        (
            Event.RELEASE_RESPONSE,
            (Action.SEND_RELEASE_RP, Action.START_ARTIM),
            State.AWAITING_CLOSE,
        ),
        (Event.CONNECTION_CLOSED, (Action.STOP_ARTIM,), State.IDLE),
    )


def test_acceptor_refuses_and_waits_for_the_peer_to_close():
    machine = Machine(is_requestor=False)
    machine.step(Event.CONNECTION_ARRIVED)
    machine.step(Event.ASSOCIATE_RQ_PDU)
    play(
        machine,
        (
            Event.ASSOCIATE_REJECT,
            (Action.SEND_ASSOCIATE_RJ, Action.START_ARTIM),
            State.AWAITING_CLOSE,
        ),
        (Event.P_DATA_TF_PDU, (), State.AWAITING_CLOSE),
        (Event.ARTIM_EXPIRED, (Action.STOP_ARTIM, Action.CLOSE), State.IDLE),
    )


def test_a_silent_caller_is_cut_by_artim():
    play(
        Machine(is_requestor=False),
        (Event.CONNECTION_ARRIVED, (Action.START_ARTIM,), State.AWAITING_REQUEST),
        (Event.ARTIM_EXPIRED, (Action.STOP_ARTIM, Action.CLOSE), State.IDLE),
    )


def established(*, is_requestor: bool) -> Machine:
    machine = Machine(is_requestor=is_requestor)
    machine.state = State.ESTABLISHED
    return machine


def test_release_collision_on_the_requestor_side():
    play(
        established(is_requestor=True),
        (Event.RELEASE_REQUEST, (Action.SEND_RELEASE_RQ,), State.AWAITING_RELEASE_REPLY),
        (Event.RELEASE_RQ_PDU, (Action.INDICATE_RELEASE,), State(9)),
        (Event.RELEASE_RESPONSE, (Action.SEND_RELEASE_RP,), State(11)),
        (Event.RELEASE_RP_PDU, (Action.CONFIRM_RELEASE, Action.CLOSE), State.IDLE),
    )


def test_release_collision_on_the_acceptor_side():
    play(
        established(is_requestor=False),
        (Event.RELEASE_REQUEST, (Action.SEND_RELEASE_RQ,), State.AWAITING_RELEASE_REPLY),
        (Event.RELEASE_RQ_PDU, (Action.INDICATE_RELEASE,), State(10)),
        (Event.RELEASE_RP_PDU, (Action.CONFIRM_RELEASE,), State(12)),
        (
            Event.RELEASE_RESPONSE,
            (Action.SEND_RELEASE_RP, Action.START_ARTIM),
            State.AWAITING_CLOSE,
        ),
    )


def test_nonsense_in_an_association_ends_it_with_the_providers_abort():
    for event in (Event.INVALID_PDU, Event.ASSOCIATE_RQ_PDU, Event.RELEASE_RP_PDU):
        machine = established(is_requestor=False)
        assert machine.step(event) == (
            Action.SEND_PROVIDER_ABORT,
            Action.INDICATE_PROVIDER_ABORT,
            Action.START_ARTIM,
        )
        assert machine.state is State.AWAITING_CLOSE


@pytest.mark.parametrize("state", [state for state in State if state not in (1, 4)])
def test_whatever_the_peer_does_has_an_answer_in_every_open_state(state):
    from_the_peer = (3, 4, 6, 10, 12, 13, 16, 17, 19)
    for event in map(Event, from_the_peer):
        assert (event, state) in TABLE


def test_our_own_mistakes_are_errors_and_change_nothing():
    machine = Machine(is_requestor=False)
    with pytest.raises(OutOfOrder):
        machine.step(Event.P_DATA_REQUEST)
    assert machine.state is State.IDLE
