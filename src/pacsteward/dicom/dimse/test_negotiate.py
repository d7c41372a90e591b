"""What is agreed before the first message."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pacsteward.base.errors import Invalid
from pacsteward.base.ids import Uid
from pacsteward.dicom.dimse import Answer, Limits, ProposedContext, Quirk, is_ae_title
from pacsteward.dicom.dimse.negotiate import (
    accept_pdu,
    accepted_contexts,
    agree,
    request_pdu,
    send_limit,
)
from pacsteward.dicom.dimse.pdu import ContextProposal
from pacsteward.dicom.dimse.service import CommandField
from pacsteward.dicom.dimse.test_support import (
    CT,
    EXPLICIT,
    IMPLICIT,
    JPEG,
    MR,
    OURS,
    STUDY_FIND,
    THEIRS,
    Shelf,
    request,
    service_of,
)
from pacsteward.dicom.dimse.user_information import (
    ExtendedNegotiation,
    RoleSelection,
    UserInformation,
)

STORAGE = Shelf().service()


async def no_answers(_request, _data_set):
    yield Answer(0)


FIND = service_of(no_answers, extended=lambda _uid, proposed: bytes(b & 1 for b in proposed[:2]))


def asked(*contexts: ContextProposal, **user: object):
    return request(contexts, UserInformation(**user))


def test_unknown_abstract_syntax_is_result_3_and_unknown_transfer_syntax_result_4():
    agreement = agree(
        asked(
            ContextProposal(1, Uid("1.2.3"), (IMPLICIT,)),
            ContextProposal(3, STUDY_FIND, (JPEG,)),
            ContextProposal(5, STUDY_FIND, ()),
            ContextProposal(7, STUDY_FIND, (JPEG, IMPLICIT)),
        ),
        [STORAGE, FIND],
    )
    assert [answer.result for answer in agreement.answers] == [3, 4, 4, 0]
    assert list(agreement.contexts) == [7]


def test_our_preference_chooses_the_transfer_syntax():
    agreement = agree(asked(ContextProposal(1, STUDY_FIND, (IMPLICIT, EXPLICIT))), [FIND])
    assert agreement.contexts[1].context.transfer_syntax == EXPLICIT


def test_storage_takes_the_first_syntax_that_the_standard_has():
    agreement = agree(asked(ContextProposal(1, CT, (JPEG, EXPLICIT))), [STORAGE])
    assert agreement.contexts[1].context.transfer_syntax == JPEG


def test_private_transfer_syntax_is_refused_before_objects_come_in_it():
    private = Uid("1.2.840.113619.5.2")
    agreement = agree(
        asked(
            ContextProposal(1, CT, (private,)),
            ContextProposal(3, CT, (private, IMPLICIT)),
        ),
        [STORAGE],
    )
    assert [answer.result for answer in agreement.answers] == [4, 0]
    assert agreement.contexts[3].context.transfer_syntax == IMPLICIT


def test_services_share_an_abstract_syntax_by_their_commands():
    other = replace(FIND, name="other", commands=frozenset({CommandField.C_MOVE}))
    agreement = agree(asked(ContextProposal(1, STUDY_FIND, (IMPLICIT,))), [FIND, other])
    served = agreement.contexts[1].services
    assert served[CommandField.C_FIND] is FIND
    assert served[CommandField.C_MOVE] is other


@pytest.mark.parametrize(
    ("role", "allows", "expected", "answered"),
    [
        (None, True, (True, False), False),
        (RoleSelection(CT, True, True), True, (True, True), True),
        (RoleSelection(CT, False, True), True, (False, True), True),
        (RoleSelection(CT, True, True), False, (True, False), True),
    ],
)
def test_c89_roles_are_those_that_were_asked_for_and_are_allowed(role, allows, expected, answered):
    service = Shelf().service(allows_scp_role=allows)
    roles = () if role is None else (role,)
    agreement = agree(asked(ContextProposal(1, CT, (IMPLICIT,)), roles=roles), [service])
    context = agreement.contexts[1].context
    assert (context.as_scu, context.as_scp) == expected
    assert bool(agreement.roles) is answered


def test_c89_lenient_mode_takes_contexts_without_roles_for_c_get():
    proposal = asked(ContextProposal(1, CT, (IMPLICIT,)))
    strict = agree(proposal, [STORAGE]).contexts[1].context
    lenient = agree(proposal, [STORAGE], {Quirk.GET_WITHOUT_ROLES}).contexts[1].context
    assert (strict.as_scp, lenient.as_scp) == (False, True)


def test_c78_extended_negotiation_is_answered_by_the_service():
    proposal = asked(
        ContextProposal(1, STUDY_FIND, (IMPLICIT,)),
        extended=(
            ExtendedNegotiation(STUDY_FIND, b"\1\1\1"),
            ExtendedNegotiation(MR, b"\1"),
        ),
    )
    agreement = agree(proposal, [STORAGE, FIND])
    assert agreement.extended == (ExtendedNegotiation(STUDY_FIND, b"\1\1"),)
    assert agreement.contexts[1].extended == b"\1\1"


def test_window_and_identity_are_answered_only_to_those_who_asked():
    silent = accept_pdu(asked(), agree(asked(), []), Limits(), b"ticket")
    assert silent.user.asynchronous_window is None
    assert silent.user.identity_response is None
    curious = asked(asynchronous_window=(0, 0))
    assert accept_pdu(curious, agree(curious, []), Limits(), None).user.asynchronous_window == (
        1,
        1,
    )


@pytest.mark.parametrize(
    ("title", "is_one"),
    [
        ("A", True),
        ("CT 1", True),
        ("X" * 16, True),
        ("", False),
        ("X" * 17, False),
        ("A\\B", False),
        ("A\nB", False),
        ("É", False),
    ],
)
def test_c96_ae_titles_are_validated(title, is_one):
    assert is_ae_title(title) is is_one


def proposal_of(*contexts: ProposedContext, **changes: object):
    arguments = {
        "called": OURS,
        "calling": THEIRS,
        "contexts": contexts,
        "extended": {},
        "identity": None,
        "limits": Limits(),
    }
    return request_pdu(**(arguments | changes))


def test_requestor_asks_for_roles_only_where_it_needs_them():
    proposal = proposal_of(
        ProposedContext(CT, (IMPLICIT,), scp=True), ProposedContext(MR, (IMPLICIT,))
    )
    assert proposal.user.roles == (RoleSelection(CT, scu=True, scp=True),)


def test_requestor_keeps_the_roles_that_the_acceptor_granted():
    proposal = proposal_of(
        ProposedContext(CT, (EXPLICIT, IMPLICIT), scu=False, scp=True),
        ProposedContext(MR, (IMPLICIT,), scp=True),
        ProposedContext(Uid("1.2.3"), (IMPLICIT,)),
    )
    agreement = agree(proposal, [STORAGE])
    answer = accept_pdu(proposal, agreement, Limits(), None)
    answer = replace(answer, user=replace(answer.user, roles=answer.user.roles[:1]))
    contexts = accepted_contexts(proposal, answer)
    assert list(contexts) == [1, 3]
    assert (contexts[1].as_scu, contexts[1].as_scp) == (False, True)
    # The acceptor said nothing of MR: the default role holds, PS3.7 D.3.3.4.
    assert (contexts[3].as_scu, contexts[3].as_scp) == (True, False)


@pytest.mark.parametrize(
    "changes",
    [
        {"contexts": ()},
        {"contexts": (ProposedContext(CT, (IMPLICIT,)),) * 129},
        {"contexts": (ProposedContext(CT, ()),)},
        {"called": "MUCH TOO LONG A TITLE"},
        {"calling": ""},
    ],
)
def test_impossible_requests_are_not_sent(changes):
    with pytest.raises(Invalid):
        proposal_of(**({"contexts": (ProposedContext(CT, (IMPLICIT,)),)} | changes))


def test_no_limit_of_the_peer_is_a_limit_of_ours():
    assert send_limit(UserInformation(max_pdu_size_bytes=0)) == 131_072
    assert send_limit(UserInformation(max_pdu_size_bytes=4096)) == 4096


def test_limits_that_cannot_work_are_refused():
    for wrong in (
        {"artim_s": -1.0},
        {"announced_pdu_size_bytes": 1 << 20},
        {"receive_chunk_size_bytes": 1000},
        {"associations_max": 5},
    ):
        with pytest.raises(Invalid):
            Limits(**wrong)
