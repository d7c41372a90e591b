"""C-GET and C-MOVE as seen by receivers that take little: roles, contexts, transfer syntaxes."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
import psutil
import pydicom
import pytest
from pydicom import Dataset, FileDataset
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)
from pynetdicom.presentation import AllStoragePresentationContexts
from pynetdicom.sop_class import CTImageStorage, MRImageStorage

from tests.support.product import Product
from tests.support.samples import small
from tests.support.scu import associated, extended, get, keys, move, sink, store

pytestmark = pytest.mark.journey

WHOLE_BYTES = 1024 * 1024
"""Larger objects stream from the disk; the product's own value would need larger tests."""

CT, BIG, HOSTILE, MANY_CLASSES = 31, 32, 33, 34
CLASSES = [context.abstract_syntax for context in AllStoragePresentationContexts[:75]]
"""More than fit into one association, with two transfer syntaxes for each."""

SAME_PIXELS = (
    "MR_small.dcm",
    "MR_small_RLE.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_implicit.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
)
"""One image of pydicom's in six transfer syntaxes."""


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    running = Product(
        tmp_path_factory.mktemp("retrieve") / "archive",
        {
            "PACSTEWARD_RETRIEVE__WHOLE_BYTES": str(WHOLE_BYTES),
            "PACSTEWARD_ARCHIVE__BIG_OBJECT_BYTES": str(2 * WHOLE_BYTES),
        },
    ).start()
    objects = [*_ct(), _big(), *_hostile(), *_many_classes(), *_mr()]
    assert {status.Status for status in store(running, objects[:-6])} == {0}
    for data in objects[-6:]:  # one context for each syntax of one class
        assert store(running, [data])[0].Status == 0
    yield running
    running.stop()


@contextmanager
def peer(api: httpx.Client, name: str, port: int = 104, **fields: object) -> Iterator[None]:
    """Register a peer for a while."""
    body = {"ae_title": name, "host": "127.0.0.1", "port": port, **fields}
    answer = api.post("/api/v1/peers", json=body)
    assert answer.status_code < 300, answer.text
    try:
        yield
    finally:
        api.delete(f"/api/v1/peers/{name}")


def _ct() -> Iterator[FileDataset]:
    return (small(CT, 1, number, PatientID="R1") for number in range(1, 13))


def _big() -> FileDataset:
    """Give an object of more than three of the pieces in which large ones stream."""
    data = small(BIG, 1, 1, PatientID="R2")
    data.Rows = data.Columns = 1300
    data.PixelData = np.arange(1300 * 1300, dtype="<u2").tobytes()
    return data


def _hostile() -> Iterator[FileDataset]:
    """Give three objects; the second says that it is JPEG 2000 and is not."""
    yield small(HOSTILE, 1, 1, PatientID="R3")
    data = small(HOSTILE, 1, 2, PatientID="R3")
    data.PixelData = encapsulate([b"\xff\x4f\xff\x51" + b"\xff\x00" * 500])
    data["PixelData"].VR = "OB"
    data.file_meta.TransferSyntaxUID = JPEG2000Lossless
    yield data
    yield small(HOSTILE, 1, 3, PatientID="R3")


def _many_classes() -> Iterator[FileDataset]:
    for number, uid in enumerate(CLASSES, start=1):
        data = small(MANY_CLASSES, 1, number, PatientID="R4")
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = uid
        yield data


def _mr() -> Iterator[FileDataset]:
    for number, name in enumerate(SAME_PIXELS, start=1):
        data = pydicom.dcmread(str(get_testdata_file(name, download=False)))
        data.SOPInstanceUID = f"2.25.99.35.1.{number}"
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        data.StudyInstanceUID, data.SeriesInstanceUID = "2.25.99.35", "2.25.99.35.1"
        yield data


def _study(number: int) -> Dataset:
    return keys("STUDY", StudyInstanceUID=f"2.25.99.{number}")


def _mr_pixels() -> bytes:
    return bytes(pydicom.dcmread(str(get_testdata_file("MR_small.dcm"))).PixelData)


# --- roles and levels ----------------------------------------------------------------------------


