"""Objects sent as they are, byte for byte."""

from __future__ import annotations

import asyncio
from pathlib import Path

from pacsteward.base.ids import AeTitle, Uid
from pacsteward.dicom.dimse import ProposedContext, connect
from pacsteward.dicom.fragments import Fragments
from pacsteward.dicom.header import read_header
from pacsteward.dicom.part10 import split_part10


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
