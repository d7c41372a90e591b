"""Objects for tests: pydicom's own files, pretend patients' studies, and odd ones made here."""

from __future__ import annotations

import copy
from datetime import datetime
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import pydicom
from pydicom import Dataset
from pydicom.data import get_testdata_file

from pacsteward.hospital.examinations import Order, objects, orders

WHEN = datetime(2026, 3, 2, 7, 0)

SHIPPED = (
    # Files of pydicom's wheel: a name for each transfer syntax that it ships.
    "CT_small.dcm",
    "MR_small.dcm",
    "MR_small_RLE.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_implicit.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "JPEG2000.dcm",
    "JPEG-LL.dcm",
    "JPEG-lossy.dcm",
    "SC_rgb_rle.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "image_dfl.dcm",
    "rtplan.dcm",
    "reportsi.dcm",
    "test-SR.dcm",
    "examples_palette.dcm",
    "examples_overlay.dcm",
)


def shipped() -> list[Path]:
    """List pydicom's own test files that are there without a download."""
    found = [get_testdata_file(name, download=False) for name in SHIPPED]
    return [Path(str(path)) for path in found if path]


def part10(data: Dataset) -> bytes:
    """Write a data set as a Part 10 file."""
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, data, enforce_file_format=True)
    return buffer.getvalue()


def study_files(folder: Path, *, seed: int = 7, studies: int = 4) -> list[Path]:
    """Write the pretend hospital's first studies as files, one folder for each study."""
    files = []
    for order in orders(seed, studies, WHEN):
        for index, data in enumerate(objects(order)):
            path = folder / f"{order.number:03d}" / f"{index:04d}.dcm"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(part10(data))
            files.append(path)
    return files


def pretend_orders(seed: int = 7, studies: int = 4) -> list[Order]:
    return list(orders(seed, studies, WHEN))


def data_set_bytes(path: Path) -> bytes:
    """Return the bytes of a Part 10 file behind its file meta information, as they stand there."""
    raw = path.read_bytes()
    start = 132 if raw[128:132] == b"DICM" else 0
    with BytesIO(raw) as file:
        file.seek(start)
        pydicom.filereader._read_file_meta_info(file)
        return raw[file.tell() :]


@lru_cache(maxsize=1)
def _template() -> Dataset:
    (order,) = orders(99, 1, WHEN)
    return next(iter(objects(order)))


def small(study: int = 1, series: int = 1, instance: int = 1, **attributes: object) -> Dataset:
    """Make one small CT object; `attributes` by keyword override and add."""
    data = copy.deepcopy(_template())
    root = f"2.25.99.{study}"
    data.StudyInstanceUID = root
    data.SeriesInstanceUID = f"{root}.{series}"
    data.SOPInstanceUID = f"{root}.{series}.{instance}"
    data.InstanceNumber = str(instance)
    data.Rows = data.Columns = 16
    data.PixelData = data.PixelData[: 16 * 16 * 2]
    for keyword, value in attributes.items():
        setattr(data, keyword, value)
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    return data
