"""A sender whose every acknowledged object is known: for tests that pull the plug."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from pydicom import Dataset
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage

from tests.support.samples import part10, small


@dataclass
class Sender:
    """Sends small objects of one study, one after the other, until the connection breaks."""

    port: int
    study: int
    first: int = 1
    acknowledged: dict[str, bytes] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)

    def run(self, stop: threading.Event) -> None:
        ae = AE(ae_title=f"SENDER{self.study}")
        ae.add_requested_context(CTImageStorage, "1.2.840.10008.1.2.1")
        association = ae.associate("127.0.0.1", self.port, ae_title="PACSTEWARD")
        number = self.first
        while association.is_established and not stop.is_set():
            data = small(self.study, 1, number)
            data.PixelData = number.to_bytes(4, "little") * 2048
            data.Rows, data.Columns = 64, 64
            status = association.send_c_store(data)
            code = getattr(status, "Status", None)
            if code is None:
                break
            self.statuses.append(code)
            if code == 0:
                self.acknowledged[data.SOPInstanceUID] = pixel_bytes(data)
            number += 1
        if association.is_established:
            association.release()
        self.first = number


def pixel_bytes(data: Dataset) -> bytes:
    return bytes(data.PixelData)


__all__ = ["Sender", "part10", "pixel_bytes"]
