"""The door seen from a raw socket: who is cut when, and that the others do not feel it."""

from __future__ import annotations

import asyncio
import struct
import tracemalloc
from collections import Counter
from dataclasses import replace

import pytest

from pacsteward.base.ids import AeTitle, Uid
from pacsteward.dicom.dimse import (
    Admitted,
    AssociationClosed,
    ConnectionDropped,
    Limits,
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
    CT_CONTEXT,
    IMPLICIT,
    QUICK,
    VERIFICATION,
    RawPeer,
    Shelf,
    ShelfSink,
    echo_command,
    echo_service,
    house,
    on_both_loops,
    request,
    still_serves,
    store_command,
    until,
)
from pacsteward.dicom.dimse.user_information import UserInformation


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
            assert home.inside() == []
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
        assert home.inside() == []
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


def test_a_caller_with_tls_or_http_is_named_in_the_log_with_its_address(caplog):
    """Whoever left TLS switched on at a device sees only a broken connection there."""

    async def scene() -> None:
        # With the timer of every day the door would wait ten seconds for each to close.
        async with house(limits=Limits(artim_s=1.0)) as home:
            for first in (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", b"GET / HTTP/1.1\r\n"):
                peer = await RawPeer.call(home.port)
                peer.say(first)
                assert isinstance(await peer.hear(), Abort)
                assert await peer.is_closed()

    with caplog.at_level("INFO"):
        asyncio.run(asyncio.wait_for(scene(), 60))
    told = [record for record in caplog.records if "Malformed" in record.getMessage()]
    for record, spoken in zip(told, ("TLS", "HTTP"), strict=True):
        assert f"seems to speak {spoken}, which is not spoken here" in record.getMessage()
        assert vars(record)["address"] == "127.0.0.1"


@on_both_loops
async def test_c96_a_silent_or_dripping_caller_is_cut_by_artim():
    async with house(limits=QUICK) as home:
        silent = await RawPeer.call(home.port)
        dripping = await RawPeer.call(home.port)
        # If each byte gave it more time, all of them would arrive, and be answered.
        for byte in encode_pdu(request()):
            dripping.say(bytes([byte]))
            await asyncio.sleep(0.01)
        assert await silent.is_closed()
        assert await dripping.is_closed()
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
        assert await peer.hear() == Abort(0, 0)
        await until(lambda: bool(home.told(AssociationClosed)))
        closed = home.told(AssociationClosed)[0]
        assert "idle" in closed.how
        # uvloop's timers go by whole milliseconds.
        assert closed.duration_s >= QUICK.association_idle_s - 0.002


@on_both_loops
async def test_c96_a_stalled_data_set_is_cut_though_its_bytes_drip():
    shelf = Shelf()
    async with house(shelf.service(), limits=QUICK) as home:
        peer = await RawPeer.associate(home.port, CT_CONTEXT)
        peer.say_message(1, store_command("1.2.9"), b"ab")
        await peer.hear_message()
        command = store_command("1.2.10") | {dimse.COMMAND_DATA_SET_TYPE: 1}
        peer.say_message(1, command)
        words = p_data_header(1, 2, 1000) + bytes(1000)
        while not shelf.abandoned:
            assert words, "the bytes gave it more time"
            peer.say(words[:1])
            words = words[1:]
            await asyncio.sleep(0.02)
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
        await still_serves(home.port)
        assert not any(peer.reader.at_eof() for peer in stalled)


@on_both_loops
async def test_a_maximum_length_that_leaves_no_room_is_aborted():
    async with house() as home:
        peer = await RawPeer.call(home.port)
        peer.say(request(user=UserInformation(max_pdu_size_bytes=7)))
        assert await peer.hear() == Abort(2, 6)


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
