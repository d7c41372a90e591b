"""The tool that fills an index with a large catalogue: what it makes is an archive like another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bench import catalogue
from bench.c_store import send

from tests.support.peers import dcmtk
from tests.support.product import Product

pytestmark = pytest.mark.journey

STUDIES = 250


@pytest.fixture
def filled(tmp_path: Path) -> Product:
    """Return a product over a catalogue, not yet started."""
    assert catalogue.load(tmp_path / "archive", 100) == 100
    assert catalogue.load(tmp_path / "archive", STUDIES) == STUDIES
    return Product(tmp_path / "archive")


def test_a_catalogue_is_found_and_counted_like_what_was_sent(filled: Product) -> None:
    filled.start()
    try:
        with filled.client() as client:
            everything = client.get("/dicom-web/studies", params={"limit": 1000}).json()
            assert len({row["0020000D"]["Value"][0] for row in everything}) == STUDIES
            day = f"{catalogue.study_date(150):%Y%m%d}"
            on_a_day = client.get("/dicom-web/studies", params={"StudyDate": day}).json()
            assert len(on_a_day) == catalogue.A_DAY
            name = catalogue.patient_name(7).upper()
            (one,) = client.get("/dicom-web/studies", params={"PatientName": f"*{name[3:]}"}).json()
            assert one["00100020"]["Value"] == [catalogue.patient_id(7)]
            assert one["00201208"]["Value"] == [1]
        found = dcmtk(
            *("findscu", "-v", "-S", "-k", "QueryRetrieveLevel=STUDY"),
            *("-k", f"AccessionNumber={catalogue.accession_number(9)}", "-k", "StudyInstanceUID"),
            *("127.0.0.1", str(filled.dimse_port)),
        )
        assert f"[{catalogue.study_uid(9)}" in found.stderr + found.stdout
    finally:
        filled.stop()


def test_a_study_of_the_catalogue_reads_the_same_when_it_is_sent(
    filled: Product, tmp_path: Path
) -> None:
    sent = Product(tmp_path / "sent").start()
    try:
        batch = [catalogue.encoded(number) for number in range(3)]
        assert send(sent.dimse_port, sent.ae_title, batch, 1).errors == 0
        said_of_sent = _worklist(sent)
    finally:
        sent.stop()
    filled.start()
    try:
        of_catalogue = {row["0020000D"]["Value"][0]: row for row in _worklist(filled)}
    finally:
        filled.stop()
    for row in said_of_sent:
        assert row == of_catalogue[row["0020000D"]["Value"][0]]


def _worklist(product: Product) -> list[dict[str, dict[str, list[object]]]]:
    with product.client() as client:
        rows = client.get("/dicom-web/studies", params={"limit": 1000}).json()
    # The addresses bear the port.
    return json.loads(json.dumps(rows).replace(str(product.http_port), "PORT"))
