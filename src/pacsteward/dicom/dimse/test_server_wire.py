"""The door seen from a raw socket: who is let in, who is turned away how, who is cut when."""

from __future__ import annotations

import asyncio
import struct
import time
import tracemalloc
from collections import Counter
from dataclasses import replace

import pytest

from pacsteward.base.ids import AeTitle, Uid
from pacsteward.dicom.dimse import (
    CALLING_NOT_RECOGNIZED,
    Admitted,
    AssociationClosed,
    AssociationOpened,
    AssociationRejected,
    CommandField,
    ConnectionDropped,
    Limits,
    UserIdentity,
)
from pacsteward.dicom.dimse import message as dimse
from pacsteward.dicom.dimse.pdu import (
    Abort,
    AssociateAccept,
    AssociateReject,
    ContextProposal,
    ReleaseReply,
    ReleaseRequest,
    encode_pdu,
    p_data_header,
)
from pacsteward.dicom.dimse.test_support import (
    ALL,
    CT,
    EXPLICIT,
    IMPLICIT,
    JPEG,
    OURS,
    VERIFICATION,
    RawPeer,
    Shelf,
    ShelfSink,
    echo_command,
    echo_service,
    house,
    on_both_loops,
    request,
    store_command,
    until,
)
from pacsteward.dicom.dimse.user_information import UserInformation

QUICK = Limits(artim_s=0.3, data_set_idle_s=0.4, association_idle_s=0.8)
CT_CONTEXT = (ContextProposal(1, CT, (EXPLICIT,)),)


async def still_serves(port: int) -> None:
    peer = await RawPeer.associate(port)
    peer.say_message(1, echo_command())
    command, _ = await peer.hear_message()
    assert command[dimse.STATUS] == 0
    peer.say(ReleaseRequest())
    assert await peer.hear() == ReleaseReply()


@on_both_loops
async def test_echo_is_answered_and_release_is_polite():
    async with house() as home:
        await still_serves(home.port)
        await until(lambda: bool(home.told(AssociationClosed)))
        closed = home.told(AssociationClosed)[0]
        assert closed.how == "released by the peer"
        assert closed.requests == 1
        assert closed.caller.calling_ae_title == "PEER"
        assert home.told(AssociationOpened)[0].caller.address == "127.0.0.1"


REFUSALS = [
    ({"protocol_version": 2}, (1, 2, 2)),
    ({"application_context_name": Uid("1.2.3")}, (1, 1, 2)),
    ({"application_context_name": Uid("")}, (1, 1, 2)),
    ({"called_ae_title": AeTitle("SOMEBODY")}, (1, 1, 7)),
    ({"called_ae_title": AeTitle("")}, (1, 1, 7)),
    ({"calling_ae_title": AeTitle("")}, (1, 1, 3)),
    ({"calling_ae_title": AeTitle("BACK\\SLASH")}, (1, 1, 3)),
    ({"calling_ae_title": AeTitle("LINE\nBREAK")}, (1, 1, 3)),
    ({"calling_ae_title": AeTitle("STRANGER")}, (1, 1, 3)),
]


def test_c96_reject_reasons_are_exact():
    def admit(caller):
        if caller.calling_ae_title == "STRANGER":
            return CALLING_NOT_RECOGNIZED
        return Admitted(ALL, is_registered=True)

    async def scene():
        async with house(admit=admit) as home:
            for changes, numbers in REFUSALS:
                peer = await RawPeer.call(home.port)
                peer.say(request(**changes))
                assert await peer.hear() == AssociateReject(*numbers), changes
                peer.hang_up()
            await until(lambda: len(home.told(AssociationRejected)) == len(REFUSALS))
            assert [
                (event.refused.result, event.refused.source, event.refused.reason)
                for event in home.told(AssociationRejected)
            ] == [numbers for _, numbers in REFUSALS]
            await still_serves(home.port)

    asyncio.run(scene())


@on_both_loops
async def test_c96_ae_titles_are_trimmed():
    async with house() as home:
        peer = await RawPeer.call(home.port)
        words = encode_pdu(request()).replace(OURS.encode().ljust(16), b"  PACSTEWARD\0\0\0\0")
        peer.say(words)
        assert isinstance(await peer.hear(), AssociateAccept)


