"""The same way on PostgreSQL: one setting, and everything that was promised still holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.peers import dcmtk
from tests.support.postgres import new_database
from tests.support.product import Product
from tests.support.samples import pretend_orders, study_files

pytestmark = pytest.mark.journey


@pytest.fixture
def product(postgres_server: str, tmp_path: Path) -> Iterator[Product]:
    url = new_database(postgres_server)
    running = Product(tmp_path / "archive", {"PACSTEWARD_DATABASE_URL": url}).start()
    yield running
    running.stop()


def test_f192_store_find_and_retrieve_on_postgresql(product: Product, tmp_path: Path) -> None:
    files = study_files(tmp_path / "files", studies=2)
    address = ("127.0.0.1", str(product.dimse_port))
    sent = dcmtk("storescu", "+sd", "+r", *address, str(tmp_path / "files"))
    assert sent.returncode == 0, sent.stderr
    order = pretend_orders(studies=2)[0]
    found = dcmtk(
        *("findscu", "-v", "-S", "-k", "QueryRetrieveLevel=STUDY"),
        *("-k", "PatientName=muller*", "-k", "StudyInstanceUID", *address),
    )
    assert order.study_instance_uid in found.stderr + found.stdout
    with product.client() as client:
        counts = [row["00201208"]["Value"][0] for row in client.get("/dicom-web/studies").json()]
        assert sum(counts) == len(files)
        metadata = client.get(f"/dicom-web/studies/{order.study_instance_uid}/metadata")
        assert len(metadata.json()) == 24
    assert not (product.data / "index.db").exists()
