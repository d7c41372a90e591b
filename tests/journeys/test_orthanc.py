"""Debian's Orthanc as a neighbour: it sends to us, we send to it, each fetches from the other."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.peers import Orthanc
from tests.support.product import Product
from tests.support.samples import data_set_bytes, pretend_orders

pytestmark = pytest.mark.journey


@pytest.fixture
def neighbour(hospital: tuple[Product, list[Path]], tmp_path: Path) -> Iterator[Orthanc]:
    product, _ = hospital
    modalities = {"pacsteward": (product.ae_title, "127.0.0.1", product.dimse_port)}
    with Orthanc(tmp_path / "orthanc", modalities) as orthanc:
        product.run("peers", "add", orthanc.ae_title, "127.0.0.1", str(orthanc.port))
        yield orthanc
    product.run("peers", "remove", orthanc.ae_title)


def test_f003_a_study_sent_to_orthanc_arrives_whole(
    hospital: tuple[Product, list[Path]], neighbour: Orthanc
) -> None:
    product, files = hospital
    order = pretend_orders()[2]
    product.run("retrieve", "send", order.study_instance_uid, neighbour.ae_title)
    sent = {data_set_bytes(path) for path in files if path.parent.name == f"{order.number:03d}"}
    stored = neighbour.http.get("/instances").json()
    assert len(stored) == len(sent)
    for instance in stored:
        raw = neighbour.http.get(f"/instances/{instance}/file").content
        assert any(raw.endswith(data) for data in sent)


def test_f003_a_send_ordered_by_the_api_is_done_as_a_job(
    hospital: tuple[Product, list[Path]], neighbour: Orthanc
) -> None:
    product, _ = hospital
    order = pretend_orders()[0]
    with product.client() as client:
        answer = client.post(
            f"/api/v1/studies/{order.study_instance_uid}/send",
            json={"destination": neighbour.ae_title},
        )
        assert answer.status_code == 200, answer.text
    _await(lambda: len(neighbour.http.get("/instances").json()) == 24)


def test_f006_f013_f018_studies_of_orthanc_are_found_and_fetched(
    product: Product, tmp_path: Path, hospital: tuple[Product, list[Path]]
) -> None:
    _, files = hospital
    modalities = {"pacsteward": (product.ae_title, "127.0.0.1", product.dimse_port)}
    with Orthanc(tmp_path / "orthanc", modalities) as orthanc:
        product.run("peers", "add", orthanc.ae_title, "127.0.0.1", str(orthanc.port))
        for path in files:
            orthanc.http.post("/instances", content=path.read_bytes()).raise_for_status()
        by_move, by_get = pretend_orders()[0], pretend_orders()[3]
        product.run(
            "retrieve", "fetch", by_move.study_instance_uid, orthanc.ae_title, "--how", "move"
        )
        product.run(
            "retrieve", "fetch", by_get.study_instance_uid, orthanc.ae_title, "--how", "get"
        )
        listed = product.run(
            "query", "elsewhere", orthanc.ae_title, "--patient-name", "yamada", "--json"
        )
        assert [study["patient_id"] for study in json.loads(listed)] == ["PH00700001"]
    with product.client() as client:
        found = client.get("/dicom-web/studies").json()
        counts = {row["0020000D"]["Value"][0]: row["00201208"]["Value"][0] for row in found}
    assert counts == {by_move.study_instance_uid: 24, by_get.study_instance_uid: 1}


def test_orthanc_finds_and_retrieves_from_us(
    hospital: tuple[Product, list[Path]], neighbour: Orthanc
) -> None:
    order = pretend_orders()[1]
    echo = neighbour.http.post("/modalities/pacsteward/echo", json={})
    assert echo.status_code == 200
    query = neighbour.http.post(
        "/modalities/pacsteward/query",
        json={"Level": "Study", "Query": {"AccessionNumber": f"A007{order.number:06d}"}},
    ).json()
    answers = neighbour.http.get(f"{query['Path']}/answers").json()
    assert len(answers) == 1
    done = neighbour.http.post(
        f"{query['Path']}/answers/0/retrieve", content=neighbour.ae_title, timeout=60
    )
    assert done.status_code == 200, done.text
    _await(lambda: len(neighbour.http.get("/instances").json()) == 1)


def _await(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise AssertionError("It did not happen in time.")