def test_c89_get_sends_only_where_the_caller_took_the_scp_role(product: Product) -> None:
    contexts = {CTImageStorage: [ExplicitVRLittleEndian]}
    came, statuses = get(product, _study(CT), contexts)
    assert (len(came), statuses[-1].Status) == (12, 0)
    came, statuses = get(product, _study(CT), contexts, has_roles=False, pretends_roles=True)
    assert came == []
    assert statuses[-1].Status == 0xA702
    assert statuses[-1].NumberOfFailedSuboperations == len(statuses[-1].failed) == 12


def test_c89_a_lenient_peer_may_leave_role_selection_out(
    product: Product, api: httpx.Client
) -> None:
    contexts = {CTImageStorage: [ExplicitVRLittleEndian]}
    with peer(api, "HOROS", is_lenient_in_roles=True):
        came, statuses = get(
            product, _study(CT), contexts, calling="HOROS", has_roles=False, pretends_roles=True
        )
    assert (len(came), statuses[-1].Status) == (12, 0)


@pytest.mark.parametrize(
    ("level", "uids", "expected"),
    [
        ("STUDY", {"StudyInstanceUID": "2.25.99.31"}, 12),
        ("SERIES", {"SeriesInstanceUID": "2.25.99.31.1"}, 12),
        ("IMAGE", {"SOPInstanceUID": ["2.25.99.31.1.3", "2.25.99.31.1.4"]}, 2),
        ("IMAGE", {"StudyInstanceUID": "2.25.99.32", "SOPInstanceUID": "2.25.99.31.1.3"}, 0),
    ],
)
def test_get_gives_what_the_unique_keys_name(
    product: Product, level: str, uids: dict[str, Any], expected: int
) -> None:
    came, statuses = get(product, keys(level, **uids), {CTImageStorage: [ExplicitVRLittleEndian]})
    assert (len(came), statuses[-1].Status) == (expected, 0)


def test_everything_cannot_be_retrieved_at_once(product: Product) -> None:
    came, statuses = get(product, keys("STUDY"), {CTImageStorage: [ExplicitVRLittleEndian]})
    assert came == []
    assert statuses[-1].Status == 0xA900
    assert statuses[-1].ErrorComment


def test_c78_relational_retrieval_is_agreed_and_conversion_is_not(product: Product) -> None:
    model = "1.2.840.10008.5.1.4.1.2.2.3"
    with associated(
        product, [(model, [ImplicitVRLittleEndian])], negotiation=[extended(model, b"\1\1")]
    ) as association:
        assert association.acceptor.sop_class_extended == {model: b"\1\0"}


# --- transfer syntaxes ---------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_c91_get_converts_for_a_receiver_that_takes_one_syntax(
    product: Product, syntax: str
) -> None:
    came, statuses = get(product, _study(35), {MRImageStorage: [syntax]})
    assert statuses[-1].Status == 0
    assert len({one.SOPInstanceUID for one in came}) == 6
    for one in came:
        assert one.file_meta.TransferSyntaxUID == syntax
        assert bytes(one.PixelData) == _mr_pixels()


@pytest.mark.parametrize("syntax", [JPEGLSLossless, RLELossless, JPEG2000Lossless])
def test_c91_get_compresses_for_a_receiver_that_takes_nothing_else(
    product: Product, syntax: str
) -> None:
    came, statuses = get(product, _study(35), {MRImageStorage: [syntax]})
    assert (len(came), statuses[-1].Status) == (6, 0)
    for one in came:
        assert one.file_meta.TransferSyntaxUID == syntax
        assert one.pixel_array.astype("<u2").tobytes() == _mr_pixels()


def test_c91_objects_leave_as_they_are_stored_where_that_is_taken(product: Product) -> None:
    offered = [
        ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, JPEG2000Lossless,
        JPEGLSLossless, "1.2.840.10008.1.2.2",
    ]  # fmt: skip
    came, statuses = get(product, _study(35), {MRImageStorage: offered})
    assert statuses[-1].Status == 0
    assert {one.file_meta.TransferSyntaxUID for one in came} == set(offered)


