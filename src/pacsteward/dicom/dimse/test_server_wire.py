"""The door seen from a raw socket: who is let in, and what is said inside."""

from __future__ import annotations

import asyncio
import struct
import time

import pytest

from pacsteward.base.ids import AeTitle, Uid
from pacsteward.dicom.dimse import (
    CALLING_NOT_RECOGNIZED,
    Admitted,
    AssociationClosed,
    AssociationOpened,
    AssociationRejected,
    CommandField,
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
    CT_CONTEXT,
    EXPLICIT,
    JPEG,
    OURS,
    QUICK,
    RawPeer,
    Shelf,
    echo_command,
    house,
    on_both_loops,
    request,
    still_serves,
    store_command,
    until,
)
from pacsteward.dicom.dimse.user_information import UserInformation


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
            (opened,) = home.told(AssociationOpened)
            assert opened.caller == caller

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
        await until(lambda: home.inside() == [])
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
        assert home.inside() == []


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
