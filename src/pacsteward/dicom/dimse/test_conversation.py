"""Messages: each request has its answer, whatever the service does."""

from __future__ import annotations

import asyncio
import gc
import time

import pytest

from pacsteward.base.errors import Conflict, Exhausted, Forbidden, Invalid, NotFound, Unavailable
from pacsteward.base.ids import Uid
from pacsteward.dicom.dimse import (
    Admitted,
    Answer,
    AssociationClosed,
    CommandField,
    Limits,
    Quirk,
    Service,
    SubOperations,
)
from pacsteward.dicom.dimse import message as dimse
from pacsteward.dicom.dimse.association import Association
from pacsteward.dicom.dimse.pdu import Abort, ContextProposal, p_data_header
from pacsteward.dicom.dimse.test_support import (
    ALL,
    CT,
    EXPLICIT,
    IMPLICIT,
    MR,
    STUDY_FIND,
    STUDY_GET,
    PacedSink,
    RawPeer,
    Shelf,
    ShelfSink,
    echo_command,
    find_command,
    house,
    on_both_loops,
    service_of,
    store_command,
    until,
)
from pacsteward.dicom.dimse.user_information import RoleSelection, UserInformation

CONTEXTS = (
    ContextProposal(1, CT, (EXPLICIT,)),
    ContextProposal(3, STUDY_FIND, (EXPLICIT,)),
    ContextProposal(5, Uid("1.2.840.10008.1.1"), (IMPLICIT,)),
)


async def ten_then_success(request, data_set):
    for number in range(10):
        yield Answer(0xFF00, data_set=bytes([number]) * 2 + (data_set or b""))
    yield Answer(0x0000)


async def ask(peer: RawPeer, context_id: int, command, data_set=None):
    """Return all answers to one request."""
    peer.say_message(context_id, command, data_set)
    answers = []
    while True:
        answers.append(await peer.hear_message())
        if answers[-1][0][dimse.STATUS] not in (0xFF00, 0xFF01):
            return answers


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
        async with asyncio.timeout(2):
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
            begin = time.monotonic()
            status = 0xFF00
            while status == 0xFF00:
                status = (await peer.hear_message())[0][dimse.STATUS]
            assert status == 0xFE00
            assert time.monotonic() - begin < 2
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
        await until(lambda: home.server.associations() == [])


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
        await until(lambda: any(v.operation == "C-STORE" for v in home.server.associations()))
        peer.hang_up()
        await until(lambda: home.server.associations() == [])
        gate.set()
        await until(lambda: bool(shelf.objects))
        assert shelf.abandoned == []


STATUSES = [
    (Invalid("x"), 0xA900, 0xA900),
    (NotFound("x"), 0x0112, 0xC000),
    (Conflict("x"), 0x0111, 0xA900),
    (Forbidden("x"), 0x0124, 0x0124),
    (Exhausted("x"), 0xA700, 0xA700),
    (Unavailable("x"), 0xA700, 0xA700),
    (ValueError("patient DOE^JOHN"), 0x0110, 0xC000),
]


def test_errors_of_services_become_statuses_with_a_comment():
    async def scene(error, for_store, for_find):
        class Fails(ShelfSink):
            async def finish(self):
                raise error

        class FailsEarly(ShelfSink):
            def write(self, fragment):
                raise error

        async def fails(_request, _data_set):
            raise error
            yield

        def refuses(_request):
            raise error

        shelf = Shelf()
        for receive in (
            lambda request: Fails(shelf, request),
            lambda request: FailsEarly(shelf, request),
            refuses,
        ):
            services = (shelf.service(receive=receive), service_of(fails))
            async with house(*services) as home:
                peer = await RawPeer.associate(home.port, CONTEXTS)
                ((command, _),) = await ask(peer, 1, store_command("1.2.9"), bytes(100_000))
                assert command[dimse.STATUS] == for_store
                assert command[dimse.ERROR_COMMENT]
                assert "DOE" not in command[dimse.ERROR_COMMENT]
                ((command, _),) = await ask(peer, 3, find_command(2), b"key ")
                assert command[dimse.STATUS] == for_find
                assert (await ask(peer, 5, echo_command(3)))[0][0][dimse.STATUS] == 0
        assert shelf.abandoned == ["1.2.9"]

    for error, for_store, for_find in STATUSES:
        asyncio.run(scene(error, for_store, for_find))


@on_both_loops
async def test_a_service_that_forgets_its_final_answer_is_our_fault():
    async def forgets(_request, _data_set):
        yield Answer(0xFF00, data_set=b"ab")

    async with house(service_of(forgets)) as home:
        peer = await RawPeer.associate(home.port, CONTEXTS)
        answers = await ask(peer, 3, find_command(), b"key ")
        assert [command[dimse.STATUS] for command, _ in answers] == [0xFF00, 0xC000]


