"""A modality: makes the objects of an examination and sends them over a real association."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from pacsteward.base.ids import AeTitle, Uid
from pacsteward.dicom.dimse import ProposedContext, connect
from pacsteward.dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN
from pacsteward.hospital.examinations import SOP_CLASSES, Order, objects


@dataclass(slots=True)
class Sent:
    """What became of what was sent."""

    studies: int = 0
    instances: int = 0
    size_bytes: int = 0
    refused: int = 0
    last_refusal: str = ""


async def send(
    orders: Sequence[Order],
    *,
    host: str,
    port: int,
    called: str,
    progress: Callable[[Order, Sent], None] = lambda _order, _sent: None,
) -> Sent:
    """Send the objects of `orders`, one association an examination, from ``CT1``, ``MR1`` ….

    Raises
    ------
    PacstewardError
        The archive cannot be reached, or refuses the association.
    """
    sent = Sent()
    for order in orders:
        await _send_examination(order, sent, host=host, port=port, called=called)
        sent.studies += 1
        progress(order, sent)
    return sent


async def _send_examination(order: Order, sent: Sent, *, host: str, port: int, called: str) -> None:
    sop_class_uid = Uid(SOP_CLASSES[order.modality])
    async with connect(
        host,
        port,
        calling=AeTitle(f"{order.modality}1"),
        called=AeTitle(called),
        contexts=[ProposedContext(sop_class_uid, (EXPLICIT_VR_LITTLE_ENDIAN,))],
    ) as association:
        (context,) = association.contexts
        for data in objects(order):
            encoded = encode(data)
            status, comment = await association.store(
                context.context_id, sop_class_uid, Uid(data.SOPInstanceUID), encoded
            )
            sent.instances += 1
            sent.size_bytes += len(encoded)
            if status != 0:
                sent.refused += 1
                sent.last_refusal = f"{status:04X} {comment}".strip()


def encode(data: Dataset) -> bytes:
    """Write a data set in Explicit VR Little Endian, without the Part 10 head."""
    target = DicomBytesIO()
    target.is_little_endian, target.is_implicit_VR = True, False
    write_dataset(target, data)
    return bytes(target.getvalue())