def test_admission_that_fails_or_hangs_is_temporary_congestion():
    def fails(_caller):
        raise RuntimeError("database away")

    def hangs(_caller):
        time.sleep(0.5)
        return Admitted(ALL, is_registered=True)

    async def scene(admit):
        async with house(admit=admit, limits=QUICK) as home:
            peer = await RawPeer.call(home.port)
            peer.say(request())
            assert await peer.hear() == AssociateReject(2, 3, 1)

    asyncio.run(scene(fails))
    asyncio.run(scene(hangs))


def test_admission_sees_who_calls_and_identity_is_answered():
    seen = []

    def admit(caller):
        seen.append(caller)
        return Admitted(ALL, is_registered=True, user_identity_response=b"ticket")

    async def scene():
        async with house(admit=admit) as home:
            identity = UserIdentity(2, b"name", b"secret", wants_response=True)
            user = UserInformation(
                implementation_class_uid=Uid("1.2.3"),
                implementation_version_name="V1",
                identity=identity,
            )
            peer = await RawPeer.associate(home.port, user=user)
            assert peer.accepted.user.identity_response == b"ticket"
            caller = seen[0]
            assert caller.user_identity == identity
            assert (caller.calling_ae_title, caller.called_ae_title) == ("PEER", "PACSTEWARD")
            assert caller.implementation_version_name == "V1"
            assert caller.association_id
            (view,) = home.server.associations()
            assert view.caller == caller

    asyncio.run(scene())


@on_both_loops
async def test_128_contexts_are_each_answered():
    proposals = [
        ContextProposal(2 * n + 1, CT if n % 2 else Uid(f"1.2.3.{n}"), (JPEG, EXPLICIT))
        for n in range(128)
    ]
    async with house(Shelf().service()) as home:
        peer = await RawPeer.associate(home.port, proposals)
        assert [answer.context_id for answer in peer.accepted.contexts] == list(range(1, 256, 2))
        assert [answer.result for answer in peer.accepted.contexts] == [3, 0] * 64
        peer.say_message(255, store_command(), b"pixels")
        command, _ = await peer.hear_message()
        assert command[dimse.STATUS] == 0


@on_both_loops
async def test_c96_length_of_4_gib_is_aborted_without_allocation():
    async with house(Shelf().service()) as home:
        tracemalloc.start()
        try:
            for first in (0x01, 0x04):
                peer = await RawPeer.call(home.port)
                peer.say(struct.pack(">BBI", first, 0, 0xFFFFFFFF))
                assert isinstance(await peer.hear(), Abort)
                peer.hang_up()
            peer = await RawPeer.associate(home.port, CT_CONTEXT)
            peer.say(struct.pack(">BBI", 0x04, 0, 0xFFFFFFFF))
            assert await peer.hear() == Abort(2, 6)
            assert tracemalloc.get_traced_memory()[1] < 8 * 1024**2
        finally:
            tracemalloc.stop()
        await still_serves(home.port)


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", Abort(0, 0)),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", Abort(0, 0)),
        (encode_pdu(ReleaseRequest()), Abort(0, 0)),
        (struct.pack(">BBI", 1, 0, 131_073), Abort(0, 0)),
        (struct.pack(">BBI", 1, 0, 3) + b"abc", Abort(0, 0)),
    ],
)
def test_what_is_no_association_request_is_aborted_at_once(words, answer):
    async def scene():
        async with house() as home:
            peer = await RawPeer.call(home.port)
            peer.say(words)
            assert await peer.hear() == answer
            peer.hang_up()
            await still_serves(home.port)

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (struct.pack(">BBI", 0x09, 0, 4) + bytes(4), 1),
        (encode_pdu(request()), 2),
        (encode_pdu(ReleaseReply()), 2),
        (struct.pack(">BBI", 0x05, 0, 5) + bytes(5), 6),
        (struct.pack(">BBI", 0x04, 0, 4) + bytes(4), 6),
        (struct.pack(">BBIIBB", 0x04, 0, 6, 200, 1, 3), 6),
        (p_data_header(1, 2, 2) + b"ab", 6),
        (p_data_header(3, 3, 2) + b"ab", 6),
        (p_data_header(1, 3, 0), 6),
        (p_data_header(1, 3, 3) + b"abc", 6),
        (p_data_header(1, 3, 10) + struct.pack("<HHIH", 0, 0x0100, 2, 0x30), 6),
    ],
    ids=[
        "unknown type",
        "second request",
        "reply to nothing",
        "release of 5 bytes",
        "P-DATA without PDV",
        "PDV longer than PDU",
        "data set without command",
        "unknown context",
        "empty command",
        "command of 3 bytes",
        "request without message id",
    ],
)
def test_malformed_messages_are_aborted_with_their_reason(words, reason):
    async def scene():
        async with house() as home:
            peer = await RawPeer.associate(home.port)
            peer.say(words)
            assert await peer.hear() == Abort(2, reason)
            peer.hang_up()
            await until(lambda: bool(home.told(AssociationClosed)))
            assert home.server.associations() == []
            await still_serves(home.port)

    asyncio.run(scene())