def test_c91_move_converts_for_a_destination_that_takes_implicit_only(
    product: Product, api: httpx.Client
) -> None:
    came: list[tuple[str, bytes]] = []

    def take(event: Any) -> int:
        came.append((event.context.transfer_syntax, bytes(event.dataset.PixelData)))
        return 0

    with (
        sink({MRImageStorage: [ImplicitVRLittleEndian]}, take) as port,
        peer(api, "SINK", port),
    ):
        statuses = move(product, _study(35), "SINK")
    assert statuses[-1].Status == 0
    assert came == [(ImplicitVRLittleEndian, _mr_pixels())] * 6


def test_a_peer_gets_the_transfer_syntax_that_it_prefers(
    product: Product, api: httpx.Client
) -> None:
    came: list[str] = []

    def take(event: Any) -> int:
        came.append(event.context.transfer_syntax)
        return 0

    everything = [ExplicitVRLittleEndian, JPEGLSLossless, RLELossless, JPEG2000Lossless]
    with (
        sink({MRImageStorage: everything}, take) as port,
        peer(api, "SINK", port, prefers_transfer_syntaxes=[JPEGLSLossless]),
    ):
        statuses = move(product, _study(35), "SINK")
    assert (statuses[-1].Status, came) == (0, [JPEGLSLossless] * 6)


def test_a_hostile_image_fails_alone_and_the_archive_lives_on(product: Product) -> None:
    assert product.process is not None
    before = {child.pid for child in psutil.Process(product.process.pid).children()}
    came, statuses = get(product, _study(HOSTILE), {CTImageStorage: [ImplicitVRLittleEndian]})
    final = statuses[-1]
    assert final.Status == 0xB000
    assert (len(came), final.failed) == (2, [f"2.25.99.{HOSTILE}.1.2"])
    assert final.ErrorComment
    assert {child.pid for child in psutil.Process(product.process.pid).children()} >= before


def test_a_large_object_streams_from_the_disk(product: Product, api: httpx.Client) -> None:
    pixels = _big().PixelData
    came, statuses = get(product, _study(BIG), {CTImageStorage: [ExplicitVRLittleEndian]})
    assert (statuses[-1].Status, [bytes(one.PixelData) for one in came]) == (0, [pixels])
    came, statuses = get(product, _study(BIG), {CTImageStorage: [ImplicitVRLittleEndian]})
    assert (statuses[-1].Status, [bytes(one.PixelData) for one in came]) == (0, [pixels])


# --- C-MOVE --------------------------------------------------------------------------------------


def test_who_hangs_up_in_the_middle_of_a_get_is_in_the_audit_book(
    product: Product, api: httpx.Client
) -> None:
    def hang_up(event: Any) -> int:
        event.assoc.abort()
        return 0

    storage = {CTImageStorage: [ExplicitVRLittleEndian]}
    came, _ = get(product, _study(CT), storage, calling="HASTY", answer=hang_up)
    assert came
    begun, ended = _transfers(api, "HASTY")
    assert (begun["event"], ended["event"]) == ("110102", "110104")
    for entry in begun, ended:
        assert entry["objects"][0]["object_id"] == str(_study(CT).StudyInstanceUID)
    assert (ended["outcome"], ended["objects"][0]["number_of_instances"]) == (8, 0)
    assert ended["what"].endswith("It was cancelled or broken off: 12 were not confirmed.")


def test_what_a_caller_has_moved_or_gets_is_in_the_audit_book_with_how_it_ended(
    product: Product, api: httpx.Client
) -> None:
    """One beginning and one end for the whole study, not one for each object."""
    storage = {CTImageStorage: [ExplicitVRLittleEndian]}
    came, _ = get(product, _study(CT), storage, calling="GETTER")
    taken: list[str] = []

    def once(event: Any) -> int:
        taken.append(str(event.request.AffectedSOPInstanceUID))
        return 0xA700 if len(taken) > 1 else 0

    with sink(storage, once) as port, peer(api, "SINK", port):
        statuses = move(product, _study(CT), "SINK", calling="MOVER")
    count = len(came)
    assert (count, len(set(taken)), statuses[-1].Status) == (count, count, 0xB000)
    begun, ended = _transfers(api, "GETTER")
    assert ended["what"] == f"GETTER had {count} of {count} instances sent to GETTER."
    assert (begun["outcome"], ended["outcome"]) == (0, 0)
    assert ended["objects"][0]["number_of_instances"] == count
    begun, ended = _transfers(api, "MOVER")
    assert ended["what"] == f"MOVER had 1 of {count} instances sent to SINK. {count - 1} failed."
    assert (begun["outcome"], ended["outcome"]) == (0, 4)
    assert ended["objects"][0]["number_of_instances"] == 1


