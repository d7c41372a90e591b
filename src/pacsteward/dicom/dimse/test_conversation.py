"""Messages: each request has its answer, whatever the service does."""

from __future__ import annotations

import asyncio
import gc

import pytest

from pacsteward.base.errors import Exhausted
from pacsteward.base.ids import Uid
from pacsteward.dicom.dimse import (
    Answer,
    AssociationClosed,
    CommandField,
    Limits,
    Service,
    SubOperations,
)
from pacsteward.dicom.dimse import message as dimse
from pacsteward.dicom.dimse.pdu import Abort, ContextProposal, p_data_header
from pacsteward.dicom.dimse.test_support import (
    CONTEXTS,
    IMPLICIT,
    PacedSink,
    RawPeer,
    Shelf,
    ShelfSink,
    ask,
    echo_command,
    find_command,
    house,
    on_both_loops,
    service_of,
    store_command,
    ten_then_success,
    until,
)


@on_both_loops
async def test_c73_a_find_has_pending_answers_and_one_final_without_identifier():
    async with house(service_of(ten_then_success)) as home:
        peer = await RawPeer.associate(home.port, CONTEXTS)
        answers = await ask(peer, 3, find_command(), b"key ")
        assert [command[dimse.STATUS] for command, _ in answers] == [0xFF00] * 10 + [0]
        assert answers[3][1] == b"\3\3key "
        assert answers[-1][1] is None
        assert answers[0][0][dimse.COMMAND_FIELD] == 0x8020


@on_both_loops
async def test_c73_answers_given_together_are_those_given_one_by_one():
    counters = SubOperations(1, 2, 3, 4)
    answers = [
        *(Answer(0xFF00, data_set=bytes([number]) * 2) for number in range(3)),
        Answer(0xFF01, data_set=b"ab", comment="a key was ignored"),
        Answer(0xFF00, data_set=bytes(40_000)),
        Answer(0xFF00, data_set=b"cd", sub_operations=counters),
        Answer(0xFF00, data_set=b"ef"),
        Answer(0x0000, comment="that is all"),
    ]

    async def one_by_one(_request, _data_set):
        for answer in answers:
            yield answer

    async def together(_request, _data_set):
        yield answers[:2]
        yield []
        yield answers[2:]

    heard = []
    for respond in (one_by_one, together):
        async with house(service_of(respond)) as home:
            peer = await RawPeer.associate(home.port, CONTEXTS)
            heard.append(await ask(peer, 3, find_command(), b"key "))
    assert heard[0] == heard[1]
    assert len(heard[0]) == len(answers)
    assert heard[1][5][0][dimse.FAILED_SUB_OPERATIONS] == 3


@on_both_loops
async def test_c74_cancel_is_heard_between_answers_given_together():
    async def endless_batches(request, _data_set):
        while True:
            yield [Answer(0xFF00, data_set=bytes(200))] * 50

    async with house(service_of(endless_batches)) as home:
        peer = await RawPeer.associate(home.port, CONTEXTS)
        peer.say_message(3, find_command(9), b"key ")
        await peer.hear_message()
        peer.say_message(3, {dimse.COMMAND_FIELD: CommandField.C_CANCEL, 0x0120: 9})
        async with asyncio.timeout(60):
            while (status := (await peer.hear_message())[0][dimse.STATUS]) == 0xFF00:
                pass
        assert status == 0xFE00


async def endless(request, _data_set):
    while True:
        yield Answer(0xFF00, data_set=bytes(200))


async def endless_until_cancelled(request, _data_set):
    while not request.is_cancelled():
        yield Answer(0xFF00, data_set=bytes(200))
        await asyncio.sleep(0)
    yield Answer(0xFE00, comment="stopped")