@on_both_loops
async def test_what_follows_a_malformed_pdu_is_thrown_away_unread():
    async with house(limits=Limits(artim_s=1.0)) as home:
        peer = await RawPeer.associate(home.port)
        peer.say(b"\x09\0\0\0\0\4abcd")
        for _ in range(100):
            peer.say(bytes(100_000))
        assert await peer.hear() == Abort(2, 1)
        await peer.writer.drain()
        assert home.server.associations() == []
        (guest,) = home.server._guests
        await until(lambda: guest.link.received_size_bytes > 10_000_000)
        assert guest.link.state.name == "AWAITING_CLOSE"
        await still_serves(home.port)
        assert await peer.is_closed()


@on_both_loops
async def test_oversized_command_sets_and_identifiers_do_not_fill_the_memory():
    limits = Limits(command_set_size_bytes_max=1000, identifier_size_bytes_max=1000)
    async with house(limits=limits) as home:
        peer = await RawPeer.associate(home.port)
        for _ in range(3):
            peer.say(p_data_header(1, 1, 400) + bytes(400))
        assert await peer.hear() == Abort(2, 6)


@on_both_loops
async def test_instances_beyond_the_limit_end_the_association():
    shelf = Shelf()
    async with house(shelf.service(), limits=Limits(instance_size_bytes_max=10_000)) as home:
        peer = await RawPeer.associate(home.port, CT_CONTEXT)
        peer.say_message(1, store_command("1.2.9"), bytes(20_000), pdu_size=1000)
        assert await peer.hear() == Abort(2, 6)
        assert shelf.abandoned == ["1.2.9"]
        assert shelf.objects == {}


@on_both_loops
async def test_c96_a_silent_or_dripping_caller_is_cut_by_artim():
    async with house(limits=QUICK) as home:
        silent = await RawPeer.call(home.port)
        dripping = await RawPeer.call(home.port)
        words = encode_pdu(request())
        begin = time.monotonic()
        for position in range(20):
            dripping.say(words[position : position + 1])
            await asyncio.sleep(0.03)
        assert await silent.is_closed()
        assert await dripping.is_closed()
        assert time.monotonic() - begin < 1.5
        await until(lambda: len(home.told(ConnectionDropped)) == 2)
        assert "ARTIM" in home.told(ConnectionDropped)[0].how


@on_both_loops
async def test_c96_a_caller_that_does_not_close_after_refusal_is_cut_by_artim():
    async with house(limits=QUICK) as home:
        peer = await RawPeer.call(home.port)
        peer.say(request(called_ae_title=AeTitle("NOBODY")))
        assert isinstance(await peer.hear(), AssociateReject)
        assert await peer.is_closed()


@on_both_loops
async def test_c96_idle_association_is_cut():
    async with house(limits=QUICK) as home:
        peer = await RawPeer.associate(home.port)
        begin = time.monotonic()
        assert await peer.hear() == Abort(0, 0)
        assert 0.7 < time.monotonic() - begin < 1.5
        await until(lambda: bool(home.told(AssociationClosed)))
        assert "idle" in home.told(AssociationClosed)[0].how


