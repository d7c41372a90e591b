"""An image's whole way as dcmtk's programs walk it: echo, store, find, move, get."""

from __future__ import annotations

import io
import re
from pathlib import Path

import httpx
import pydicom
import pytest

from tests.support.peers import StoreScp, dcmtk
from tests.support.product import Product
from tests.support.samples import data_set_bytes, pretend_orders, shipped
from tests.support.sending import send_as_is

pytestmark = pytest.mark.journey

Hospital = tuple[Product, list[Path]]


def _port(product: Product) -> tuple[str, str]:
    return "127.0.0.1", str(product.dimse_port)


def _find(product: Product, *keys: str, model: str = "-S", options: tuple[str, ...] = ()) -> str:
    words = [word for key in keys for word in ("-k", key)]
    done = dcmtk("findscu", "-v", model, *options, *words, *_port(product))
    return done.stderr + done.stdout


def test_f001_echo_answers(hospital: Hospital) -> None:
    product, _ = hospital
    assert dcmtk("echoscu", "-v", *_port(product)).returncode == 0


def test_f004_find_at_study_level_gives_every_study(hospital: Hospital) -> None:
    product, _ = hospital
    printed = _find(product, "QueryRetrieveLevel=STUDY", "StudyInstanceUID", "PatientName")
    for order in pretend_orders():
        assert f"[{order.study_instance_uid}" in printed


def test_c81_percent_and_underscore_are_ordinary_letters(hospital: Hospital) -> None:
    product, _ = hospital
    printed = _find(product, "QueryRetrieveLevel=STUDY", "StudyInstanceUID", "PatientID=%")
    assert "Find Response: 1" not in printed


def test_c76_missing_level_is_answered_a900(hospital: Hospital) -> None:
    product, _ = hospital
    printed = _find(product, "StudyInstanceUID", options=("-d",))
    assert re.search(r"0xa900", printed, re.IGNORECASE), printed


def test_f034_every_transfer_syntax_is_taken_from_dcmsend(product: Product) -> None:
    files = shipped()
    assert len(files) > 10
    done = dcmtk("dcmsend", "-v", *_port(product), *map(str, files))
    assert done.returncode == 0, done.stderr
    assert f"with status SUCCESS  : {len(files)}" in done.stderr + done.stdout


def _with_own_uid(path: Path, folder: Path, number: int) -> Path:
    """Copy a file under a SOP Instance UID of its own: pydicom ships one image in many syntaxes."""
    uid = pydicom.dcmread(path, stop_before_pixels=True, force=True).SOPInstanceUID.encode()
    own = uid[:-2] + b"%02d" % number
    copy = folder / path.name
    copy.write_bytes(path.read_bytes().replace(uid, own))
    return copy


def test_f002_what_is_sent_comes_back_byte_for_byte(product: Product, tmp_path: Path) -> None:
    files = [_with_own_uid(path, tmp_path, number) for number, path in enumerate(shipped())]
    statuses = {path.name: send_as_is(product.dimse_port, path) for path in files}
    assert {name: status for name, status in statuses.items() if status[0] != 0} == {}
    with product.client() as client:
        for path in files:
            _assert_comes_back(client, path)


def _assert_comes_back(client: httpx.Client, path: Path) -> None:
    head = pydicom.dcmread(path, stop_before_pixels=True, force=True)
    url = (
        f"/dicom-web/studies/{head.StudyInstanceUID}/series/{head.SeriesInstanceUID}"
        f"/instances/{head.SOPInstanceUID}"
    )
    answer = client.get(url, headers={"Accept": 'application/dicom; transfer-syntax="*"'})
    assert answer.status_code == 200, (path, answer.text)
    assert answer.content[128:132] == b"DICM"
    meta = pydicom.dcmread(io.BytesIO(answer.content), stop_before_pixels=True).file_meta
    assert meta.TransferSyntaxUID == head.file_meta.TransferSyntaxUID
    assert answer.content.endswith(data_set_bytes(path)), path


def test_f017_get_brings_every_byte_back(hospital: Hospital, tmp_path: Path) -> None:
    product, files = hospital
    order = pretend_orders()[0]
    done = dcmtk(
        "getscu",
        "-v",
        "-S",
        "+B",
        *("-od", str(tmp_path)),
        *("-k", "QueryRetrieveLevel=STUDY"),
        *("-k", f"StudyInstanceUID={order.study_instance_uid}"),
        *_port(product),
    )
    assert done.returncode == 0, done.stderr
    sent = {data_set_bytes(path) for path in files if path.parent.name == f"{order.number:03d}"}
    got = {data_set_bytes(path) for path in tmp_path.iterdir()}
    assert got == sent


def test_f012_move_sends_a_study_to_a_registered_peer(hospital: Hospital, tmp_path: Path) -> None:
    product, files = hospital
    order = pretend_orders()[2]
    with StoreScp(tmp_path / "sink") as sink:
        product.run("peers", "add", sink.ae_title, "127.0.0.1", str(sink.port))
        done = dcmtk(
            "movescu",
            "-v",
            "-S",
            *("-aem", sink.ae_title),
            *("-k", "QueryRetrieveLevel=STUDY"),
            *("-k", f"StudyInstanceUID={order.study_instance_uid}"),
            *_port(product),
        )
        assert done.returncode == 0, done.stderr
        sent = {data_set_bytes(path) for path in files if path.parent.name == f"{order.number:03d}"}
        assert {data_set_bytes(path) for path in sink.received()} == sent
    product.run("peers", "remove", sink.ae_title)


def test_c85_move_to_an_unknown_destination_is_answered_a801(hospital: Hospital) -> None:
    product, _ = hospital
    done = dcmtk(
        "movescu",
        "-d",
        "-S",
        *("-aem", "NOWHERE"),
        *("-k", "QueryRetrieveLevel=STUDY"),
        *("-k", f"StudyInstanceUID={pretend_orders()[0].study_instance_uid}"),
        *_port(product),
    )
    assert re.search(r"0xa801", done.stderr + done.stdout, re.IGNORECASE)
