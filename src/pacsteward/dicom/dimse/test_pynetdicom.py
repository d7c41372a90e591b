"""pynetdicom asks us: what it says we understand, and what we answer it understands."""

from __future__ import annotations

import asyncio

from pynetdicom import AE, build_role, evt
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation, UserIdentityNegotiation
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import (
    CTImageStorage,
    MRImageStorage,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    Verification,
)
from tests.support.scu import rejection

from pacsteward.dicom.dimse import Admitted, AssociationClosed, UserIdentity
from pacsteward.dicom.dimse.test_peer_support import (
    associate,
    ct,
    decoded,
    get_service,
    scu,
    studies,
    study_key,
)
from pacsteward.dicom.dimse.test_support import (
    ALL,
    EXPLICIT,
    IMPLICIT,
    JPEG,
    STUDY_FIND,
    THEIRS,
    Shelf,
    house,
    on_both_loops,
    service_of,
    until,
)


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
