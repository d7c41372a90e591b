"""What a room gives to the DIMSE door, and what it is given in return.

A `Service` says which messages of which SOP classes it serves and how. The door negotiates, keeps
the state table, reads and writes PDUs, counts messages and applies limits; a service sees one
request at a time and answers with values:

- *respond*: an async generator over `Answer`: none or more pending ones, then exactly one final.
  Answers that are there at the same moment may be given together, as a sequence; they go out with
  one write. C-ECHO, C-FIND, C-MOVE, C-GET and the DIMSE-N messages.
- *receive*: makes a `DataSink` that is fed the data set while it arrives, so that an object of
  gigabytes needs no memory and one of kilobytes is copied once. C-STORE.

A `PacstewardError` that a handler raises becomes the status of its kind with an Error Comment
(`dicom/status.py`); anything else becomes 0x0110 and one log entry.

References
----------
PS3.7 chapters 7, 9 and 10; PS3.8 chapter 9.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, Protocol

from pacsteward.base.ids import AeTitle, Uid
from pacsteward.dicom.dimse.quirks import Quirk


class CommandField(IntEnum):
    """Request values of Command Field (0000,0100), PS3.7 E.1. A response adds 0x8000."""

    C_STORE = 0x0001
    C_GET = 0x0010
    C_FIND = 0x0020
    C_MOVE = 0x0021
    C_ECHO = 0x0030
    N_EVENT_REPORT = 0x0100
    N_GET = 0x0110
    N_SET = 0x0120
    N_ACTION = 0x0130
    N_CREATE = 0x0140
    N_DELETE = 0x0150
    C_CANCEL = 0x0FFF


COMMAND_FIELDS: Final = {int(field): field for field in CommandField}
"""By number; to ask the enumeration raises an exception for each number that is none."""


@dataclass(frozen=True, slots=True)
class UserIdentity:
    """What the caller said of its user, PS3.7 D.3.3.7. Secrets are kept out of `repr`."""

    kind: int
    """1 user name, 2 user name and passcode, 3 Kerberos, 4 SAML, 5 JWT."""
    primary: bytes
    secondary: bytes = field(default=b"", repr=False)
    wants_response: bool = False


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is at the other end of an association, as far as the wire tells."""

    calling_ae_title: AeTitle
    called_ae_title: AeTitle
    address: str
    """IP address, as text."""
    association_id: str
    """Short random word that ties log lines, facts and audit entries of one association."""
    user_identity: UserIdentity | None = None
    implementation_class_uid: str = ""
    implementation_version_name: str = ""


@dataclass(frozen=True, slots=True)
class PresentationContext:
    """One agreed pair of abstract and transfer syntax, PS3.8 9.3.3."""

    context_id: int
    abstract_syntax: Uid
    transfer_syntax: Uid
    as_scu: bool = True
    """Whether the association requestor may act as SCU here (PS3.7 D.3.3.4; the default role)."""
    as_scp: bool = False
    """Whether the association requestor may act as SCP here; C-GET needs it."""


@dataclass(frozen=True, slots=True)
class SubOperations:
    """Counters of C-MOVE and C-GET answers, PS3.7 9.1.3 and 9.1.4."""

    remaining: int | None
    completed: int
    failed: int
    warning: int


@dataclass(frozen=True, slots=True)
class Answer:
    """One response message.

    Parameters
    ----------
    status
        Value of Status (0000,0900). 0xFF00 and 0xFF01 are pending; any other value ends it.
    data_set
        Encoded in the context's transfer syntax; None for a message without one.
    comment
        Error Comment (0000,0902); the door cuts it to 64 characters and makes it ASCII.
    offending
        Tags for Offending Element (0000,0901).
    sub_operations
        Counters; `remaining` None leaves (0000,1020) out, as final answers must (PS3.4 C.4.2.1.6).
    extra
        Further command elements of DIMSE-N answers, e.g. Affected SOP Instance UID.
    """

    status: int
    data_set: bytes | None = None
    comment: str = ""
    offending: tuple[int, ...] = ()
    sub_operations: SubOperations | None = None
    extra: Mapping[int, str | int] = field(default_factory=dict)

    @property
    def is_pending(self) -> bool:
        """Whether more answers follow (PS3.7 Annex C: FF00, FF01)."""
        return self.status in (0xFF00, 0xFF01)

    @property
    def is_plain(self) -> bool:
        """Whether its command says no more than a status and a comment."""
        return self.sub_operations is None and not self.offending and not self.extra


class SubOperationChannel(Protocol):
    """Sends C-STORE sub-operations back on the request's own association (C-GET)."""

    @property
    def contexts(self) -> tuple[PresentationContext, ...]:
        """All accepted contexts; those with `as_scp` can be sent on."""
        ...

    async def store(
        self,
        context_id: int,
        sop_class_uid: Uid,
        sop_instance_uid: Uid,
        chunks: bytes | memoryview | AsyncIterable[bytes | memoryview],
        *,
        move_originator: tuple[AeTitle, int] | None = None,
    ) -> tuple[int, str]:
        """Send one instance; return the peer's status and Error Comment."""
        ...


