"""What we use of pydicom, and not what pydicom uses besides.

pydicom imports every decoder that it finds, to have it when pixels are asked of it. We do not ask
(`decode.py`): the largest of them would be 18 MB in each process that reads a data set, and what
pydicom fetches its samples with 4 MB. Even so it takes a quarter of a second; whoever needs it
imports this module where it is needed.
"""

from __future__ import annotations

from pacsteward.base.late import without

with without("gdcm", "requests"):
    from pydicom import config
    from pydicom.dataelem import DataElement, RawDataElement
    from pydicom.dataset import Dataset
    from pydicom.errors import BytesLengthException
    from pydicom.filebase import DicomBytesIO
    from pydicom.filereader import read_dataset
    from pydicom.filewriter import write_dataset
    from pydicom.sequence import Sequence

__all__ = [
    "BytesLengthException",
    "DataElement",
    "Dataset",
    "DicomBytesIO",
    "RawDataElement",
    "Sequence",
    "config",
    "read_dataset",
    "write_dataset",
]
