"""R12: whatever comes over the wire, the door answers or closes, and serves the next caller."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pacsteward.dicom.dimse import Limits
from pacsteward.dicom.dimse import message as dimse
from pacsteward.dicom.dimse.pdu import Abort, ContextProposal, ReleaseRequest, encode_pdu
from pacsteward.dicom.dimse.pdu import p_data_header as header
from pacsteward.dicom.dimse.test_support import (
    CT,
    EXPLICIT,
    IMPLICIT,
    STUDY_FIND,
    VERIFICATION,
    RawPeer,
    Shelf,
    echo_command,
    find_command,
    house,
    request,
    service_of,
    store_command,
    ten_then_success,
    until,
)

CONTEXTS = (
    ContextProposal(1, CT, (EXPLICIT,)),
    ContextProposal(3, STUDY_FIND, (EXPLICIT,)),
    ContextProposal(5, VERIFICATION, (IMPLICIT,)),
)
LIMITS = Limits(artim_s=0.5, data_set_idle_s=0.5, association_idle_s=1.0, response_s=1.0)


def message(context_id: int, command: dict, data_set: bytes | None = None) -> bytes:
    kind = dimse.NO_DATA_SET if data_set is None else dimse.WITH_DATA_SET
    encoded = dimse.encode_command_set({**command, dimse.COMMAND_DATA_SET_TYPE: kind})
    pieces = dimse.whole_pdus(context_id, encoded, is_command=True, peer_max=16384)
    if data_set is not None:
        pieces += dimse.whole_pdus(context_id, data_set, is_command=False, peer_max=16384)
    return b"".join(pieces)


GOOD = [
    message(1, store_command("1.2.3"), bytes(2000)),
    message(3, find_command(), b"key "),
    message(5, echo_command()),
    message(3, {dimse.COMMAND_FIELD: 0x0FFF, 0x0120: 1}),
    message(1, {dimse.COMMAND_FIELD: 0x8001, 0x0120: 1, dimse.STATUS: 0}, b"odd"),
    header(1, 0, 5) + b"stray",
    encode_pdu(ReleaseRequest()),
    encode_pdu(Abort(0)),
    encode_pdu(request()),
]

words = st.lists(st.sampled_from(GOOD) | st.binary(max_size=60), min_size=1, max_size=8)
damage = st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=6)


async def answered_or_closed(peer: RawPeer) -> None:
    """Read until the door has nothing more to say, or is still talking after a while."""
    try:
        async with asyncio.timeout(60):
            while await peer.reader.read(65536):
                pass
    except ConnectionError:
        return


def test_r12_any_words_in_an_association_are_answered_or_closed():
    async def scene(spoken: list[bytes], damaged: list[tuple[float, int]], piece: int) -> None:
        stream = bytearray(b"".join(spoken))
        for where, value in damaged:
            stream[int(where * len(stream))] = value
        shelf = Shelf()
        async with house(shelf.service(), service_of(ten_then_success), limits=LIMITS) as home:
            peer = await RawPeer.associate(home.port, CONTEXTS)
            for at in range(0, len(stream), piece):
                peer.say(bytes(stream[at : at + piece]))
                await asyncio.sleep(0)
            peer.say_no_more()
            await answered_or_closed(peer)
            after = await RawPeer.associate(home.port)
            after.say_message(1, echo_command())
            command, _ = await after.hear_message()
            assert command[dimse.STATUS] == 0
        assert len(shelf.requests) == len(shelf.abandoned) + len(shelf.finished)

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(spoken=words.filter(any), damaged=damage, piece=st.sampled_from([1000, 97, 100_000]))
    def fuzz(spoken, damaged, piece):
        asyncio.run(scene(spoken, damaged, piece))

    fuzz()


@pytest.mark.parametrize("seed", range(2))
def test_r12_hundreds_of_broken_callers_leave_one_working_door(seed):
    """One server, many callers at once, each with its own damage."""
    dice = random.Random(seed)
    good = encode_pdu(request(CONTEXTS)) + b"".join(GOOD[:4])

    def damaged() -> bytes:
        stream = bytearray(good)
        for _ in range(dice.randrange(1, 12)):
            stream[dice.randrange(len(stream))] = dice.randrange(256)
        return bytes(stream[: dice.randrange(1, len(stream))])

    async def one(port: int, stream: bytes) -> None:
        peer = await RawPeer.call(port)
        peer.say(stream)
        await answered_or_closed(peer)
        peer.hang_up()

    async def scene() -> None:
        async with house(Shelf().service(), service_of(ten_then_success), limits=LIMITS) as home:
            for _ in range(4):
                await asyncio.gather(*(one(home.port, damaged()) for _ in range(50)))
                peer = await RawPeer.associate(home.port)
                peer.say_message(1, echo_command())
                await peer.hear_message()
                peer.hang_up()
            await until(lambda: home.inside() == [])

    asyncio.run(scene())
