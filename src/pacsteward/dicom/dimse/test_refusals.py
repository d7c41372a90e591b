"""What goes wrong is told with its status and a comment, and the association goes on."""

from __future__ import annotations

import asyncio

import pytest

from pacsteward.base.errors import Conflict, Exhausted, Forbidden, Invalid, NotFound, Unavailable
from pacsteward.dicom.dimse import Admitted, Answer, Limits
from pacsteward.dicom.dimse import message as dimse
from pacsteward.dicom.dimse.pdu import Abort
from pacsteward.dicom.dimse.test_support import (
    CONTEXTS,
    CT,
    MR,
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
)
from pacsteward.dicom.dimse.user_information import RoleSelection, UserInformation

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
