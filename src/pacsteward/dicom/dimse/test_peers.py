"""Independent implementations as peers: what they say, we understand, and the other way round."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from itertools import count
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import dcmread, read_dataset
from pydicom.filewriter import write_dataset
from pydicom.uid import UID
from pynetdicom import AE, build_role, evt
from pynetdicom.pdu_primitives import (
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
)
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import (
    CTImageStorage,
    MRImageStorage,
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)
from tests.support.scu import rejection

from pacsteward.base.errors import Unavailable, Unsupported
from pacsteward.base.ids import AeTitle, Uid
from pacsteward.dicom.dimse import (
    Admitted,
    Answer,
    AssociationAborted,
    AssociationClosed,
    AssociationRefused,
    CommandField,
    Limits,
    ProposedContext,
    Service,
    SubOperations,
    UserIdentity,
    connect,
)
from pacsteward.dicom.dimse import message as dimse
from pacsteward.dicom.dimse.test_support import (
    ALL,
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
    House,
    Shelf,
    ShelfSink,
    house,
    on_both_loops,
    service_of,
    until,
)

DCMTK = shutil.which("dcmsend")
needs_dcmtk = pytest.mark.skipif(DCMTK is None, reason="dcmtk is not installed")


def ct(number: int = 1, syntax: str = EXPLICIT) -> Dataset:
    image = Dataset()
    image.SOPClassUID = CT
    image.SOPInstanceUID = f"1.2.3.{number}"
    image.StudyInstanceUID = "1.2.3"
    image.SeriesInstanceUID = "1.2.3.0"
    image.PatientID = "P1"
    image.PatientName = "TEST^OBJECT"
    image.StudyID = ""
    image.Modality = "CT"
    image.Rows = image.Columns = 128
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit = 15
    image.SamplesPerPixel = 1
    image.PixelRepresentation = 0
    image.PhotometricInterpretation = "MONOCHROME2"
    image.PixelData = bytes(range(256)) * 128
    image["PixelData"].VR = "OW"
    image.ensure_file_meta()
    image.file_meta.TransferSyntaxUID = UID(syntax)
    image.file_meta.MediaStorageSOPClassUID = CT
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    return image


def encoded(data_set: Dataset, syntax: str = EXPLICIT) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian = True
    buffer.is_implicit_VR = syntax == IMPLICIT
    write_dataset(buffer, data_set)
    return buffer.getvalue()


def decoded(data: bytes, syntax: str = EXPLICIT) -> Dataset:
    return read_dataset(BytesIO(data), syntax == IMPLICIT, True)


def scu(*contexts: tuple[str, list[str]]) -> AE:
    ae = AE(ae_title=THEIRS)
    for abstract, syntaxes in contexts:
        ae.add_requested_context(abstract, syntaxes)
    return ae


def associate(ae: AE, home: House, **arguments):
    association = ae.associate("127.0.0.1", home.port, ae_title=OURS, **arguments)
    assert association.is_established
    return association


# pynetdicom asks us -----------------------------------------------------------------------------


@on_both_loops
async def test_pynetdicom_echoes_and_stores_in_several_syntaxes():
    shelf = Shelf()
    async with house(shelf.service()) as home:

        def ask():
            ae = scu((Verification, [IMPLICIT]), (CTImageStorage, [EXPLICIT]))
            ae.add_requested_context(CTImageStorage, [IMPLICIT])
            ae.add_requested_context(MRImageStorage, [JPEG])
            association = associate(ae, home)
            assert association.send_c_echo().Status == 0
            assert association.send_c_store(ct(1)).Status == 0
            assert association.send_c_store(ct(2, IMPLICIT)).Status == 0
            assert len(association.accepted_contexts) == 4
            association.release()
            assert association.is_released

        await asyncio.to_thread(ask)
        assert decoded(shelf.objects["1.2.3.1"]) == ct(1)
        assert decoded(shelf.objects["1.2.3.2"], IMPLICIT) == ct(2)
        assert shelf.syntaxes == {"1.2.3.1": EXPLICIT, "1.2.3.2": IMPLICIT}
        await until(lambda: bool(home.told(AssociationClosed)))
        assert home.told(AssociationClosed)[0].how == "released by the peer"


async def studies(request, data_set):
    key = decoded(data_set)
    assert key.QueryRetrieveLevel == "STUDY"
    for number in range(500) if key.PatientID != "ENDLESS" else count():
        if request.is_cancelled():
            yield Answer(0xFE00)
            return
        match = Dataset()
        match.QueryRetrieveLevel = "STUDY"
        match.StudyInstanceUID = f"1.2.3.{number}"
        yield Answer(0xFF00, data_set=encoded(match))
        await asyncio.sleep(0)
    yield Answer(0x0000)


def study_key(patient_id: str = "") -> Dataset:
    key = Dataset()
    key.QueryRetrieveLevel = "STUDY"
    key.PatientID = patient_id
    key.StudyInstanceUID = ""
    return key


@on_both_loops
async def test_c73_c74_pynetdicom_finds_and_cancels():
    async with house(service_of(studies)) as home:

        def ask():
            ae = scu((StudyRootQueryRetrieveInformationModelFind, [EXPLICIT]))
            association = associate(ae, home)
            model = StudyRootQueryRetrieveInformationModelFind
            answers = list(association.send_c_find(study_key(), model))
            assert len(answers) == 501
            assert answers[7][1].StudyInstanceUID == "1.2.3.7"
            assert (answers[-1][0].Status, answers[-1][1]) == (0, None)
            seen = []
            endless = study_key("ENDLESS")
            for status, _match in association.send_c_find(endless, model, msg_id=77):
                seen.append(status.Status)
                if len(seen) == 3:
                    association.send_c_cancel(77, query_model=model)
            assert seen[-1] == 0xFE00
            association.release()

        await asyncio.to_thread(ask)


@on_both_loops
async def test_pynetdicom_negotiates_roles_extensions_identity():
    identities = []

    def admit(caller):
        identities.append(caller.user_identity)
        return Admitted(ALL, is_registered=True, user_identity_response=b"")

    service = service_of(studies, extended=lambda _uid, proposed: proposed[:1] + b"\0\0")
    async with house(Shelf().service(), service, admit=admit) as home:

        def ask():
            ae = scu(
                (CTImageStorage, [EXPLICIT]),
                (StudyRootQueryRetrieveInformationModelFind, [IMPLICIT]),
            )
            extended = SOPClassExtendedNegotiation()
            extended.sop_class_uid = StudyRootQueryRetrieveInformationModelFind
            extended.service_class_application_information = b"\1\1\1"
            identity = UserIdentityNegotiation()
            identity.user_identity_type = 2
            identity.primary_field = b"user"
            identity.secondary_field = b"password"
            identity.positive_response_requested = True
            role = build_role(CTImageStorage, scp_role=True, scu_role=True)
            association = associate(ae, home, ext_neg=[role, extended, identity])
            context = association.accepted_contexts[0]
            assert (context.as_scu, context.as_scp) == (True, True)
            acceptor = association.acceptor
            assert acceptor.sop_class_extended[STUDY_FIND] == b"\1\0\0"
            assert acceptor.user_information[-1].server_response is not None
            association.release()

        await asyncio.to_thread(ask)
        assert identities == [UserIdentity(2, b"user", b"password", wants_response=True)]


def get_service(objects: list[Dataset]) -> Service:
    async def retrieve(request, _data_set):
        by_syntax = {c.transfer_syntax: c for c in request.channel.contexts if c.as_scp}
        done = 0
        for image in objects:

            async def chunks(image=image):
                data = encoded(image)
                for at in range(0, len(data), 10_001):
                    yield memoryview(data)[at : at + 10_001]

            status, _comment = await request.channel.store(
                by_syntax[EXPLICIT].context_id, CT, Uid(image.SOPInstanceUID), chunks()
            )
            done += status == 0
            remaining = len(objects) - done
            yield Answer(0xFF00, sub_operations=SubOperations(remaining, done, 0, 0))
        yield Answer(0, sub_operations=SubOperations(None, done, 0, 0))

    return service_of(retrieve, CommandField.C_GET, STUDY_GET, "retrieve")


@on_both_loops
async def test_c89_pynetdicom_gets():
    images = [ct(number) for number in range(5)]
    received = []

    def take(event):
        received.append(event.dataset)
        return 0

    async with house(Shelf().service(), get_service(images)) as home:

        def ask():
            ae = scu(
                (StudyRootQueryRetrieveInformationModelGet, [EXPLICIT]),
                (CTImageStorage, [EXPLICIT]),
            )
            ae.maximum_pdu_size = 4096
            association = associate(
                ae,
                home,
                ext_neg=[build_role(CTImageStorage, scp_role=True)],
                evt_handlers=[(evt.EVT_C_STORE, take)],
            )
            model = StudyRootQueryRetrieveInformationModelGet
            answers = list(association.send_c_get(study_key(), model))
            assert answers[-1][0].Status == 0
            assert answers[-1][0].NumberOfCompletedSuboperations == 5
            association.release()

        await asyncio.to_thread(ask)
        assert received == images


@on_both_loops
async def test_pynetdicom_is_refused_with_the_right_numbers():
    async with house() as home:

        def ask():
            ae = scu((Verification, [IMPLICIT]))
            return ae.associate("127.0.0.1", home.port, ae_title="NOBODY")

        assert await asyncio.to_thread(rejection, ask) == (1, 1, 7)


# We ask pynetdicom ------------------------------------------------------------------------------


@contextmanager
def scp(handlers: list, *contexts: tuple[str, list[str]], **roles) -> Iterator[int]:
    ae = AE(ae_title=THEIRS)
    ae.require_called_aet = True
    ae.maximum_pdu_size = 5000
    for abstract, syntaxes in contexts:
        ae.add_supported_context(abstract, syntaxes, **roles)
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()


def call(port: int, *contexts: ProposedContext, **arguments):
    arguments = {"called": THEIRS, "calling": OURS, "timeout_s": 5.0} | arguments
    return connect("127.0.0.1", port, contexts=contexts, **arguments)


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
            assert association.peer_max_pdu_size_bytes == 5000
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
        assert not refused.is_transient
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


# dcmtk ------------------------------------------------------------------------------------------


async def dcmtk(program: str, *arguments: str) -> str:
    assert DCMTK is not None
    process = await asyncio.create_subprocess_exec(
        str(Path(DCMTK).with_name(program)),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), 20)
    text = output.decode(errors="replace")
    assert process.returncode == 0, text
    return text


@needs_dcmtk
def test_dcmtk_echoes_stores_finds_and_gets(tmp_path: Path):
    images = [ct(number) for number in range(4)]
    for number, image in enumerate(images):
        image.save_as(tmp_path / f"{number}.dcm", enforce_file_format=True)
    files = sorted(str(path) for path in tmp_path.glob("*.dcm"))
    here = tmp_path / "got"
    here.mkdir()
    shelf = Shelf()

    async def scene():
        services = (shelf.service(), service_of(studies), get_service(images))
        async with house(*services) as home:
            who = ["-aet", THEIRS, "-aec", OURS]
            where = ["127.0.0.1", str(home.port)]
            await dcmtk("echoscu", *who, *where)
            await dcmtk("echoscu", *who, "--abort", *where)
            await dcmtk("echoscu", *who, "-pts", "5", "-ppc", "128", *where)
            await dcmtk("storescu", *who, "--propose-uncompr", *where, *files)
            assert [decoded(data) for data in shelf.objects.values()] == images
            shelf.objects.clear()
            await dcmtk("dcmsend", *who, "--max-send-pdu", "4096", *where, *files)
            assert [decoded(data) for data in shelf.objects.values()] == images
            keys = ["-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID"]
            endless = [*keys, "-k", "PatientID=ENDLESS"]
            keys += ["-k", "PatientID"]
            found = await dcmtk("findscu", "-v", *who, "-S", *keys, *where)
            assert found.count("Received Find Response") + found.count("(Pending)") >= 500
            stopped = await dcmtk("findscu", "-v", *who, "-S", "--cancel", "3", *endless, *where)
            assert "Cancel" in stopped
            await dcmtk("getscu", *who, "-S", "+B", "-od", str(here), *keys[:2], *where)
            await until(lambda: len(home.told(AssociationClosed)) == 8)

    asyncio.run(scene())
    assert len(list(here.iterdir())) == 4
    for path in here.iterdir():
        image = dcmread(path)
        assert image in images


@needs_dcmtk
def test_we_store_to_dcmtk(tmp_path: Path):
    async def scene():
        assert DCMTK is not None
        program = str(Path(DCMTK).with_name("storescp"))
        with scp([], (Verification, [IMPLICIT])) as port:
            pass  # a port that was free a moment ago; storescp cannot choose one itself
        process = await asyncio.create_subprocess_exec(
            program, "-od", str(tmp_path), "+B", "-pdu", "4096", str(port)
        )
        try:
            await until_listening(port)
            contexts = (
                ProposedContext(CT, (EXPLICIT,)),
                ProposedContext(VERIFICATION, (IMPLICIT,)),
            )
            async with call(port, *contexts) as association:
                for number in range(3):
                    data = encoded(ct(number))
                    context_id = association.context(CT).context_id
                    uid = Uid(f"1.2.3.{number}")
                    assert await association.store(context_id, CT, uid, data) == (0, "")
                assert (await association.echo()).status == 0
        finally:
            process.terminate()
            await process.wait()
        received = sorted(tmp_path.iterdir())
        assert len(received) == 3
        assert [dcmread(path) for path in received] == [ct(number) for number in range(3)]

    asyncio.run(scene())


async def until_listening(port: int) -> None:
    for _ in range(200):
        try:
            _reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return
    raise AssertionError("storescp did not start")


def test_contexts_of_another_implementation_are_all_answered():
    async def scene():
        async with house(Shelf().service()) as home:

            def ask():
                ae = AE(ae_title=THEIRS)
                ae.requested_contexts = [
                    build_context(f"1.2.840.10008.5.1.4.1.1.{number}", [EXPLICIT, IMPLICIT])
                    for number in range(128)
                ]
                association = associate(ae, home)
                assert len(association.accepted_contexts) == 128
                association.abort()

            await asyncio.to_thread(ask)
            await until(lambda: bool(home.told(AssociationClosed)))
            assert "aborted by the peer" in home.told(AssociationClosed)[0].how

    asyncio.run(scene())
