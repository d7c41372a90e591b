"""A running archive that holds a few studies, for all that no other journey tells of."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.data import get_testdata_file

from pacsteward.hospital.examinations import objects
from tests.support.dicomweb import Site, opened_site
from tests.support.product import Product
from tests.support.samples import part10, pretend_orders, small

FILM, CT, COMPRESSED, TWO_SERIES = 61, 62, 63, 64


def film() -> Dataset:
    """Make a multi-frame object whose frames tell their numbers."""
    data = small(FILM, 1, 1, PatientID="FILM", NumberOfFrames="6", Rows=4, Columns=4)
    data.PixelData = b"".join(np.full((4, 4), number, "<i2").tobytes() for number in range(1, 7))
    return data


def shipped_file(name: str, study: int) -> Dataset:
    data = pydicom.dcmread(str(get_testdata_file(name, download=False)))
    data.StudyInstanceUID, data.SeriesInstanceUID = f"2.25.99.{study}", f"2.25.99.{study}.1"
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"2.25.99.{study}.1.1"
    return data


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A running archive that holds six frames that tell their numbers, images and a whole study."""
    data = [
        film(),
        shipped_file("CT_small.dcm", CT),
        shipped_file("MR_small_jpeg_ls_lossless.dcm", COMPRESSED),
        *(
            small(TWO_SERIES, series, number, PatientID="TWO", SeriesDescription=f"No. {series}")
            for series in (1, 2)
            for number in range(1, 4)
        ),
    ]
    order = next(order for order in pretend_orders(studies=8) if order.modality == "CT")
    data += list(objects(order))[:3]
    with opened_site(Product(tmp_path_factory.mktemp("features") / "archive")) as site:
        assert site.stow(*map(part10, data)).status_code == 200
        yield site
