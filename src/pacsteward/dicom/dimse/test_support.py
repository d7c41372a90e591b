"""What the tests of this folder share: a door on a free port, a raw peer, simple services."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import uvloop

from pacsteward.base.ids import AeTitle, Uid
from pacsteward.dicom.dimse import (
    Admitted,
    Answer,
    Caller,
    CommandField,
    DimseServer,
    DoorEvent,
    Limits,
    Refused,
    Request,
    Service,
    SubOperations,
)
from pacsteward.dicom.dimse import message as dimse
from pacsteward.dicom.dimse.message import decode_command_set, encode_command_set, whole_pdus
from pacsteward.dicom.dimse.pdu import (
    PDV_HEADER_SIZE,
    AssociateAccept,
    AssociateRequest,
    ContextProposal,
    ControlPdu,
    PduType,
    ReleaseReply,
    ReleaseRequest,
    decode_pdu,
    encode_pdu,
    next_pdv,
)
from pacsteward.dicom.dimse.user_information import UserInformation

VERIFICATION = Uid("1.2.840.10008.1.1")
CT = Uid("1.2.840.10008.5.1.4.1.1.2")
MR = Uid("1.2.840.10008.5.1.4.1.1.4")
STUDY_FIND = Uid("1.2.840.10008.5.1.4.1.2.2.1")
STUDY_MOVE = Uid("1.2.840.10008.5.1.4.1.2.2.2")
STUDY_GET = Uid("1.2.840.10008.5.1.4.1.2.2.3")
IMPLICIT = Uid("1.2.840.10008.1.2")
EXPLICIT = Uid("1.2.840.10008.1.2.1")
JPEG = Uid("1.2.840.10008.1.2.4.70")
OURS = AeTitle("PACSTEWARD")
THEIRS = AeTitle("PEER")
ALL = frozenset({"echo", "store", "find", "retrieve"})

CONTEXTS = (
    ContextProposal(1, CT, (EXPLICIT,)),
    ContextProposal(3, STUDY_FIND, (EXPLICIT,)),
    ContextProposal(5, Uid("1.2.840.10008.1.1"), (IMPLICIT,)),
)

CT_CONTEXT = (ContextProposal(1, CT, (EXPLICIT,)),)
QUICK = Limits(artim_s=0.3, data_set_idle_s=0.4, association_idle_s=0.8)
"""Of a door that does not wait long for anybody."""

Scene = Callable[[], Awaitable[None]]


def on_both_loops(scene: Scene) -> Callable[[Any], None]:
    """Make a test of a coroutine function: once on asyncio's own loop, once on uvloop."""

    @pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
    def test(run: Any) -> None:
        async def play() -> None:
            async with asyncio.timeout(60):
                await scene()

        run(play())

    test.__name__ = scene.__name__
    test.__doc__ = scene.__doc__
    test.__module__ = scene.__module__
    return test