@on_both_loops
async def test_c96_a_stalled_data_set_is_cut_though_its_bytes_drip():
    shelf = Shelf()
    async with house(shelf.service(), limits=QUICK) as home:
        peer = await RawPeer.associate(home.port, CT_CONTEXT)
        peer.say_message(1, store_command("1.2.9"), b"ab")
        await peer.hear_message()
        begin = time.monotonic()
        command = store_command("1.2.10") | {dimse.COMMAND_DATA_SET_TYPE: 1}
        peer.say_message(1, command)
        words = p_data_header(1, 2, 1000) + bytes(1000)
        async with asyncio.timeout(3):
            while not shelf.abandoned:
                peer.say(words[:1])
                words = words[1:]
                await asyncio.sleep(0.05)
        assert time.monotonic() - begin < 1.0
        assert await peer.hear() == Abort(0, 0)
        assert list(shelf.objects) == ["1.2.9"]


@on_both_loops
async def test_r14_beyond_the_cap_callers_are_refused_and_registered_ones_have_a_reserve():
    def admit(caller):
        return Admitted(ALL, is_registered=caller.calling_ae_title == "CT1")

    limits = Limits(associations_max=4, reserved_for_registered=2)
    async with house(limits=limits, admit=admit) as home:

        async def call(title: str) -> tuple[RawPeer, object]:
            peer = await RawPeer.call(home.port)
            peer.say(request(calling_ae_title=AeTitle(title)))
            return peer, await peer.hear()

        inside = [await call("STRANGER") for _ in range(2)]
        assert all(isinstance(answer, AssociateAccept) for _, answer in inside)
        assert (await call("STRANGER"))[1] == AssociateReject(2, 3, 2)
        inside += [await call("CT1") for _ in range(2)]
        assert all(isinstance(answer, AssociateAccept) for _, answer in inside)
        assert (await call("CT1"))[1] == AssociateReject(2, 3, 2)
        inside[0][0].say(ReleaseRequest())
        assert await inside[0][0].hear() == ReleaseReply()
        assert isinstance((await call("CT1"))[1], AssociateAccept)


@on_both_loops
async def test_too_many_connections_without_association_are_closed():
    async with house(limits=replace(QUICK, connections_waiting_max=3, artim_s=5.0)) as home:
        waiting = [await RawPeer.call(home.port) for _ in range(3)]
        await asyncio.sleep(0.05)
        one_more = await RawPeer.call(home.port)
        assert await one_more.is_closed()
        waiting[0].say(request())
        assert isinstance(await waiting[0].hear(), AssociateAccept)


@on_both_loops
async def test_r13_the_door_serves_beside_stalled_connections():
    async with house() as home:
        stalled = [await RawPeer.call(home.port) for _ in range(60)]
        for peer in stalled:
            peer.say(b"\x01\0\0")
        begin = time.monotonic()
        await still_serves(home.port)
        assert time.monotonic() - begin < 2


@on_both_loops
async def test_c96_abort_in_the_middle_of_a_store_leaves_nothing_and_the_door_serves():
    shelf = Shelf()
    async with house(shelf.service()) as home:
        for ending in ("abort", "reset", "close"):
            peer = await RawPeer.associate(home.port, CT_CONTEXT)
            command = store_command(ending) | {dimse.COMMAND_DATA_SET_TYPE: 1}
            peer.say_message(1, command)
            peer.say(p_data_header(1, 0, 1000) + bytes(1000))
            await until(lambda: len(shelf.requests) == len(shelf.abandoned) + 1)
            if ending == "abort":
                peer.say(Abort(0))
            elif ending == "reset":
                peer.hang_up()
            else:
                peer.writer.close()
            await until(lambda ending=ending: ending in shelf.abandoned)
        assert shelf.objects == {}
        await until(lambda: home.server.associations() == [])
        await still_serves(home.port)


@on_both_loops
async def test_release_in_the_middle_of_a_store_abandons_it():
    shelf = Shelf()
    async with house(shelf.service()) as home:
        peer = await RawPeer.associate(home.port, CT_CONTEXT)
        peer.say_message(1, store_command("1.2.9") | {dimse.COMMAND_DATA_SET_TYPE: 1})
        peer.say(ReleaseRequest())
        assert await peer.hear() == ReleaseReply()
        assert shelf.abandoned == ["1.2.9"]


