"""We ask others: pynetdicom understands us, and every way of failing has its own error."""

from __future__ import annotations

import asyncio
import time
from itertools import count

import pytest
from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import (
    CTImageStorage,
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

from pacsteward.base.errors import Unavailable, Unsupported
from pacsteward.base.ids import AeTitle, Uid
from pacsteward.dicom.dimse import (
    Answer,
    AssociationAborted,
    AssociationRefused,
    CommandField,
    Limits,
    ProposedContext,
    Service,
    UserIdentity,
)
from pacsteward.dicom.dimse import message as dimse
from pacsteward.dicom.dimse.test_peer_support import call, ct, decoded, encoded, scp, study_key
from pacsteward.dicom.dimse.test_support import (
    CT,
    EXPLICIT,
    IMPLICIT,
    JPEG,
    MR,
    OURS,
    STUDY_FIND,
    STUDY_GET,
    STUDY_MOVE,
    THEIRS,
    VERIFICATION,
    Shelf,
    ShelfSink,
    house,
    on_both_loops,
    until,
)


@on_both_loops
async def test_we_echo_and_store_to_pynetdicom():
    received = []

    def take(event):
        received.append((event.dataset, event.request.MoveOriginatorMessageID))
        return 0x0000 if event.request.AffectedSOPInstanceUID != "1.2.3.2" else 0xA700

    handlers = [(evt.EVT_C_STORE, take), (evt.EVT_C_ECHO, lambda _event: 0)]
    with scp(handlers, (Verification, [IMPLICIT]), (CTImageStorage, [EXPLICIT, JPEG])) as port:
        async with call(
            port,
            ProposedContext(VERIFICATION, (EXPLICIT, IMPLICIT)),
            ProposedContext(CT, (EXPLICIT,)),
            ProposedContext(MR, (EXPLICIT,)),
        ) as association:
            assert association.peer_implementation[1].startswith("PYNETDICOM")
            assert (await association.echo()).status == 0
            context = association.context(CT)
            status = await association.store(context.context_id, CT, Uid("1.2.3.1"), encoded(ct(1)))
            assert status == (0, "")

            async def pieces():
                data = encoded(ct(2))
                for at in range(0, len(data), 777):
                    yield data[at : at + 777]

            status, _comment = await association.store(
                context.context_id,
                CT,
                Uid("1.2.3.2"),
                pieces(),
                move_originator=(AeTitle("MOVER"), 42),
            )
            assert status == 0xA700
            with pytest.raises(Unsupported):
                association.context(MR)
            with pytest.raises(Unsupported):
                await association.store(5, MR, Uid("1.2"), b"")
        assert received == [(ct(1), None), (ct(2), 42)]


@on_both_loops
async def test_we_find_at_pynetdicom_and_may_stop_early():
    cancelled = []

    def find(event):
        is_endless = event.identifier.PatientID == "ENDLESS"
        for number in count() if is_endless else range(300):
            if is_endless:
                time.sleep(0.002)
            if event.is_cancelled:
                cancelled.append(number)
                yield 0xFE00, None
                return
            match = Dataset()
            match.StudyInstanceUID = f"1.2.{number}"
            yield 0xFF00, match

    with scp(
        [(evt.EVT_C_FIND, find)], (StudyRootQueryRetrieveInformationModelFind, [EXPLICIT])
    ) as (port):
        async with call(port, ProposedContext(STUDY_FIND, (EXPLICIT,))) as association:
            context = association.context(STUDY_FIND)
            key = encoded(study_key())
            responses = [r async for r in association.find(context, key)]
            assert len(responses) == 301
            assert decoded(responses[8].data_set or b"").StudyInstanceUID == "1.2.8"
            assert responses[-1].status == 0
            endless = encoded(study_key("ENDLESS"))
            operation = association.find(context, endless)
            async for _response in operation:
                break
            last = await operation.cancel()
            assert last is not None
            assert last.status == 0xFE00
            async for _response in association.find(context, endless):
                break  # and forget it: the next operation has to put it right
            responses = [r async for r in association.find(context, key)]
            assert len(responses) == 301
            async for _response in association.find(context, endless):
                break  # the release has to put it right
    assert len(cancelled) == 3


@on_both_loops
async def test_we_move_and_get_from_pynetdicom():
    images = [ct(number) for number in range(3)]
    moved = []

    def get(event):
        yield len(images)
        for image in images:
            yield 0xFF00, image

    def move(event):
        yield "127.0.0.1", sink_port, {"contexts": [build_context(CT, [EXPLICIT])]}
        yield len(images)
        for image in images:
            yield 0xFF00, image

    shelf = Shelf()
    contexts = [
        (StudyRootQueryRetrieveInformationModelGet, [EXPLICIT]),
        (StudyRootQueryRetrieveInformationModelMove, [EXPLICIT]),
        (CTImageStorage, [EXPLICIT]),
    ]
    take = [(evt.EVT_C_STORE, lambda event: moved.append(event.dataset) or 0)]
    handlers = [(evt.EVT_C_GET, get), (evt.EVT_C_MOVE, move)]
    with (
        scp(take, (CTImageStorage, [EXPLICIT, IMPLICIT])) as sink_port,
        scp(handlers, *contexts, scu_role=True, scp_role=True) as port,
    ):
        async with call(
            port,
            ProposedContext(STUDY_GET, (EXPLICIT,)),
            ProposedContext(STUDY_MOVE, (EXPLICIT,)),
            ProposedContext(CT, (EXPLICIT,), scp=True),
        ) as association:
            key = encoded(study_key())
            assert association.context(CT).as_scp
            operation = association.get(association.context(STUDY_GET), key, on_store=shelf.receive)
            responses = [response async for response in operation]
            assert operation.final is responses[-1]
            counters = responses[-1].sub_operations
            assert (counters.completed, counters.failed, counters.warning) == (3, 0, 0)
            assert [decoded(data) for data in shelf.objects.values()] == images
            operation = association.move(association.context(STUDY_MOVE), THEIRS, key)
            responses = [response async for response in operation]
            assert responses[-1].status == 0
            assert responses[-1].sub_operations.completed == 3
            assert moved == images


@on_both_loops
async def test_we_commit_at_pynetdicom_and_hear_the_report_on_the_same_association():
    reports = []

    def act(event):
        assert event.action_type == 1
        return 0, None

    async def take_report(request, data_set):
        reports.append((request.command[dimse.EVENT_TYPE_ID], decoded(data_set)))
        yield Answer(0)

    def report(association):
        result = Dataset()
        result.TransactionUID = "1.2.3"
        return association.send_n_event_report(
            result, 1, StorageCommitmentPushModel, "1.2.840.10008.1.20.1.1"
        )

    associations = []
    handlers = [
        (evt.EVT_N_ACTION, act),
        (evt.EVT_ESTABLISHED, lambda event: associations.append(event.assoc)),
    ]
    commitment = Uid(StorageCommitmentPushModel)
    service = Service(
        name="commitment",
        commands=frozenset({CommandField.N_EVENT_REPORT}),
        accepts=lambda uid: uid == commitment,
        permission="",
        respond=take_report,
    )
    with scp(handlers, (StorageCommitmentPushModel, [EXPLICIT])) as port:
        async with call(
            port, ProposedContext(commitment, (EXPLICIT,)), services=[service]
        ) as association:
            asked = Dataset()
            asked.TransactionUID = "1.2.3"
            response = await association.invoke(
                association.context(commitment).context_id,
                CommandField.N_ACTION,
                commitment,
                Uid("1.2.840.10008.1.20.1.1"),
                encoded(asked),
                extra={dimse.ACTION_TYPE_ID: 1},
            )
            assert response.status == 0
            status, _ = await asyncio.to_thread(report, associations[0])
            assert status.Status == 0
        assert reports[0][0] == 1
        assert reports[0][1].TransactionUID == "1.2.3"


@on_both_loops
async def test_refusals_of_a_peer_have_their_reason_and_a_remedy():
    with scp([], (Verification, [IMPLICIT])) as port:
        with pytest.raises(AssociationRefused) as caught:
            async with call(
                port, ProposedContext(VERIFICATION, (IMPLICIT,)), called=AeTitle("NOBODY")
            ):
                pass
        refused = caught.value
        assert (refused.result, refused.source, refused.reason) == (1, 1, 7)
        assert "not called by that AE title" in str(refused)
        assert refused.remedy


@on_both_loops
async def test_nobody_there_is_unavailable():
    with scp([], (Verification, [IMPLICIT])) as port:
        pass
    with pytest.raises(Unavailable, match="could not be reached"):
        async with call(port, ProposedContext(VERIFICATION, (IMPLICIT,))):
            pass


@on_both_loops
async def test_somebody_who_does_not_answer_is_unavailable():
    async def say_nothing(reader, writer):
        await reader.read()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(Unavailable, match="did not answer"):
        async with call(port, ProposedContext(VERIFICATION, (IMPLICIT,)), timeout_s=0.2):
            pass
    server.close()


@pytest.mark.parametrize(
    "words", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"\7\0\0\0\0\4" + bytes(4)]
)
def test_somebody_who_speaks_something_else_is_an_abort(words):
    async def scene():
        async def babble(reader, writer):
            await reader.read(100)
            writer.write(words)
            writer.close()

        server = await asyncio.start_server(babble, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(AssociationAborted):
            async with call(port, ProposedContext(VERIFICATION, (IMPLICIT,))):
                pass
        server.close()

    asyncio.run(scene())


@on_both_loops
async def test_a_peer_that_goes_in_the_middle_is_an_abort():
    class Leaves(ShelfSink):
        async def finish(self):
            for guest in tuple(home.server._guests):
                guest.link.abort("for the test")
            return Answer(0)

    shelf = Shelf()
    async with house(shelf.service(receive=lambda request: Leaves(shelf, request))) as home:
        with pytest.raises(AssociationAborted, match="aborted by the peer"):
            async with call(
                home.port, ProposedContext(CT, (EXPLICIT,)), called=OURS, calling=THEIRS
            ) as association:
                await association.store(1, CT, Uid("1.2.3"), b"data")


@on_both_loops
async def test_a_source_that_fails_in_the_middle_aborts_and_nothing_is_kept():
    async def breaks():
        yield bytes(1_000_000)
        raise OSError("disk")

    shelf = Shelf()
    async with house(shelf.service()) as home:
        with pytest.raises(OSError, match="disk"):
            async with call(
                home.port, ProposedContext(CT, (EXPLICIT,)), called=OURS, calling=THEIRS
            ) as association:
                await association.store(1, CT, Uid("1.2.3"), breaks())
        await until(lambda: shelf.abandoned == ["1.2.3"])
        assert shelf.objects == {}


@on_both_loops
async def test_a_peer_that_does_not_answer_in_time_is_an_abort():
    class Slow(ShelfSink):
        async def finish(self):
            await asyncio.sleep(60)
            raise AssertionError

    shelf = Shelf()
    limits = Limits(response_s=0.2)
    async with house(shelf.service(receive=lambda request: Slow(shelf, request))) as home:
        with pytest.raises(AssociationAborted, match="no response"):
            async with call(
                home.port,
                ProposedContext(CT, (EXPLICIT,)),
                called=OURS,
                calling=THEIRS,
                limits=limits,
            ) as association:
                await association.store(1, CT, Uid("1.2.3"), b"data")


@on_both_loops
async def test_a_large_object_goes_through_in_both_directions_with_extended_negotiation():
    data = bytes(range(256)) * 40_000
    shelf = Shelf()
    service = shelf.service(extended=lambda _uid, proposed: proposed + b"!")
    async with house(service, limits=Limits(announced_pdu_size_bytes=30_000)) as home:
        async with call(
            home.port,
            ProposedContext(CT, (JPEG,)),
            called=OURS,
            calling=THEIRS,
            extended={CT: b"hm"},
            identity=UserIdentity(1, b"me"),
        ) as association:
            assert association.extended(CT) == b"hm!"
            assert association.identity_response is None
            assert await association.store(1, CT, Uid("1.2.3"), memoryview(data)) == (0, "")
        assert shelf.objects["1.2.3"] == data
        assert shelf.requests[0].extended == b"hm!"
