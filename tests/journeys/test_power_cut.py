"""The plug is pulled in the middle of receiving: nothing that was acknowledged is lost."""

from __future__ import annotations

import io
import threading
import time
from pathlib import Path

import pydicom
import pytest

from tests.support.product import Product
from tests.support.sending import Sender, pixel_bytes, until_acknowledged

pytestmark = pytest.mark.journey

KILLS = 10


@pytest.mark.timeout(300)
def test_r1_ten_kills_in_mid_ingest_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    product = Product(tmp_path / "archive").start()
    senders = [Sender(product.dimse_port, study) for study in (1, 2, 3)]
    for kill in range(KILLS):
        stop = threading.Event()
        threads = [threading.Thread(target=sender.run, args=(stop,)) for sender in senders]
        for thread in threads:
            thread.start()
        until_acknowledged(senders, 15)
        time.sleep(0.013 * (kill % 5))
        product.kill()
        for thread in threads:
            thread.join(timeout=30)
            assert not thread.is_alive()
        product.start()
        assert product.started_in_s < 20
    acknowledged = {uid: data for one in senders for uid, data in one.acknowledged.items()}
    _assert_all_there(product, acknowledged)
    assert product.stop() == 0


def _assert_all_there(product: Product, acknowledged: dict[str, bytes]) -> None:
    with product.client() as client:
        listed: dict[str, str] = {}
        for study in (1, 2, 3):
            page = client.get(
                f"/dicom-web/studies/2.25.99.{study}/instances", params={"limit": "1000"}
            )
            assert page.status_code == 200
            rows = page.json()
            uids = [row["00080018"]["Value"][0] for row in rows]
            assert len(uids) == len(set(uids)), "an instance is listed twice"
            listed |= {row["00080018"]["Value"][0]: row["0020000D"]["Value"][0] for row in rows}
            counted = client.get(
                "/dicom-web/studies", params={"StudyInstanceUID": f"2.25.99.{study}"}
            )
            assert counted.json()[0]["00201208"]["Value"][0] == len(uids)
        missing = set(acknowledged) - set(listed)
        assert not missing
        for uid, pixels in acknowledged.items():
            answer = client.get(
                f"/dicom-web/studies/{listed[uid]}/series/{listed[uid]}.1/instances/{uid}",
                headers={"Accept": 'application/dicom; transfer-syntax="*"'},
            )
            assert answer.status_code == 200
            assert pixel_bytes(pydicom.dcmread(io.BytesIO(answer.content))) == pixels