def presentation_data_values(body: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """Yield context ID, control header and fragment of each PDV in a P-DATA-TF body."""
    at = 0
    while at < len(body):
        context_id, control, size = next_pdv(body, at, len(body))
        at += PDV_HEADER_SIZE + size
        yield context_id, control, body[at - size : at]


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for something that happens on the other side of a socket."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


@dataclass
class Shelf:
    """A storage service that keeps what it is given, and remembers what was abandoned."""

    objects: dict[str, bytes] = field(default_factory=dict)
    syntaxes: dict[str, str] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    abandoned: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    status: int = 0x0000

    def service(self, **changes: Any) -> Service:
        arguments: dict[str, Any] = {
            "name": "storage",
            "commands": frozenset({CommandField.C_STORE}),
            "accepts": lambda uid: uid.startswith("1.2.840.10008.5.1.4.1.1."),
            "permission": "store",
            "receive": self.receive,
            "allows_scp_role": True,
        }
        return Service(**(arguments | changes))

    def receive(self, request: Request) -> ShelfSink:
        self.requests.append(request)
        return ShelfSink(self, request)


class ShelfSink:
    def __init__(self, shelf: Shelf, request: Request) -> None:
        self.shelf = shelf
        self.request = request
        self.fragments: list[memoryview] = []

    def write(self, fragment: memoryview) -> None:
        self.fragments.append(fragment)

    async def finish(self) -> Answer:
        uid = self.request.affected_sop_instance_uid
        self.shelf.finished.append(uid)
        self.shelf.objects[uid] = b"".join(self.fragments)
        self.shelf.syntaxes[uid] = self.request.context.transfer_syntax
        return Answer(self.shelf.status)

    def abandon(self) -> None:
        self.shelf.abandoned.append(self.request.affected_sop_instance_uid)


class PacedSink(ShelfSink):
    """A sink that copies, and is behind after each 100 kB."""

    def __init__(self, shelf: Shelf, request: Request, log: list[int]) -> None:
        super().__init__(shelf, request)
        self.waiting = 0
        self.log = log

    def write(self, fragment: memoryview) -> None:
        super().write(memoryview(bytes(fragment)))
        self.waiting += len(fragment)
        self.log.append(self.waiting)

    def is_behind(self) -> bool:
        return self.waiting >= 100_000

    async def catch_up(self) -> None:
        await asyncio.sleep(0.005)
        self.waiting = 0


def service_of(
    respond: Callable[[Request, bytes | None], AsyncIterator[Answer]],
    command: CommandField = CommandField.C_FIND,
    sop_class: str = STUDY_FIND,
    permission: str = "find",
    **changes: Any,
) -> Service:
    return Service(
        name=command.name.lower(),
        commands=frozenset({command}),
        accepts=lambda uid: uid == sop_class,
        permission=permission,
        transfer_syntaxes=(EXPLICIT, IMPLICIT),
        respond=respond,
        **changes,
    )


def echo_service() -> Service:
    async def respond(_request: Request, _data_set: bytes | None) -> AsyncIterator[Answer]:
        yield Answer(0x0000)

    return replace(
        service_of(respond, CommandField.C_ECHO, VERIFICATION, "echo"), transfer_syntaxes=None
    )


@dataclass
class House:
    server: DimseServer
    events: list[DoorEvent]

    @property
    def port(self) -> int:
        return self.server.port

    def inside(self) -> list[Any]:
        """Return those who have an association now."""
        return [guest for guest in self.server._guests if guest.is_inside]

    def told(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def admit_everybody(_caller: Caller) -> Admitted | Refused:
    return Admitted(ALL, is_registered=True)


@asynccontextmanager
async def house(
    *services: Service,
    limits: Limits | None = None,
    admit: Callable[[Caller], Admitted | Refused] = admit_everybody,
    grace_s: float = 0.0,
    **arguments: Any,
) -> AsyncIterator[House]:
    events: list[DoorEvent] = []
    server = DimseServer(
        [echo_service(), *services],
        admit,
        limits,
        ae_titles=[OURS],
        on_event=events.append,
        **arguments,
    )
    await server.start("127.0.0.1", 0)
    try:
        yield House(server, events)
    finally:
        await server.stop(grace_s)


class RawPeer:
    """A peer that speaks exactly the bytes a test gives it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.accepted: AssociateAccept | None = None

    @classmethod
    async def call(cls, port: int) -> RawPeer:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
        return cls(reader, writer)

    @classmethod
    async def associate(
        cls,
        port: int,
        contexts: Sequence[ContextProposal] = (ContextProposal(1, VERIFICATION, (IMPLICIT,)),),
        user: UserInformation | None = None,
    ) -> RawPeer:
        peer = await cls.call(port)
        peer.say(request(contexts, user))
        answer = await peer.hear()
        assert isinstance(answer, AssociateAccept), answer
        peer.accepted = answer
        return peer

    def say(self, words: ControlPdu | bytes) -> None:
        if not self.writer.transport.is_closing():
            self.writer.write(words if isinstance(words, bytes) else encode_pdu(words))

    def say_message(
        self,
        context_id: int,
        command: dict[int, Any],
        data_set: bytes | None = None,
        pdu_size: int = 16384,
    ) -> None:
        kind = dimse.NO_DATA_SET if data_set is None else dimse.WITH_DATA_SET
        encoded = encode_command_set({dimse.COMMAND_DATA_SET_TYPE: kind, **command})
        pieces = whole_pdus(context_id, encoded, is_command=True, peer_max=pdu_size)
        if data_set is not None:
            pieces += whole_pdus(context_id, data_set, is_command=False, peer_max=pdu_size)
        self.writer.writelines(pieces)

    async def hear_raw(self) -> tuple[int, bytes]:
        header = await self.reader.readexactly(6)
        pdu_type, length = struct.unpack(">BxI", header)
        return pdu_type, await self.reader.readexactly(length)

    async def hear(self) -> ControlPdu:
        return decode_pdu(*await self.hear_raw())

    async def hear_message(self) -> tuple[dict[int, Any], bytes | None]:
        command = bytearray()
        data_set = bytearray()
        decoded: dict[int, Any] | None = None
        while True:
            pdu_type, body = await self.hear_raw()
            assert pdu_type == PduType.P_DATA_TF, (pdu_type, body)
            for _context, control, fragment in presentation_data_values(memoryview(body)):
                (command if control & 1 else data_set).extend(fragment)
                if control == 3:
                    decoded = decode_command_set(command)
                    if decoded[dimse.COMMAND_DATA_SET_TYPE] == dimse.NO_DATA_SET:
                        return decoded, None
                elif control == 2:
                    assert decoded is not None
                    return decoded, bytes(data_set)

    async def is_closed(self) -> bool:
        """Whether the other side closes without another word.

        By itself asyncio would end a TLS handshake that does not begin after 60 s.
        """
        try:
            async with asyncio.timeout(30):
                return await self.reader.read(1) == b""
        except ConnectionError:
            return True

    def say_no_more(self) -> None:
        """Close this side for writing; the other may have closed both by then."""
        if not self.writer.transport.is_closing():
            with contextlib.suppress(OSError):
                self.writer.write_eof()

    def hang_up(self) -> None:
        self.writer.transport.abort()


def request(
    contexts: Sequence[ContextProposal] = (ContextProposal(1, VERIFICATION, (IMPLICIT,)),),
    user: UserInformation | None = None,
    **changes: Any,
) -> AssociateRequest:
    arguments: dict[str, Any] = {"called_ae_title": OURS, "calling_ae_title": THEIRS}
    user = user or UserInformation(max_pdu_size_bytes=131072)
    return AssociateRequest(contexts=tuple(contexts), user=user, **(arguments | changes))


def echo_command(message_id: int = 1) -> dict[int, Any]:
    return {
        dimse.AFFECTED_SOP_CLASS_UID: VERIFICATION,
        dimse.COMMAND_FIELD: CommandField.C_ECHO,
        dimse.MESSAGE_ID: message_id,
    }


def store_command(instance: str = "1.2.3", sop_class: str = CT, message_id: int = 1) -> Any:
    return {
        dimse.AFFECTED_SOP_CLASS_UID: sop_class,
        dimse.COMMAND_FIELD: CommandField.C_STORE,
        dimse.MESSAGE_ID: message_id,
        dimse.PRIORITY: 0,
        dimse.AFFECTED_SOP_INSTANCE_UID: instance,
    }


def find_command(message_id: int = 1) -> dict[int, Any]:
    return {
        dimse.AFFECTED_SOP_CLASS_UID: STUDY_FIND,
        dimse.COMMAND_FIELD: CommandField.C_FIND,
        dimse.MESSAGE_ID: message_id,
        dimse.PRIORITY: 0,
    }


async def ask(
    peer: RawPeer, context_id: int, command: dict[int, Any], data_set: bytes | None = None
) -> list[tuple[dict[int, Any], bytes | None]]:
    """Return all answers to one request."""
    peer.say_message(context_id, command, data_set)
    answers = []
    while True:
        answers.append(await peer.hear_message())
        if answers[-1][0][dimse.STATUS] not in (0xFF00, 0xFF01):
            return answers


async def ten_then_success(_request: Request, data_set: bytes | None) -> AsyncIterator[Answer]:
    for number in range(10):
        yield Answer(0xFF00, data_set=bytes([number]) * 2 + (data_set or b""))
    yield Answer(0x0000)


def get_service(objects: list[bytes], log: list[tuple[int, str]]) -> Service:
    """Send objects back on the association that asks for them."""

    async def retrieve(request: Request, _data_set: bytes | None) -> AsyncIterator[Answer]:
        context = next(c for c in request.channel.contexts if c.as_scp)

        async def chunks(data: bytes) -> AsyncIterator[bytes]:
            for at in range(0, len(data), 3001):
                yield data[at : at + 3001]

        completed = failed = 0
        for number, data in enumerate(objects):
            if request.is_cancelled():
                counters = SubOperations(len(objects) - number, completed, failed, 0)
                yield Answer(0xFE00, sub_operations=counters)
                return
            status, comment = await request.channel.store(
                context.context_id, CT, Uid(f"1.2.{number}"), chunks(data)
            )
            log.append((status, comment))
            completed += status == 0
            failed += status != 0
            remaining = len(objects) - number - 1
            yield Answer(0xFF00, sub_operations=SubOperations(remaining, completed, failed, 0))
        yield Answer(0, sub_operations=SubOperations(None, completed, failed, 0))

    return service_of(retrieve, CommandField.C_GET, STUDY_GET, "retrieve")


async def still_serves(port: int) -> None:
    """Assert that a door answers, and lets go politely."""
    peer = await RawPeer.associate(port)
    peer.say_message(1, echo_command())
    command, _ = await peer.hear_message()
    assert command[dimse.STATUS] == 0
    peer.say(ReleaseRequest())
    assert await peer.hear() == ReleaseReply()
