"""Callers for tests: pynetdicom as an independent SCU, and our own client where bytes count."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation
from pynetdicom.sop_class import (
    CTImageStorage,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from pacsteward.base.ids import AeTitle, Uid
from pacsteward.dicom.dimse import ProposedContext, connect
from tests.support.ports import free_port
from tests.support.product import Product

FIND = StudyRootQueryRetrieveInformationModelFind
GET = StudyRootQueryRetrieveInformationModelGet
MOVE = StudyRootQueryRetrieveInformationModelMove

PENDING = (0xFF00, 0xFF01)


def rejection(ask: Callable[[], Association]) -> tuple[int, int, int]:
    """Ask until it is rejected; return result, source and reason.

    When a peer rejects, the two threads of pynetdicom race, and on a busy machine it calls one in
    ten of them aborted, although the whole A-ASSOCIATE-RJ is there.
    """
    for _ in range(20):
        association = ask()
        if association.is_rejected:
            told = association.acceptor.primitive
            return told.result, told.result_source, told.diagnostic
        assert association.is_aborted
    raise AssertionError("It was aborted again and again.")


def steady(association: Association) -> Association:
    """Keep the association's own thread from taking the answer to what another thread asks.

    Whoever asks stops that thread before. pynetdicom takes it for stopped, too, when it was let go
    a moment ago and did not run since, as on a busy machine; then the answer may be thrown away as
    an unexpected message, and whoever asked waits until its time is over.
    """
    association._reactor_checkpoint = _Checkpoint(association)
    return association


class _Checkpoint:
    """Where the thread of an association stands still while it is not set."""

    def __init__(self, association: Association) -> None:
        self._association = association
        self._lock = threading.Condition()
        self._is_open = True
        self._holds_thread = False

    def set(self) -> None:
        with self._lock:
            self._is_open = True
            self._lock.notify_all()

    def wait(self) -> None:
        with self._lock:
            while not self._is_open:
                self._holds_thread = True
                self._lock.notify_all()
                self._lock.wait()
            self._holds_thread = False

    def clear(self) -> None:
        """Return when the thread stands here, or will never come again."""
        with self._lock:
            self._is_open = False
            while not self._holds_thread and self._can_come():
                self._lock.wait(0.01)

    def _can_come(self) -> bool:
        thread = self._association
        is_another = threading.current_thread() is not thread
        return is_another and thread.is_alive() and not thread._kill


def keys(level: str, /, **wanted: object) -> Dataset:
    """Make an identifier; `wanted` by keyword."""
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for keyword, value in wanted.items():
        setattr(identifier, keyword, value)
    return identifier


@contextmanager
def associated(
    product: Product,
    contexts: Iterable[tuple[str, Sequence[str]]],
    *,
    calling: str = "ASKER",
    called: str = "PACSTEWARD",
    negotiation: Sequence[Any] = (),
    handlers: Sequence[Any] = (),
    max_pdu: int = 16382,
) -> Iterator[Association]:
    """Open an association with `contexts`, each an abstract syntax with its transfer syntaxes."""
    ae = AE(ae_title=calling)
    ae.maximum_pdu_size = max_pdu
    for abstract, syntaxes in contexts:
        ae.add_requested_context(abstract, list(syntaxes))
    association = ae.associate(
        "127.0.0.1",
        product.dimse_port,
        ae_title=called,
        ext_neg=list(negotiation),
        evt_handlers=list(handlers),
        max_pdu=max_pdu,
    )
    assert association.is_established
    steady(association)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def extended(model: str, information: bytes) -> SOPClassExtendedNegotiation:
    """Propose application information for a SOP class, PS3.7 D.3.3.5."""
    item = SOPClassExtendedNegotiation()
    item.sop_class_uid = UID(model)
    item.service_class_application_information = information
    return item


def find(
    product: Product,
    identifier: Dataset,
    *,
    model: str = FIND,
    information: bytes = b"",
    calling: str = "ASKER",
    syntax: str = ImplicitVRLittleEndian,
) -> tuple[list[Dataset], Dataset]:
    """Ask C-FIND; return the identifiers of all matches, and the final status.

    Each identifier remembers the status that it came with as ``came_with``.
    """
    negotiation = [extended(model, information)] if information else []
    with associated(
        product, [(model, [syntax])], calling=calling, negotiation=negotiation
    ) as association:
        found: list[Dataset] = []
        final = Dataset()
        for status, answer in association.send_c_find(identifier, model):
            if status.Status in PENDING:
                assert answer is not None
                answer.came_with = status.Status
                found.append(answer)
            else:
                final = status
    return found, final


def get(
    product: Product,
    identifier: Dataset,
    storage: Mapping[str, Sequence[str]],
    *,
    calling: str = "ASKER",
    has_roles: bool = True,
    pretends_roles: bool = False,
    answer: Callable[[Any], int] = lambda _event: 0,
) -> tuple[list[Dataset], list[Dataset]]:
    """Ask C-GET; return what came, with its file meta, and all statuses.

    Parameters
    ----------
    storage
        Transfer syntaxes by SOP class; each pair becomes a context of its own.
    pretends_roles
        Take what comes although no role was agreed, as workstations of the Horos family do.
    """
    came: list[Dataset] = []

    def take(event: Any) -> int:
        data = event.dataset
        data.file_meta = event.file_meta
        data.PatientID  # noqa: B018 - decoded while the event lives
        came.append(data)
        return answer(event)

    contexts = [(uid, [syntax]) for uid, syntaxes in storage.items() for syntax in syntaxes]
    roles = [build_role(uid, scp_role=True) for uid in storage] if has_roles else []
    with associated(
        product,
        [(GET, [ImplicitVRLittleEndian]), *contexts],
        calling=calling,
        negotiation=roles,
        handlers=[(evt.EVT_C_STORE, take)],
    ) as association:
        if pretends_roles:
            for context in association.accepted_contexts:
                context._as_scp = True
        statuses = []
        for status, data in association.send_c_get(identifier, GET):
            status.failed = _failed(data)
            statuses.append(status)
    return came, statuses


def move(
    product: Product, identifier: Dataset, destination: str, *, calling: str = "ASKER"
) -> list[Dataset]:
    """Ask C-MOVE; return all statuses, the list of what failed with each."""
    with associated(product, [(MOVE, [ImplicitVRLittleEndian])], calling=calling) as association:
        statuses = []
        for status, data in association.send_c_move(identifier, destination, MOVE):
            status.failed = _failed(data)
            statuses.append(status)
    return statuses


def _failed(data: Dataset | None) -> list[str]:
    value = data.get("FailedSOPInstanceUIDList") if data else None
    return [] if not value else [value] if isinstance(value, str) else list(value)


@contextmanager
def sink(
    storage: Mapping[str, Sequence[str]],
    answer: Callable[[Any], int] = lambda _event: 0,
    *,
    name: str = "SINK",
    port: int | None = None,
) -> Iterator[int]:
    """Listen as a destination of C-MOVE; give the port. `storage` as in `get`."""
    ae = AE(ae_title=name)
    for uid, syntaxes in storage.items():
        ae.add_supported_context(uid, list(syntaxes))
    port = port or free_port()
    server = ae.start_server(
        ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, answer)]
    )
    try:
        yield port
    finally:
        server.shutdown()


def store(
    product: Product, objects: Iterable[Dataset], *, calling: str = "SENDER"
) -> list[Dataset]:
    """Send objects that are encoded as their file meta says; return the statuses."""
    waiting = list(objects)
    pairs = dict.fromkeys(
        (str(one.SOPClassUID), str(one.file_meta.TransferSyntaxUID)) for one in waiting
    )
    contexts = [(uid, [syntax]) for uid, syntax in pairs]
    with associated(product, contexts, calling=calling) as association:
        return [association.send_c_store(one) for one in waiting]


def store_bytes(
    product: Product,
    objects: Iterable[tuple[str, bytes]],
    *,
    sop_class: str = CTImageStorage,
    syntax: str = ExplicitVRLittleEndian,
    calling: str = "SENDER",
) -> list[tuple[int, str]]:
    """Send data sets as they are, by SOP Instance UID; return statuses and Error Comments."""

    async def send() -> list[tuple[int, str]]:
        async with connect(
            "127.0.0.1",
            product.dimse_port,
            calling=AeTitle(calling),
            called=AeTitle("PACSTEWARD"),
            contexts=[ProposedContext(Uid(sop_class), (Uid(syntax),))],
        ) as association:
            (context,) = association.contexts
            return [
                await association.store(context.context_id, Uid(sop_class), Uid(uid), data)
                for uid, data in objects
            ]

    return asyncio.run(send())
