"""C-STORE and the door as senders meet them: who may, what is refused and how, who is counted."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from io import BytesIO
from typing import Any

import httpx
import pydicom
import pytest
from pydicom import FileDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import (
    CTImageStorage,
    MRImageStorage,
    SecondaryCaptureImageStorage,
    Verification,
)

from pacsteward.base.ids import AeTitle, Uid
from pacsteward.dicom.dimse import ProposedContext, connect
from tests.support.product import Product
from tests.support.samples import part10, small
from tests.support.scu import (
    FIND,
    associated,
    find,
    get,
    keys,
    rejection,
    store,
    store_bytes,
)

pytestmark = pytest.mark.journey


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    running = Product(
        tmp_path_factory.mktemp("storing") / "archive",
        {
            "PACSTEWARD_STORAGE__REFUSE_SOP_CLASSES": f"[{SecondaryCaptureImageStorage}]",
            "PACSTEWARD_DICOM__ANSWER_ANY_AE_TITLE": "false",
        },
    ).start()
    yield running
    running.stop()


def _encoded(data: FileDataset) -> bytes:
    """Return the data set of `data` alone."""
    raw = part10(data)
    meta = pydicom.dcmread(BytesIO(raw), stop_before_pixels=True).file_meta
    return raw[132 + 12 + meta.FileMetaInformationGroupLength :]


def _counted(product: Product, study: int) -> int:
    found, _ = find(
        product,
        keys("STUDY", StudyInstanceUID=f"2.25.99.{study}", NumberOfStudyRelatedInstances=""),
    )
    return found[0].NumberOfStudyRelatedInstances if found else 0


# --- who may -------------------------------------------------------------------------------------


def test_f031_a_peer_may_do_what_its_registration_says(product: Product, api: httpx.Client) -> None:
    for name, services in (("ONLYECHO", ["echo"]), ("ONLYFIND", ["find"])):
        answer = api.post(
            "/api/v1/peers",
            json={"ae_title": name, "host": "127.0.0.1", "port": 104, "services": services},
        )
        assert answer.status_code < 300, answer.text
    (refused,) = store(product, [small(41)], calling="ONLYECHO")
    assert refused.Status == 0x0124
    assert "studies.store" in refused.ErrorComment
    assert _counted(product, 41) == 0
    with associated(product, [(Verification, [ImplicitVRLittleEndian])], calling="ONLYECHO") as one:
        assert one.send_c_echo().Status == 0
    assert find(product, keys("STUDY", StudyInstanceUID=""), calling="ONLYECHO")[1].Status == 0x0124
    assert find(product, keys("STUDY", StudyInstanceUID=""), calling="ONLYFIND")[1].Status == 0
    contexts = {CTImageStorage: [ExplicitVRLittleEndian]}
    came, statuses = get(
        product, keys("STUDY", StudyInstanceUID="2.25.99.41"), contexts, calling="ONLYFIND"
    )
    assert (came, statuses[-1].Status) == ([], 0x0124)


def test_f032_a_refused_sop_class_gets_no_context_and_the_others_do(product: Product) -> None:
    contexts = [
        (CTImageStorage, [ExplicitVRLittleEndian]),
        (SecondaryCaptureImageStorage, [ExplicitVRLittleEndian]),
    ]
    with associated(product, contexts) as association:
        assert [one.abstract_syntax for one in association.accepted_contexts] == [CTImageStorage]
        ((refused),) = association.rejected_contexts
        assert refused.result == 3  # abstract syntax not supported, PS3.8 table 9-18


# --- what is refused, and how --------------------------------------------------------------------


def test_f038_another_object_than_the_announced_one_is_a900(product: Product) -> None:
    data = _encoded(small(42))
    ((status, comment),) = store_bytes(product, [("2.25.99.42.1.999", data)])
    assert status == 0xA900
    assert "announced" in comment
    assert _counted(product, 42) == 0


def test_f038_an_object_of_another_class_than_its_context_is_a900(product: Product) -> None:
    data = _encoded(small(42))
    ((status, _),) = store_bytes(product, [("2.25.99.42.1.1", data)], sop_class=MRImageStorage)
    assert status == 0xA900


def test_f038_an_object_that_is_cut_short_is_c000(product: Product) -> None:
    data = _encoded(small(42))
    ((status, comment),) = store_bytes(product, [("2.25.99.42.1.1", data[:-101])])
    assert status == 0xC000
    assert comment
    assert _counted(product, 42) == 0


def test_f038_an_object_without_a_study_is_c000(product: Product) -> None:
    data = small(42)
    del data.StudyInstanceUID
    ((status, comment),) = store_bytes(product, [("2.25.99.42.1.1", _encoded(data))])
    assert status == 0xC000
    assert "Study Instance UID" in comment


def test_c93_what_is_doubtful_or_here_already_is_a_plain_success(product: Product) -> None:
    assert [one.Status for one in store(product, [small(43), small(43)])] == [0, 0]
    assert store(product, [small(43, 1, 2, PatientID="", PatientName="")])[0].Status == 0
    assert _counted(product, 43) == 2


def test_c93_other_content_under_a_known_uid_is_kept_and_said(product: Product) -> None:
    assert store(product, [small(44)])[0].Status == 0
    (other,) = store(product, [small(44, PatientComments="another version")])
    assert other.Status == 0xB000
    assert other.ErrorComment
    assert _counted(product, 44) == 1


# --- the upper layer -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("called", "is_admitted"),
    [("PACSTEWARD", True), ("PACSTEWARD  ", True), ("SOMEBODY", False), ("pacsteward", False)],
)
def test_c96_titles_are_compared_without_padding_and_refused_with_1_1_7(
    product: Product, called: str, is_admitted: bool
) -> None:
    ae = AE(ae_title="ASKER")
    ae.add_requested_context(Verification)

    def ask() -> Association:
        return ae.associate("127.0.0.1", product.dimse_port, ae_title=called)

    if is_admitted:
        association = ask()
        association.release()
        assert association.is_released
    else:
        assert rejection(ask) == (1, 1, 7)


@pytest.mark.parametrize("max_pdu", [4096, 16384, 65536])
def test_c96_no_pdu_is_longer_than_the_receiver_said(product: Product, max_pdu: int) -> None:
    data = small(45)
    data.Rows = data.Columns = 200
    data.PixelData = bytes(200 * 200 * 2)
    assert store(product, [data])[0].Status == 0
    longest: list[int] = []

    def seen(event: Any) -> None:
        if hasattr(event.pdu, "presentation_data_value_items"):
            longest.append(event.pdu.pdu_length)

    contexts = [
        ("1.2.840.10008.5.1.4.1.2.2.3", [ImplicitVRLittleEndian]),
        (CTImageStorage, [ExplicitVRLittleEndian]),
    ]
    from pynetdicom import build_role

    with associated(
        product, contexts, max_pdu=max_pdu, negotiation=[build_role(CTImageStorage, scp_role=True)],
        handlers=[(evt.EVT_C_STORE, lambda _event: 0), (evt.EVT_PDU_RECV, seen)],
    ) as association:  # fmt: skip
        wanted = keys("STUDY", StudyInstanceUID="2.25.99.45")
        *_, (status, _) = association.send_c_get(wanted, "1.2.840.10008.5.1.4.1.2.2.3")
    assert status.Status == 0
    assert max(longest) <= max_pdu
    assert len(longest) > 80_000 // max_pdu


def test_c96_an_abort_in_the_middle_leaves_nothing_and_nobody_stuck(product: Product) -> None:
    data = _encoded(small(46))

    async def half() -> AsyncIterator[bytes]:
        yield data[: len(data) // 2]
        raise ConnectionError("the plug")

    async def send() -> None:
        async with connect(
            "127.0.0.1", product.dimse_port, calling=AeTitle("SENDER"),
            called=AeTitle("PACSTEWARD"),
            contexts=[ProposedContext(Uid(CTImageStorage), (Uid(ExplicitVRLittleEndian),))],
        ) as association:  # fmt: skip
            (context,) = association.contexts
            await association.store(
                context.context_id, Uid(CTImageStorage), Uid("2.25.99.46.1.1"), half()
            )

    for _ in range(5):
        with pytest.raises(ConnectionError):
            asyncio.run(send())
    assert _counted(product, 46) == 0
    assert store(product, [small(46)])[0].Status == 0
    assert _counted(product, 46) == 1


def test_c96_noise_on_the_port_does_not_disturb_others(product: Product) -> None:
    noises = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x01\x00\xff\xff\xff\xff",
        b"\x04\x00\x00\x00\x00\x06" * 9,
    ]
    for noise in noises:
        with socket.create_connection(("127.0.0.1", product.dimse_port), timeout=20) as line:
            line.sendall(noise)
            line.shutdown(socket.SHUT_WR)
            while line.recv(4096):
                pass
    with associated(product, [(FIND, [ImplicitVRLittleEndian])]):
        pass


# --- many at once, and a full disk ---------------------------------------------------------------


@pytest.mark.timeout(240)
def test_r9_f039_eight_senders_are_counted_exactly_and_a_full_disk_still_gives(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """One product for both, since a full disk has to have something on it."""
    running = Product(tmp_path_factory.mktemp("r9") / "archive").start()
    try:
        _eight_senders(running)
        _assert_exact_counts(running)
        running.stop()
        running.environment["PACSTEWARD_ARCHIVE__RESERVE_BYTES"] = str(1 << 60)
        running.start()
        _assert_full_disk(running)
    finally:
        running.stop()


SENDERS, SERIES, EACH, SHARED = 8, 3, 20, 23
"""Each sender has instances of its own in three series, and some that all of them have."""


def _eight_senders(product: Product) -> None:
    shared = [(uid, data) for uid, data in _instances(range(1, SHARED + 1), series=1)]
    failures: list[tuple[int, str]] = []

    def send(number: int) -> None:
        first = 1000 + number * EACH
        own = [
            one
            for series in range(1, SERIES + 1)
            for one in _instances(range(first, first + EACH // SERIES), series=series)
        ]
        mixed = [one for pair in zip(own, shared, strict=False) for one in pair]
        everything = dict([*mixed, *own, *shared])
        answers = store_bytes(product, everything.items(), calling=f"SENDER{number}")
        failures.extend(answer for answer in answers if answer[0] != 0)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(SENDERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=100)
        assert not thread.is_alive()
    assert failures == []


def _instances(numbers: range, *, series: int) -> Iterator[tuple[str, bytes]]:
    """Give objects of study 51, encoded once and changed in place."""
    pattern = small(51, series, 9999, PatientID="R9", InstanceNumber="1")
    uid = str(pattern.SOPInstanceUID)
    body = _encoded(pattern)
    for number in numbers:
        own = f"{uid[:-4]}{number + 1000:04d}"
        yield own, body.replace(uid.encode(), own.encode())


def _assert_exact_counts(product: Product) -> None:
    of_each = EACH // SERIES * SENDERS
    expected = {1: of_each + SHARED, 2: of_each, 3: of_each}
    ((study,), _) = find(
        product,
        keys(
            "STUDY", StudyInstanceUID="2.25.99.51", NumberOfStudyRelatedSeries="",
            NumberOfStudyRelatedInstances="",
        ),
    )  # fmt: skip
    assert study.NumberOfStudyRelatedSeries == SERIES
    assert study.NumberOfStudyRelatedInstances == sum(expected.values())
    series, _ = find(
        product,
        keys("SERIES", StudyInstanceUID="2.25.99.51", SeriesInstanceUID="",
             NumberOfSeriesRelatedInstances=""),
    )  # fmt: skip
    counted = {
        int(one.SeriesInstanceUID.rsplit(".", 1)[1]): one.NumberOfSeriesRelatedInstances
        for one in series
    }
    assert counted == expected
    with product.client() as client:
        for number, instances in expected.items():
            wanted = keys("IMAGE", StudyInstanceUID="2.25.99.51", SOPInstanceUID="",
                          SeriesInstanceUID=f"2.25.99.51.{number}")  # fmt: skip
            found = [one.SOPInstanceUID for one in find(product, wanted)[0]]
            assert len(found) == len(set(found)) == instances
            rows = client.get(
                f"/dicom-web/studies/2.25.99.51/series/2.25.99.51.{number}/instances",
                params={"limit": "1000"},
            ).json()
            assert sorted(row["00080018"]["Value"][0] for row in rows) == sorted(found)
        (study_row,) = client.get(
            "/dicom-web/studies", params={"StudyInstanceUID": "2.25.99.51"}
        ).json()
        assert study_row["00201206"]["Value"] == [SERIES]
        assert study_row["00201208"]["Value"] == [sum(expected.values())]


def _assert_full_disk(product: Product) -> None:
    (refused,) = store(product, [small(52)])
    assert refused.Status == 0xA700
    assert "free" in refused.ErrorComment
    assert _counted(product, 52) == 0
    assert _counted(product, 51) > 0
    wanted = keys("IMAGE", SOPInstanceUID="2.25.99.51.1.1001")
    came, statuses = get(product, wanted, {CTImageStorage: [ExplicitVRLittleEndian]})
    assert (len(came), statuses[-1].Status) == (1, 0)