@pytest.mark.parametrize("handler", [endless, endless_until_cancelled])
def test_c74_cancel_stops_a_find_whether_or_not_its_service_looks(handler):
    async def scene():
        async with house(service_of(handler)) as home:
            peer = await RawPeer.associate(home.port, CONTEXTS)
            peer.say_message(3, find_command(9), b"key ")
            await peer.hear_message()
            peer.say_message(3, {dimse.COMMAND_FIELD: CommandField.C_CANCEL, 0x0120: 8})
            peer.say_message(3, {dimse.COMMAND_FIELD: CommandField.C_CANCEL, 0x0120: 9})
            status = 0xFF00
            while status == 0xFF00:
                status = (await peer.hear_message())[0][dimse.STATUS]
            assert status == 0xFE00
            assert (await ask(peer, 5, echo_command()))[0][0][dimse.STATUS] == 0

    asyncio.run(scene())


@on_both_loops
async def test_a_find_does_not_outrun_a_peer_that_does_not_read():
    produced = 0

    async def many(_request, _data_set):
        nonlocal produced
        for produced in range(100_000):  # noqa: B007
            yield Answer(0xFF00, data_set=bytes(10_000))
        yield Answer(0)

    async with house(service_of(many)) as home:
        peer = await RawPeer.associate(home.port, CONTEXTS)
        peer.reader._transport.pause_reading()
        peer.say_message(3, find_command(), b"key ")
        await asyncio.sleep(0.5)
        before = produced
        await asyncio.sleep(0.2)
        assert produced == before < 5000
        peer.hang_up()
        await until(lambda: home.inside() == [])


@on_both_loops
async def test_a_peer_that_stops_reading_is_cut():
    async def many(_request, _data_set):
        while True:
            yield Answer(0xFF00, data_set=bytes(100_000))

    async with house(service_of(many), limits=Limits(data_set_idle_s=0.3)) as home:
        peer = await RawPeer.associate(home.port, CONTEXTS)
        peer.reader._transport.pause_reading()
        peer.say_message(3, find_command(), b"key ")
        await until(lambda: bool(home.told(AssociationClosed)))
        assert "stopped reading" in home.told(AssociationClosed)[0].how


@on_both_loops
async def test_c96_a_handler_is_closed_when_its_peer_goes():
    log = []

    async def waits(request, _data_set):
        try:
            yield Answer(0xFF00, data_set=b"ab")
            await asyncio.sleep(60)
            yield Answer(0)
        finally:
            log.append(request.is_cancelled())

    async with house(service_of(waits)) as home:
        peer = await RawPeer.associate(home.port, CONTEXTS)
        peer.say_message(3, find_command(), b"key ")
        await peer.hear_message()
        peer.say(Abort(0))
        await until(lambda: log == [True])


@on_both_loops
async def test_an_object_that_has_come_whole_is_finished_although_its_peer_has_gone():
    shelf = Shelf()
    gate = asyncio.Event()

    class Slow(ShelfSink):
        async def finish(self):
            await gate.wait()
            return await super().finish()

    service = shelf.service(receive=lambda request: Slow(shelf, request))
    async with house(service) as home:
        peer = await RawPeer.associate(home.port, CONTEXTS)
        peer.say_message(1, store_command("1.2.9"), b"whole ")
        await until(lambda: home.inside()[0]._conversation._operation is not None)
        peer.hang_up()
        await until(lambda: home.inside() == [])
        gate.set()
        await until(lambda: bool(shelf.objects))
        assert shelf.abandoned == []


ACTION_CLASS = Uid("1.2.840.10008.1.20.1")


def n_service(accepts=lambda uid: uid == ACTION_CLASS) -> Service:
    async def act(request, data_set):
        yield Answer(0, data_set=data_set, extra={dimse.ACTION_TYPE_ID: 1})

    return Service(
        name="actions",
        commands=frozenset({CommandField.N_ACTION, CommandField.N_GET}),
        accepts=accepts,
        permission="store",
        respond=act,
    )