@on_both_loops
async def test_an_answer_that_cannot_be_encoded_cuts_only_its_association():
    async def impossible(_request, _data_set):
        yield Answer(0x12345)

    async with house(service_of(impossible)) as home:
        peer = await RawPeer.associate(home.port, CONTEXTS)
        peer.say_message(3, find_command(), b"key ")
        assert await peer.hear() == Abort(0)
        await RawPeer.associate(home.port, CONTEXTS)


REFUSED = [
    (5, {**echo_command(), dimse.COMMAND_FIELD: 0x0FFE}, None, 0x0211),
    (5, {**find_command(), dimse.AFFECTED_SOP_CLASS_UID: CT}, b"ab", 0x0211),
    (1, store_command(sop_class=MR), b"ab", 0x0122),
    (1, {**store_command(), dimse.AFFECTED_SOP_CLASS_UID: ""}, b"ab", 0x0212),
    (1, store_command(), None, 0x0212),
    (5, echo_command(), b"unexpected", 0x0212),
    (3, find_command(), None, 0x0212),
]


@pytest.mark.parametrize(("context_id", "command", "data_set", "status"), REFUSED)
def test_requests_that_do_not_fit_are_refused_and_the_association_goes_on(
    context_id, command, data_set, status
):
    async def scene():
        async with house(Shelf().service(), service_of(ten_then_success)) as home:
            peer = await RawPeer.associate(home.port, CONTEXTS)
            ((answer, _),) = await ask(peer, context_id, command, data_set)
            assert answer[dimse.STATUS] == status
            assert answer[dimse.COMMAND_FIELD] == command[dimse.COMMAND_FIELD] | 0x8000
            assert answer[dimse.ERROR_COMMENT]
            assert (await ask(peer, 5, echo_command(3)))[0][0][dimse.STATUS] == 0

    asyncio.run(scene())


@on_both_loops
async def test_without_permission_the_answer_is_0124():
    def admit(_caller):
        return Admitted(frozenset({"echo"}), is_registered=False)

    shelf = Shelf()
    async with house(shelf.service(), admit=admit) as home:
        peer = await RawPeer.associate(home.port, CONTEXTS)
        ((answer, _),) = await ask(peer, 1, store_command(), bytes(100_000))
        assert answer[dimse.STATUS] == 0x0124
        assert answer[dimse.ERROR_COMMENT] == "Not authorized: store"
        assert shelf.requests == []


@on_both_loops
async def test_identifiers_beyond_the_limit_are_refused():
    async with house(
        service_of(ten_then_success), limits=Limits(identifier_size_bytes_max=1000)
    ) as home:
        peer = await RawPeer.associate(home.port, CONTEXTS)
        ((answer, _),) = await ask(peer, 3, find_command(), bytes(100_000))
        assert answer[dimse.STATUS] == 0xA700


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


GET_CONTEXTS = (
    ContextProposal(1, STUDY_GET, (EXPLICIT,)),
    ContextProposal(3, CT, (EXPLICIT,)),
)


def get_service(objects: list[bytes], log: list) -> Service:
    async def retrieve(request, _data_set):
        context = next(c for c in request.channel.contexts if c.as_scp)

        async def chunks(data: bytes):
            for at in range(0, len(data), 3001):
                yield data[at : at + 3001]

        completed = failed = 0
        for number, data in enumerate(objects):
            if request.is_cancelled():
                counters = SubOperations(len(objects) - number, completed, failed, 0)
                yield Answer(0xFE00, sub_operations=counters)
                return
            status, comment = await request.channel.store(
                context.context_id, CT, Uid(f"1.2.{number}"), chunks(data)
            )
            log.append((status, comment))
            completed += status == 0
            failed += status != 0
            remaining = len(objects) - number - 1
            yield Answer(0xFF00, sub_operations=SubOperations(remaining, completed, failed, 0))
        yield Answer(0, sub_operations=SubOperations(None, completed, failed, 0))

    return service_of(retrieve, CommandField.C_GET, STUDY_GET, "retrieve")


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
async def test_a_peer_that_took_only_the_scp_role_cannot_store():
    only_scp = UserInformation(
        max_pdu_size_bytes=16384, roles=(RoleSelection(CT, scu=False, scp=True),)
    )
    shelf = Shelf()
    async with house(shelf.service()) as home:
        peer = await RawPeer.associate(home.port, CONTEXTS, only_scp)
        ((answer, _),) = await ask(peer, 1, store_command(), b"ab")
        assert answer[dimse.STATUS] == 0x0122
        assert shelf.requests == []


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
        await until(lambda: home.server.associations() == [])
