"""A sender whose every acknowledged object is known: for tests that pull the plug."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import Dataset
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage

from pacsteward.base.ids import AeTitle, Uid
from pacsteward.dicom.dimse import ProposedContext, connect
from pacsteward.dicom.fragments import Fragments
from pacsteward.dicom.header import read_header
from pacsteward.dicom.part10 import split_part10
from tests.support.samples import small


def send_as_is(port: int, path: Path, *, calling: str = "RAW") -> tuple[int, str]:
    """Send a Part 10 file without touching a byte of its data set; return status and comment.

    dcmtk and pynetdicom decode and encode again, and drop what they do not like.
    """
    raw = path.read_bytes()
    meta, offset = split_part10(raw)
    header = read_header(Fragments([memoryview(raw)[offset:]]), meta.transfer_syntax_uid)

    async def send() -> tuple[int, str]:
        async with connect(
            "127.0.0.1",
            port,
            calling=AeTitle(calling),
            called=AeTitle("PACSTEWARD"),
            contexts=[ProposedContext(Uid(header.sop_class_uid), (Uid(meta.transfer_syntax_uid),))],
        ) as association:
            context = association.context(Uid(header.sop_class_uid))
            return await association.store(
                context.context_id,
                Uid(header.sop_class_uid),
                Uid(header.sop_instance_uid),
                raw[offset:],
            )

    return asyncio.run(send())


def until_acknowledged(senders: Sequence[Sender], count: int, timeout_s: float = 30) -> None:
    """Wait until `senders` have `count` more objects acknowledged together."""
    before = sum(len(sender.acknowledged) for sender in senders)
    deadline = time.monotonic() + timeout_s
    while sum(len(sender.acknowledged) for sender in senders) < before + count:
        assert time.monotonic() < deadline, "The senders are too slow."
        time.sleep(0.01)


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
            try:
                status = association.send_c_store(data)
            except RuntimeError:
                # The association ended between the question and the answer to it.
                break
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