@on_both_loops
async def test_data_set_in_fragments_of_one_byte_is_put_together():
    shelf = Shelf()
    async with house(shelf.service()) as home:
        peer = await RawPeer.associate(home.port, CT_CONTEXT)
        peer.say_message(1, store_command("1.2.9") | {dimse.COMMAND_DATA_SET_TYPE: 1})
        payload = bytes(range(256)) * 4
        for number, byte in enumerate(payload):
            last = 2 if number == len(payload) - 1 else 0
            peer.say(p_data_header(1, last, 1) + bytes([byte]))
        await peer.hear_message()
        assert shelf.objects == {"1.2.9": payload}


@on_both_loops
async def test_command_and_data_set_may_share_a_pdu():
    shelf = Shelf()
    async with house(shelf.service()) as home:
        peer = await RawPeer.associate(home.port, CT_CONTEXT)
        encoded = dimse.encode_command_set(store_command("1.2.9") | {0x0800: 1})
        values = b"".join(
            struct.pack(">IBB", len(data) + 2, 1, control) + data
            for data, control in (
                (encoded[:10], 1),
                (encoded[10:], 3),
                (b"first ", 0),
                (b"", 0),
                (b"second", 2),
            )
        )
        words = struct.pack(">BBI", 4, 0, len(values)) + values
        for position in range(0, len(words), 7):
            peer.say(words[position : position + 7])
            await asyncio.sleep(0)
        await peer.hear_message()
        assert shelf.objects == {"1.2.9": b"first second"}


@on_both_loops
async def test_many_instances_over_one_association_arrive_byte_for_byte():
    shelf = Shelf()
    async with house(shelf.service()) as home:
        peer = await RawPeer.associate(home.port, CT_CONTEXT)
        sent = {}
        for number in range(12):
            payload = bytes([number, 255 - number]) * (number * 50_000 + 1)
            sent[f"1.2.{number}"] = payload
            peer.say_message(
                1, store_command(f"1.2.{number}", message_id=number), payload, pdu_size=131072
            )
            command, _ = await peer.hear_message()
            assert command[dimse.STATUS] == 0
            assert command[dimse.MESSAGE_ID_BEING_RESPONDED_TO] == number
            assert command[dimse.COMMAND_FIELD] == 0x8001
            assert command[dimse.AFFECTED_SOP_INSTANCE_UID] == f"1.2.{number}"
        assert shelf.objects == sent


@on_both_loops
async def test_peer_that_sends_the_next_request_too_early_waits_its_turn():
    shelf = Shelf()
    async with house(shelf.service()) as home:
        peer = await RawPeer.associate(home.port, CT_CONTEXT)
        for number in range(1, 31):
            peer.say_message(
                1, store_command(f"1.2.{number}", message_id=number), bytes(50_000), 131072
            )
        for number in range(1, 31):
            command, _ = await peer.hear_message()
            assert command[dimse.MESSAGE_ID_BEING_RESPONDED_TO] == number
        assert len(shelf.objects) == 30


@on_both_loops
async def test_c96_announced_size_is_ours_and_somewhat_larger_pdus_are_taken():
    shelf = Shelf()
    async with house(shelf.service()) as home:
        peer = await RawPeer.associate(home.port, CT_CONTEXT)
        assert peer.accepted.user.max_pdu_size_bytes == 131072
        assert peer.accepted.user.implementation_class_uid
        peer.say_message(1, store_command("1.2.9"), bytes(300_000), pdu_size=200_000)
        command, _ = await peer.hear_message()
        assert command[dimse.STATUS] == 0


@on_both_loops
async def test_a_maximum_length_that_leaves_no_room_is_aborted():
    async with house() as home:
        peer = await RawPeer.call(home.port)
        peer.say(request(user=UserInformation(max_pdu_size_bytes=7)))
        assert await peer.hear() == Abort(2, 6)