def _transfers(api: httpx.Client, actor: str) -> list[dict[str, Any]]:
    """Return what the book says of transfers by a caller, once one has ended; the oldest first."""
    deadline = time.monotonic() + 30
    while True:
        entries = api.get("/api/v1/audit", params={"actor": actor}).json()["entries"]
        found = [one for one in entries if one["event"] in ("110102", "110104")]
        if found and found[0]["event"] == "110104":
            return found[::-1]
        assert time.monotonic() < deadline, found


def test_c90_a_study_of_75_sop_classes_is_split_over_associations(
    product: Product, api: httpx.Client
) -> None:
    came: Counter[str] = Counter()
    lock = threading.Lock()

    def take(event: Any) -> int:
        with lock:
            came[str(event.request.AffectedSOPClassUID)] += 1
        return 0

    with (
        sink({uid: [ExplicitVRLittleEndian] for uid in CLASSES}, take) as port,
        peer(api, "SINK", port),
    ):
        statuses = move(product, _study(MANY_CLASSES), "SINK")
    assert statuses[-1].Status == 0
    assert came == Counter(dict.fromkeys(CLASSES, 1))


def test_f015_a_move_uses_as_many_associations_as_the_destination_takes(
    product: Product, api: httpx.Client
) -> None:
    together = [0, 0]
    lock = threading.Lock()
    associations: set[int] = set()

    def slowly(event: Any) -> int:
        with lock:
            associations.add(id(event.assoc))
            together[0] += 1
            together[1] = max(together)
        time.sleep(0.1)
        with lock:
            together[0] -= 1
        return 0

    with (
        sink({CTImageStorage: [ExplicitVRLittleEndian]}, slowly) as port,
        peer(api, "SINK", port, max_parallel=3),
    ):
        statuses = move(product, _study(CT), "SINK")
    assert statuses[-1].Status == 0
    assert statuses[-1].NumberOfCompletedSuboperations == 12
    assert (len(associations), together[1]) == (3, 3)


def test_c93_a_peer_that_has_the_object_already_is_a_warning_not_a_failure(
    product: Product, api: httpx.Client
) -> None:
    with (
        sink({CTImageStorage: [ExplicitVRLittleEndian]}, lambda _event: 0x0111) as port,
        peer(api, "SINK", port),
    ):
        final = move(product, _study(CT), "SINK")[-1]
    assert final.Status == 0xB000
    assert (final.NumberOfWarningSuboperations, final.NumberOfFailedSuboperations) == (12, 0)
    assert final.failed == []


def test_a_destination_that_hangs_up_in_the_middle_fails_what_it_refused_and_gets_the_rest(
    product: Product, api: httpx.Client
) -> None:
    seen: list[str] = []

    def sometimes(event: Any) -> int:
        seen.append(str(event.request.AffectedSOPInstanceUID))
        if len(seen) == 4:
            event.assoc.abort()
        return 0

    with (
        sink({CTImageStorage: [ExplicitVRLittleEndian]}, sometimes) as port,
        peer(api, "SINK", port),
    ):
        final = move(product, _study(CT), "SINK")[-1]
    assert final.Status == 0xB000
    assert final.NumberOfCompletedSuboperations == 11
    assert final.failed == [seen[3]]
    assert len(set(seen)) == 12


def test_c92_the_reason_of_a_failure_is_in_the_command_set(
    product: Product, api: httpx.Client
) -> None:
    with sink({MRImageStorage: [ExplicitVRLittleEndian]}) as port, peer(api, "SINK", port):
        final = move(product, _study(CT), "SINK")[-1]
    assert final.Status == 0xA702
    assert CTImageStorage in final.ErrorComment
    assert len(final.ErrorComment) <= 64
