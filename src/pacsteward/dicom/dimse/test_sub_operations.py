"""Objects are sent within a retrieval as the peer can take them, until it cancels or goes."""

from __future__ import annotations

import asyncio

import pytest

from pacsteward.base.ids import Uid
from pacsteward.dicom.dimse import Admitted, Answer, AssociationClosed, CommandField, Limits, Quirk
from pacsteward.dicom.dimse import message as dimse
from pacsteward.dicom.dimse.association import Association
from pacsteward.dicom.dimse.outgoing import Patience
from pacsteward.dicom.dimse.pdu import Abort, ContextProposal
from pacsteward.dicom.dimse.test_support import (
    ALL,
    CT,
    EXPLICIT,
    STUDY_GET,
    RawPeer,
    Shelf,
    ask,
    get_service,
    house,
    on_both_loops,
    service_of,
    until,
)
from pacsteward.dicom.dimse.user_information import RoleSelection, UserInformation

GET_CONTEXTS = (
    ContextProposal(1, STUDY_GET, (EXPLICIT,)),
    ContextProposal(3, CT, (EXPLICIT,)),
)


def get_command():
    return {
        dimse.AFFECTED_SOP_CLASS_UID: STUDY_GET,
        dimse.COMMAND_FIELD: CommandField.C_GET,
        dimse.MESSAGE_ID: 50,
        dimse.PRIORITY: 0,
    }


def roles(size: int = 0) -> UserInformation:
    return UserInformation(max_pdu_size_bytes=size, roles=(RoleSelection(CT, scu=True, scp=True),))


@pytest.mark.parametrize("peer_max", [0, 8, 20, 4096, 131072])
def test_c96_sub_operations_honour_the_peers_maximum_length(peer_max):
    objects = [bytes(range(256)) * 31, b"", b"x" * 10_001]
    log = []

    async def scene():
        async with house(Shelf().service(), get_service(objects, log)) as home:
            peer = await RawPeer.associate(home.port, GET_CONTEXTS, roles(peer_max))
            hear = peer.hear_raw

            async def hear_and_measure():
                pdu_type, body = await hear()
                assert peer_max == 0 or len(body) <= peer_max
                return pdu_type, body

            peer.hear_raw = hear_and_measure
            peer.say_message(1, get_command(), b"key ")
            received = []
            while True:
                command, data_set = await peer.hear_message()
                if command[dimse.COMMAND_FIELD] == CommandField.C_STORE:
                    received.append(data_set)
                    status = 0xA700 if len(received) == 2 else 0
                    answer = {
                        dimse.COMMAND_FIELD: 0x8001,
                        dimse.MESSAGE_ID_BEING_RESPONDED_TO: command[dimse.MESSAGE_ID],
                        dimse.STATUS: status,
                        dimse.ERROR_COMMENT: "full" if status else "",
                    }
                    peer.say_message(3, answer)
                elif command[dimse.STATUS] != 0xFF00:
                    break
            assert received == objects
            assert log == [(0, ""), (0xA700, "full"), (0, "")]
            assert command[dimse.COMPLETED_SUB_OPERATIONS] == 2
            assert command[dimse.FAILED_SUB_OPERATIONS] == 1
            assert dimse.REMAINING_SUB_OPERATIONS not in command

    asyncio.run(scene())


@on_both_loops
async def test_c89_nothing_is_sent_where_the_requestor_did_not_take_the_scp_role():
    log = []

    async def retrieve(request, _data_set):
        log.append([c.as_scp for c in request.channel.contexts])
        await request.channel.store(3, CT, Uid("1.2"), b"")
        yield Answer(0)

    get = service_of(retrieve, CommandField.C_GET, STUDY_GET, "retrieve")
    async with house(Shelf().service(), get) as home:
        peer = await RawPeer.associate(home.port, GET_CONTEXTS)
        ((answer, _),) = await ask(peer, 1, get_command(), b"key ")
        assert answer[dimse.STATUS] == 0x0122
        assert log == [[False, False]]


@on_both_loops
async def test_c89_a_peer_with_the_quirk_gets_although_it_negotiated_no_roles():
    def admit(_caller):
        return Admitted(ALL, is_registered=True, quirks=frozenset({Quirk.GET_WITHOUT_ROLES}))

    log = []
    get = get_service([b"object"], log)
    async with house(Shelf().service(), get, admit=admit) as home:
        peer = await RawPeer.associate(home.port, GET_CONTEXTS)
        assert peer.accepted.user.roles == ()
        peer.say_message(1, get_command(), b"key ")
        command, data_set = await peer.hear_message()
        assert (command[dimse.COMMAND_FIELD], data_set) == (CommandField.C_STORE, b"object")


