"""What two sides agree on before the first message.

For the acceptor: an A-ASSOCIATE-RQ and the services of the house enter; an objection (the numbers
of an A-ASSOCIATE-RJ) or an `Agreement` leaves, context by context, with roles and extended
negotiation. For the requestor: the contexts it wants become an A-ASSOCIATE-RQ, and the answer
becomes the contexts that it may use.

References
----------
PS3.8 7.1.1, 9.3.2-9.3.4, tables 9-18 and 9-21; PS3.7 Annex D.3.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from pacsteward.base.errors import Invalid
from pacsteward.base.ids import AeTitle, Uid
from pacsteward.dicom.dimse.limits import Limits
from pacsteward.dicom.dimse.pdu import (
    APPLICATION_CONTEXT_NAME,
    AssociateAccept,
    AssociateRequest,
    ContextAnswer,
    ContextProposal,
    ContextResult,
)
from pacsteward.dicom.dimse.quirks import Quirk
from pacsteward.dicom.dimse.service import (
    CommandField,
    PresentationContext,
    Refused,
    Service,
    UserIdentity,
)
from pacsteward.dicom.dimse.user_information import (
    ExtendedNegotiation,
    ProtocolError,
    RoleSelection,
    UserInformation,
)
from pacsteward.dicom.uids import TRANSFER_SYNTAXES

IMPLEMENTATION_CLASS_UID: Final = Uid("2.25.249214738415264208361190461190563427841")
"""Names this implementation on the wire, PS3.7 D.3.3.2."""
IMPLEMENTATION_VERSION_NAME: Final = "PACSTEWARD_0_1"

CONTEXTS_MAX: Final = 128
"""Odd numbers from 1 to 255, PS3.8 9.3.2.2."""

_SMALLEST_PDU_SIZE_BYTES: Final = 8
"""PDV header and two bytes: below this no fragment fits."""
_UNLIMITED_PDU_SIZE_BYTES: Final = 131_072
"""What we send to a peer that names no limit: several toolkits say 0 and have such buffers."""

VERSION_NOT_SUPPORTED: Final = Refused(1, 2, 2, "protocol version not supported")
APPLICATION_CONTEXT_NOT_SUPPORTED: Final = Refused(
    1, 1, 2, "application context name not supported"
)
CALLED_NOT_RECOGNIZED: Final = Refused(1, 1, 7, "called AE title not recognized")
CALLING_NOT_RECOGNIZED: Final = Refused(1, 1, 3, "calling AE title not recognized")
TEMPORARY_CONGESTION: Final = Refused(2, 3, 1, "temporary congestion")
LOCAL_LIMIT_EXCEEDED: Final = Refused(2, 3, 2, "local limit exceeded")


@dataclass(frozen=True, slots=True)
class Agreed:
    """One accepted context, with what may be done on it.

    Parameters
    ----------
    services
        Who serves which request of the peer on it.
    extended
        Service-class application information that was answered for its SOP class.
    """

    context: PresentationContext
    services: Mapping[CommandField, Service]
    extended: bytes = b""


@dataclass(frozen=True, slots=True)
class Agreement:
    """All that an A-ASSOCIATE-AC says of contexts, roles and extensions."""

    contexts: Mapping[int, Agreed]
    answers: tuple[ContextAnswer, ...]
    roles: tuple[RoleSelection, ...]
    extended: tuple[ExtendedNegotiation, ...]


@dataclass(frozen=True, slots=True)
class ProposedContext:
    """A presentation context that we propose, with the roles that we want on it.

    Parameters
    ----------
    transfer_syntaxes
        At least one, best first; the peer chooses.
    scu, scp
        Our roles. `scp` is needed to receive the sub-operations of C-GET.
    """

    abstract_syntax: Uid
    transfer_syntaxes: tuple[Uid, ...]
    scu: bool = True
    scp: bool = False


def is_ae_title(title: str) -> bool:
    """Whether a title, stripped of padding, is one: PS3.5 6.2, VR AE."""
    return 0 < len(title) <= 16 and all(" " <= c <= "~" and c != "\\" for c in title)


def objection(request: AssociateRequest, accepts_called: Callable[[str], bool]) -> Refused | None:
    """Return why a request cannot be accepted, whoever asks; None when nothing speaks against it.

    Raises
    ------
    ProtocolError
        The request is well formed, but nothing could be sent to such a peer.
    """
    user = request.user
    if 0 < user.max_pdu_size_bytes < _SMALLEST_PDU_SIZE_BYTES:
        raise ProtocolError(f"A maximum PDU length of {user.max_pdu_size_bytes} leaves no room.")
    if not request.protocol_version & 1:
        return VERSION_NOT_SUPPORTED
    if request.application_context_name != APPLICATION_CONTEXT_NAME:
        return APPLICATION_CONTEXT_NOT_SUPPORTED
    if not is_ae_title(request.called_ae_title) or not accepts_called(request.called_ae_title):
        return CALLED_NOT_RECOGNIZED
    if not is_ae_title(request.calling_ae_title):
        return CALLING_NOT_RECOGNIZED
    return None


def agree(
    request: AssociateRequest,
    services: Sequence[Service],
    quirks: Collection[Quirk] = frozenset(),
) -> Agreement:
    """Choose, context by context, what will be spoken.

    The first service that accepts the abstract syntax and knows one of the transfer syntaxes
    chooses among them; every service that accepts the abstract syntax serves its own commands.
    """
    proposed_roles = {role.sop_class_uid: role for role in request.user.roles}
    extended = _agree_extended(request, services)
    known_extended = {one.sop_class_uid: one.information for one in extended}
    contexts: dict[int, Agreed] = {}
    answers: list[ContextAnswer] = []
    roles: dict[Uid, RoleSelection] = {}
    for proposal in request.contexts:
        able = [service for service in services if service.accepts(proposal.abstract_syntax)]
        answer = _answer(proposal, able)
        answers.append(answer)
        if answer.result != ContextResult.ACCEPTED:
            continue
        role = _agree_role(proposal, proposed_roles, able, quirks)
        if proposal.abstract_syntax in proposed_roles:
            roles[proposal.abstract_syntax] = role
        contexts[proposal.context_id] = Agreed(
            PresentationContext(
                proposal.context_id,
                proposal.abstract_syntax,
                answer.transfer_syntax,
                as_scu=role.scu,
                as_scp=role.scp,
            ),
            _by_command(able),
            known_extended.get(proposal.abstract_syntax, b""),
        )
    return Agreement(contexts, tuple(answers), tuple(roles.values()), extended)


def accept_pdu(
    request: AssociateRequest,
    agreement: Agreement,
    limits: Limits,
    identity_response: bytes | None,
) -> AssociateAccept:
    """Return the A-ASSOCIATE-AC for an agreement."""
    identity = request.user.identity
    wants_response = identity is not None and identity.wants_response
    user = UserInformation(
        max_pdu_size_bytes=limits.announced_pdu_size_bytes,
        implementation_class_uid=IMPLEMENTATION_CLASS_UID,
        implementation_version_name=IMPLEMENTATION_VERSION_NAME,
        # One operation at a time: said only to those who asked (PS3.7 D.3.3.3.2).
        asynchronous_window=None if request.user.asynchronous_window is None else (1, 1),
        roles=agreement.roles,
        extended=agreement.extended,
        identity_response=identity_response if wants_response else None,
    )
    return AssociateAccept(
        called_ae_title=request.called_ae_title,
        calling_ae_title=request.calling_ae_title,
        contexts=agreement.answers,
        user=user,
    )


def send_limit(peer: UserInformation) -> int:
    """Return the longest P-DATA-TF PDU to send to a peer, which may name none (PS3.8 D.1)."""
    return peer.max_pdu_size_bytes or _UNLIMITED_PDU_SIZE_BYTES


def request_pdu(
    *,
    called: AeTitle,
    calling: AeTitle,
    contexts: Sequence[ProposedContext],
    extended: Mapping[Uid, bytes],
    identity: UserIdentity | None,
    limits: Limits,
) -> AssociateRequest:
    """Return the A-ASSOCIATE-RQ that proposes `contexts`, numbered 1, 3, 5 in their order.

    Raises
    ------
    Invalid
        No or too many contexts, a context without transfer syntax, an impossible AE title.
    """
    if not 0 < len(contexts) <= CONTEXTS_MAX:
        raise Invalid(
            "An association was not requested.",
            why=f"{len(contexts)} presentation contexts were asked for; 1 to {CONTEXTS_MAX} can be "
            "numbered (PS3.8 9.3.2.2).",
            remedy="Split them over several associations.",
        )
    for title in (called, calling):
        if not is_ae_title(title):
            raise Invalid(
                f"{title!r} is not an AE title.",
                why="It must have 1 to 16 printable ASCII characters and no backslash (PS3.5 6.2).",
                remedy="Correct it.",
            )
    if not all(context.transfer_syntaxes for context in contexts):
        raise Invalid("A presentation context was proposed without any transfer syntax.")
    return AssociateRequest(
        called_ae_title=called,
        calling_ae_title=calling,
        contexts=tuple(
            ContextProposal(2 * index + 1, context.abstract_syntax, context.transfer_syntaxes)
            for index, context in enumerate(contexts)
        ),
        user=UserInformation(
            max_pdu_size_bytes=limits.announced_pdu_size_bytes,
            implementation_class_uid=IMPLEMENTATION_CLASS_UID,
            implementation_version_name=IMPLEMENTATION_VERSION_NAME,
            roles=_wanted_roles(contexts),
            extended=tuple(ExtendedNegotiation(uid, info) for uid, info in extended.items()),
            identity=identity,
        ),
    )


def accepted_contexts(
    request: AssociateRequest, answer: AssociateAccept
) -> dict[int, PresentationContext]:
    """Return the contexts of `request` that the peer accepted, with the roles it left us.

    Raises
    ------
    ProtocolError
        The peer accepted what was not proposed.
    """
    proposals = {proposal.context_id: proposal for proposal in request.contexts}
    granted = {role.sop_class_uid: role for role in answer.user.roles}
    wanted = {role.sop_class_uid: role for role in request.user.roles}
    accepted: dict[int, PresentationContext] = {}
    for context in answer.contexts:
        if context.result != ContextResult.ACCEPTED:
            continue
        proposal = proposals.get(context.context_id)
        if proposal is None or context.transfer_syntax not in proposal.transfer_syntaxes:
            raise ProtocolError(
                f"Context {context.context_id} was accepted in a way that was not proposed."
            )
        uid = proposal.abstract_syntax
        role = _both(wanted.get(uid), granted.get(uid), uid)
        accepted[context.context_id] = PresentationContext(
            context.context_id, uid, context.transfer_syntax, as_scu=role.scu, as_scp=role.scp
        )
    return accepted


def _answer(proposal: ContextProposal, able: Sequence[Service]) -> ContextAnswer:
    """Return result and transfer syntax for one context, PS3.8 table 9-18."""
    # Without a meaning in a context that is not accepted, but it must be there (9.3.3.2.1).
    some_syntax = next(iter(proposal.transfer_syntaxes), Uid(""))
    if not able:
        refusal = ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED
        return ContextAnswer(proposal.context_id, refusal, some_syntax)
    for service in able:
        chosen = _transfer_syntax(proposal.transfer_syntaxes, service)
        if chosen is not None:
            return ContextAnswer(proposal.context_id, ContextResult.ACCEPTED, chosen)
    refusal = ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED
    return ContextAnswer(proposal.context_id, refusal, some_syntax)


def _transfer_syntax(proposed: Sequence[Uid], service: Service) -> Uid | None:
    if service.transfer_syntaxes is None:
        # A private one may encode anything: its objects could not be read, so each would be
        # refused. Told now, the peer sends them in another (GE offers its own first).
        return next((uid for uid in proposed if uid in TRANSFER_SYNTAXES), None)
    return next((Uid(uid) for uid in service.transfer_syntaxes if uid in proposed), None)


def _agree_role(
    proposal: ContextProposal,
    proposed: Mapping[Uid, RoleSelection],
    able: Iterable[Service],
    quirks: Collection[Quirk],
) -> RoleSelection:
    """Return the roles of the requestor on one context, PS3.7 D.3.3.4."""
    uid = proposal.abstract_syntax
    allows_scp = any(service.allows_scp_role for service in able)
    role = proposed.get(uid)
    if role is None:
        assumes_scp = allows_scp and Quirk.GET_WITHOUT_ROLES in quirks
        return RoleSelection(uid, scu=True, scp=assumes_scp)
    return replace(role, scp=role.scp and allows_scp)


def _agree_extended(
    request: AssociateRequest, services: Sequence[Service]
) -> tuple[ExtendedNegotiation, ...]:
    """Return the truthful answers of the services, PS3.7 D.3.3.5."""
    answers: dict[Uid, ExtendedNegotiation] = {}
    proposed = {context.abstract_syntax for context in request.contexts}
    for one in request.user.extended:
        if one.sop_class_uid not in proposed:
            continue
        for service in services:
            if not service.accepts(one.sop_class_uid):
                continue
            information = service.extended(one.sop_class_uid, one.information)
            if information is not None:
                answers[one.sop_class_uid] = replace(one, information=information)
                break
    return tuple(answers.values())


def _by_command(able: Iterable[Service]) -> dict[CommandField, Service]:
    """Return who serves each command; the first service wins."""
    served: dict[CommandField, Service] = {}
    for service in able:
        for command in service.commands:
            served.setdefault(command, service)
    return served


def _wanted_roles(contexts: Iterable[ProposedContext]) -> tuple[RoleSelection, ...]:
    """Return role selection for the SOP classes that need more than the default."""
    wanted: dict[Uid, RoleSelection] = {}
    for context in contexts:
        if context.scp or not context.scu:
            uid = context.abstract_syntax
            before = wanted.get(uid, RoleSelection(uid, scu=False, scp=False))
            wanted[uid] = RoleSelection(
                uid, scu=before.scu or context.scu, scp=before.scp or context.scp
            )
    return tuple(wanted.values())


def _both(wanted: RoleSelection | None, granted: RoleSelection | None, uid: Uid) -> RoleSelection:
    """Return our roles: what we wanted and the peer granted; without its word, the default."""
    if wanted is None or granted is None:
        return RoleSelection(uid, scu=True, scp=False)
    return RoleSelection(uid, scu=wanted.scu and granted.scu, scp=wanted.scp and granted.scp)