@dataclass(frozen=True, slots=True)
class Request:
    """One request message, without its data set.

    Parameters
    ----------
    command
        The command set by element tag (0x0000GGGG form, e.g. 0x00000110); UI and AE values
        stripped of padding, US and UL values as int, AT as tuple.
    permissions
        What the caller may do, decided at admission; the door has checked `Service.permission`.
    extended
        Service-class application information agreed for the SOP class (PS3.7 D.3.3.5), b"" if
        none was negotiated.
    is_cancelled
        Turns true when C-CANCEL for this message came or the association ended.
    channel
        For C-GET.
    """

    caller: Caller
    context: PresentationContext
    command_field: CommandField
    message_id: int
    command: Mapping[int, str | int | tuple[int, ...]]
    permissions: frozenset[str]
    extended: bytes
    is_cancelled: Callable[[], bool]
    channel: SubOperationChannel

    @property
    def affected_sop_class_uid(self) -> str:
        """(0000,0002), or the requested one (0000,0003) of DIMSE-N."""
        return str(self.command.get(0x00000002) or self.command.get(0x00000003) or "")

    @property
    def affected_sop_instance_uid(self) -> str:
        """(0000,1000), or the requested one (0000,1001) of DIMSE-N."""
        return str(self.command.get(0x00001000) or self.command.get(0x00001001) or "")


class DataSink(Protocol):
    """Takes a data set while it arrives. Exactly one of `finish` and `abandon` is called."""

    def write(self, fragment: memoryview) -> None:
        """Take the next bytes. `fragment` stays valid and unchanged until the sink is done."""
        ...

    async def finish(self) -> Answer:
        """All bytes were given; return the answer once it may be sent."""
        ...

    def abandon(self) -> None:
        """Leave nothing behind: the association ended first, or the object was refused."""
        ...


class PacedSink(DataSink, Protocol):
    """A `DataSink` that can be slower than the network.

    The door asks `is_behind` after each fragment, and while it is true it takes nothing more from
    the wire. A sink that streams large objects to disk in another thread needs this to keep its
    memory bounded; one that collects until `finish` does not.
    """

    def is_behind(self) -> bool:
        """Whether no more should be read for now."""
        ...

    async def catch_up(self) -> None:
        """Wait until more may be written."""
        ...


class PromptSink(DataSink, Protocol):
    """A `DataSink` that can often do without a task that waits for its answer."""

    def finish_soon(self, tell: Callable[[Answer], None]) -> bool:
        """All bytes were given; call `tell` with the answer, later and once.

        False when this is nothing for the short way: then `finish` is called, as for any sink.
        """
        ...


Answers = Answer | Sequence[Answer]
"""One answer, or some that are given together."""

Respond = Callable[[Request, bytes | None], AsyncIterator[Answers]]
"""Given the request and its data set (None without one), yields the answers."""

Receive = Callable[[Request], DataSink]
"""Given a C-STORE request's command set, opens a sink. May raise to refuse: the door then
drains the data set and answers with the error's status."""


@dataclass(frozen=True, slots=True)
class Service:
    """A SOP class service as provider.

    Parameters
    ----------
    name
        Word for logs and for the printed house, e.g. ``"storage"``.
    commands
        Request messages that it serves.
    accepts
        Whether an abstract syntax belongs to this service.
    transfer_syntaxes
        In our order of preference; None takes the first one proposed that the standard has
        (storage keeps objects as they are sent).
    permission
        What the caller needs; without it the answer is 0x0124.
    respond, receive
        Exactly one is given.
    extended
        Given the application information proposed for a SOP class, the truthful answer, or None
        to answer nothing (PS3.7 D.3.3.5).
    allows_scp_role
        Whether the requestor may take the SCP role (storage classes, for C-GET).
    """

    name: str
    commands: frozenset[CommandField]
    accepts: Callable[[str], bool]
    permission: str
    transfer_syntaxes: tuple[str, ...] | None = None
    respond: Respond | None = None
    receive: Receive | None = None
    extended: Callable[[str, bytes], bytes | None] = lambda _uid, _proposed: None
    allows_scp_role: bool = False


@dataclass(frozen=True, slots=True)
class Admitted:
    """The caller may come in, with these permissions."""

    permissions: frozenset[str]
    is_registered: bool
    """Registered peers have reserved slots."""
    user_identity_response: bytes | None = None
    """Sent when the caller asked for a response to its user identity; None: none is sent, which
    tells the caller that its identity was not looked at (PS3.7 D.3.3.7.2)."""
    quirks: frozenset[Quirk] = frozenset()
    """Deviations that this peer is allowed."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A-ASSOCIATE-RJ with its three numbers, PS3.8 9.3.4, table 9-21."""

    result: int
    source: int
    reason: int
    why: str
    """For the log and the page of unknown callers."""


Admit = Callable[[Caller], "Admitted | Refused"]
"""Decides on a caller. Runs in a thread, since it asks the database."""