@on_both_loops
async def test_cancel_is_seen_between_sub_operations():
    log = []
    async with house(Shelf().service(), get_service([b"a"] * 5, log)) as home:
        peer = await RawPeer.associate(home.port, GET_CONTEXTS, roles())
        peer.say_message(1, get_command(), b"key ")
        command, _ = await peer.hear_message()
        peer.say_message(1, {dimse.COMMAND_FIELD: CommandField.C_CANCEL, 0x0120: 50})
        peer.say_message(
            3,
            {
                dimse.COMMAND_FIELD: 0x8001,
                0x0120: command[dimse.MESSAGE_ID],
                dimse.STATUS: 0,
            },
        )
        while command.get(dimse.STATUS, 0xFF00) == 0xFF00:
            command, _ = await peer.hear_message()
        assert command[dimse.STATUS] == 0xFE00
        assert command[dimse.REMAINING_SUB_OPERATIONS] == 4


@on_both_loops
async def test_an_object_arrives_whole_with_a_write_for_each_megabyte():
    sizes = [0, 2, 16_378, 525_000, 1024 * 1024, 3 * 1024 * 1024 + 2]
    content = bytes(range(256)) * 13_000
    writes = []
    send = Association.send

    async def retrieve(request, _data_set):
        for size in sizes:
            await request.channel.store(3, CT, Uid("1.2"), memoryview(content)[:size])
        yield Answer(0)

    def counted(link, pieces):
        writes.append(sum(map(len, pieces)))
        send(link, pieces)

    get = service_of(retrieve, CommandField.C_GET, STUDY_GET, "retrieve")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Association, "send", counted)
        async with house(Shelf().service(), get) as home:
            peer = await RawPeer.associate(home.port, GET_CONTEXTS, roles())
            peer.say_message(1, get_command(), b"key ")
            for size in sizes:
                command, heard = await peer.hear_message()
                assert heard == content[:size]
                assert len(writes) == max(1, -(-size // (1024 * 1024)))
                writes.clear()
                done = {dimse.COMMAND_FIELD: 0x8001, 0x0120: command[dimse.MESSAGE_ID]}
                peer.say_message(3, {**done, dimse.STATUS: 0})
            assert (await peer.hear_message())[0][dimse.STATUS] == 0


@on_both_loops
async def test_a_peer_that_never_answers_a_sub_operation_is_cut():
    limits = Limits(response_s=0.2)
    async with house(Shelf().service(), get_service([b"a"], []), limits=limits) as home:
        peer = await RawPeer.associate(home.port, GET_CONTEXTS, roles())
        peer.say_message(1, get_command(), b"key ")
        await peer.hear_message()
        assert await peer.hear() == Abort(0)
        await until(lambda: bool(home.told(AssociationClosed)))
        assert "no response" in home.told(AssociationClosed)[0].how


@on_both_loops
async def test_sub_operations_do_not_outrun_a_slow_peer():
    produced = 0

    async def retrieve(request, _data_set):
        async def chunks():
            nonlocal produced
            for produced in range(1000):  # noqa: B007
                yield bytes(1_000_000)

        await request.channel.store(3, CT, Uid("1.2"), chunks())
        yield Answer(0)

    get = service_of(retrieve, CommandField.C_GET, STUDY_GET, "retrieve")
    async with house(Shelf().service(), get) as home:
        peer = await RawPeer.associate(home.port, GET_CONTEXTS, roles())
        peer.reader._transport.pause_reading()
        peer.say_message(1, get_command(), b"key ")
        await asyncio.sleep(0.5)
        assert 0 < produced < 40
        peer.hang_up()
        await until(lambda: home.inside() == [])


@on_both_loops
async def test_who_waits_for_an_answer_has_the_whole_time_whenever_others_began_to_wait():
    """One timer serves all; it must neither end a later one early, nor forget it."""
    loop = asyncio.get_running_loop()
    patience, shorter = Patience(0.2), Patience(0.05)
    answered, first = patience.waiter(), patience.waiter()
    patience.done(answered)
    async with asyncio.timeout(60):
        with pytest.raises(TimeoutError):
            await shorter.waiter()
        later, until = patience.waiter(), loop.time() + 0.2
        with pytest.raises(TimeoutError):
            await first
        patience.done(first)
        assert not later.done()
        with pytest.raises(TimeoutError):
            await later
    assert loop.time() >= until - 0.002
    assert not answered.done()