def action(sop_class: str = ACTION_CLASS):
    return {
        dimse.REQUESTED_SOP_CLASS_UID: sop_class,
        dimse.REQUESTED_SOP_INSTANCE_UID: "1.2.3",
        dimse.COMMAND_FIELD: CommandField.N_ACTION,
        dimse.MESSAGE_ID: 4,
        dimse.ACTION_TYPE_ID: 1,
    }


@on_both_loops
async def test_dimse_n_is_served_and_another_sop_class_is_0118():
    contexts = (ContextProposal(1, ACTION_CLASS, (IMPLICIT,)),)
    async with house(n_service()) as home:
        peer = await RawPeer.associate(home.port, contexts)
        ((answer, data_set),) = await ask(peer, 1, action(), b"list")
        assert answer[dimse.STATUS] == 0
        assert answer[dimse.AFFECTED_SOP_CLASS_UID] == ACTION_CLASS
        assert answer[dimse.AFFECTED_SOP_INSTANCE_UID] == "1.2.3"
        assert data_set == b"list"
        ((answer, _),) = await ask(peer, 1, action("1.2.3.4"), b"list")
        assert answer[dimse.STATUS] == 0x0118


@on_both_loops
async def test_dimse_n_may_name_another_class_of_the_same_service():
    contexts = (ContextProposal(1, ACTION_CLASS, (IMPLICIT,)),)
    async with house(n_service(lambda uid: uid in (ACTION_CLASS, "1.2.3.4"))) as home:
        peer = await RawPeer.associate(home.port, contexts)
        ((answer, _),) = await ask(peer, 1, action("1.2.3.4"), b"list")
        assert answer[dimse.STATUS] == 0


@on_both_loops
async def test_a_sink_that_is_behind_stops_the_wire():
    shelf = Shelf()
    log = []

    async with house(shelf.service(receive=lambda request: PacedSink(shelf, request, log))) as home:
        peer = await RawPeer.associate(home.port, CONTEXTS)
        payload = bytes(range(256)) * 20_000
        ((answer, _),) = await ask(peer, 1, store_command("1.2.9"), payload)
        assert answer[dimse.STATUS] == 0
        assert shelf.objects["1.2.9"] == payload
        assert 100_000 <= max(log) < 250_000


@on_both_loops
async def test_a_sink_that_cannot_catch_up_refuses_its_object():
    shelf = Shelf()

    class Broken(PacedSink):
        async def catch_up(self):
            raise Exhausted("No room.")

    async with house(shelf.service(receive=lambda request: Broken(shelf, request, []))) as home:
        peer = await RawPeer.associate(home.port, CONTEXTS)
        ((answer, _),) = await ask(peer, 1, store_command("1.2.9"), bytes(5_000_000))
        assert answer[dimse.STATUS] == 0xA700
        assert shelf.abandoned == ["1.2.9"]
        assert (await ask(peer, 5, echo_command(3)))[0][0][dimse.STATUS] == 0


@on_both_loops
async def test_a_large_object_needs_little_memory_when_its_sink_consumes_at_once():
    class Counts:
        size = 0

        def write(self, fragment):
            Counts.size += len(fragment)

        async def finish(self):
            return Answer(0)

        def abandon(self):
            raise AssertionError

    async with house(Shelf().service(receive=lambda _request: Counts())) as home:
        peer = await RawPeer.associate(home.port, CONTEXTS)
        peer.say_message(1, store_command("1.2.9") | {dimse.COMMAND_DATA_SET_TYPE: 1})
        piece = p_data_header(1, 0, 100_000) + bytes(100_000)
        for _ in range(1000):
            peer.say(piece)
            await peer.writer.drain()
        peer.say(p_data_header(1, 2, 0))
        await peer.hear_message()
        assert Counts.size == 100_000_000
        gc.collect()
        chunks = [o for o in gc.get_objects() if isinstance(o, bytearray) and len(o) > 1_000_000]
        assert len(chunks) <= 4
        assert len(home.server.pool._free) + len(home.server.pool._lent) <= 2