@on_both_loops
async def test_stopping_finishes_what_was_begun_and_refuses_what_is_new():
    shelf = Shelf()
    async with house(shelf.service()) as home:
        port = home.port
        waiting = await RawPeer.call(port)
        peer = await RawPeer.associate(port, CT_CONTEXT)
        peer.say_message(1, store_command("1.2.9") | {dimse.COMMAND_DATA_SET_TYPE: 1})
        await until(lambda: bool(shelf.requests))
        stopping = asyncio.create_task(home.server.stop(grace_s=5))
        await asyncio.sleep(0.2)
        assert await waiting.is_closed()
        with pytest.raises(OSError, match=r"."):
            await RawPeer.associate(port)
        peer.say(p_data_header(1, 2, 4) + b"late")
        command, _ = await peer.hear_message()
        assert command[dimse.STATUS] == 0
        assert shelf.objects == {"1.2.9": b"late"}
        await stopping
        assert await peer.hear() == Abort(0)
        assert home.server.associations() == []


@on_both_loops
async def test_console_sees_who_is_inside():
    async with house(Shelf().service()) as home:
        peer = await RawPeer.associate(home.port, CT_CONTEXT)
        peer.say_message(1, store_command(), bytes(1000))
        await peer.hear_message()
        (view,) = home.server.associations()
        assert view.requests == 1
        assert view.received_size_bytes > 1000
        assert view.operation == ""
        assert view.is_registered
        peer.hang_up()
        await until(lambda: home.server.associations() == [])


@on_both_loops
async def test_a_listener_that_fails_does_not_hurt_the_door():
    async with house() as home:

        def fail(_event):
            raise RuntimeError

        home.server._on_event = fail
        await still_serves(home.port)


@on_both_loops
async def test_cancel_and_stray_responses_are_dropped():
    async with house() as home:
        peer = await RawPeer.associate(home.port)
        peer.say_message(1, {dimse.COMMAND_FIELD: CommandField.C_CANCEL, 0x0120: 77})
        peer.say_message(1, {dimse.COMMAND_FIELD: 0x8001, 0x0120: 5, dimse.STATUS: 0})
        peer.say_message(1, echo_command(3))
        command, _ = await peer.hear_message()
        assert command[dimse.MESSAGE_ID_BEING_RESPONDED_TO] == 3


@on_both_loops
async def test_context_that_was_not_accepted_cannot_be_used():
    async with house() as home:
        contexts = (
            ContextProposal(1, VERIFICATION, (IMPLICIT,)),
            ContextProposal(3, Uid("1.2.3"), (IMPLICIT,)),
        )
        peer = await RawPeer.associate(home.port, contexts)
        peer.say_message(3, echo_command())
        assert await peer.hear() == Abort(2, 6)


@on_both_loops
async def test_a_flood_of_tiny_fragments_leaves_others_their_turn():
    """One read may bring 150,000 fragments: half a second in which nobody else is served."""
    ticks = 0
    turns: list[int] = []

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    class Noting(ShelfSink):
        def write(self, fragment: memoryview) -> None:
            turns.append(ticks)
            super().write(fragment)

    size = 30_000
    shelf = Shelf()
    service = shelf.service(receive=lambda request: Noting(shelf, request))
    contexts = (*CT_CONTEXT, ContextProposal(3, VERIFICATION, (IMPLICIT,)))
    async with house(service, echo_service()) as home:
        peer = await RawPeer.associate(home.port, contexts)
        ticking = asyncio.ensure_future(tick())
        command = dimse.encode_command_set(
            {**store_command(), dimse.COMMAND_DATA_SET_TYPE: dimse.WITH_DATA_SET}
        )
        tiny = [p_data_header(1, 0, 1) + b"x"] * (size - 1) + [p_data_header(1, 2, 1) + b"x"]
        peer.say(p_data_header(1, 3, len(command)) + command + b"".join(tiny))
        answer, _ = await peer.hear_message()
        assert answer[dimse.STATUS] == 0
        peer.say_message(3, echo_command())
        answer, _ = await peer.hear_message()
        assert answer[dimse.STATUS] == 0
        ticking.cancel()
    assert len(turns) == size
    assert max(Counter(turns).values()) <= 3_000
