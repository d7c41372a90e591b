"""A running archive that holds pydicom's test files, for another house's client and plain HTTP."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

import pydicom
import pytest
from pydicom import Dataset

from tests.support.dicomweb import SERVICE, Site, opened_site
from tests.support.product import Product
from tests.support.samples import part10, shipped, small

MISMATCHED = "rtplan.dcm"
"""Its file meta information and its data set name different instances."""

SHIPPED = shipped()[0].parent
NAMES = [path.name for path in shipped() if path.name != MISMATCHED]


@dataclass(frozen=True)
class Collection(Site):
    """A running archive, the files that it holds, and where they are."""

    files: dict[str, Dataset]
    raw: dict[str, bytes]

    def path(self, name: str, *, level: str = "instance") -> str:
        data = self.files[name]
        study = f"{SERVICE}/studies/{data.StudyInstanceUID}"
        series = f"{study}/series/{data.SeriesInstanceUID}"
        return {
            "study": study,
            "series": series,
            "instance": f"{series}/instances/{data.SOPInstanceUID}",
        }[level]


def apart(name: str) -> Dataset:
    """Read one of pydicom's files, under a UID of its own: several of them share one."""
    data = pydicom.dcmread(SHIPPED / name)
    uid = f"2.25.77.{NAMES.index(name)}"
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = uid
    return data


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collection]:
    """A running archive that holds pydicom's own test files and two small studies."""
    raw = {name: part10(apart(name)) for name in NAMES}
    raw |= {
        f"small-{series}-{instance}": part10(
            small(
                1,
                series,
                instance,
                PatientName="Ñandú^José=山田^太郎",
                SpecificCharacterSet="ISO_IR 192",
                PatientID="P-1",
            )
        )
        for series in (1, 2)
        for instance in (1, 2, 3)
    }
    files = {name: pydicom.dcmread(io.BytesIO(data), force=True) for name, data in raw.items()}
    with opened_site(Product(tmp_path_factory.mktemp("dicomweb") / "archive")) as site:
        stored = site.stow(*raw.values())
        assert stored.status_code == 200, stored.text
        yield Collection(site.product, site.http, site.client, files, raw)
