"""``pacsteward hospital …``: let a pretend hospital work against a running archive."""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pacsteward.hospital.examinations import Order
    from pacsteward.hospital.modality import Sent


def send_studies(
    *,
    studies: int = 20,
    seed: int = 7,
    host: str = "127.0.0.1",
    port: int = 11112,
    called: str = "PACSTEWARD",
) -> str:
    """Make modalities send CT, MR, CR and US studies over real associations.

    Parameters
    ----------
    studies
        How many.
    seed
        Which hospital; the same seed sends the same patients and studies again.
    host
        Where the archive listens.
    port
        Its DICOM port.
    called
        Its AE title.
    """
    # Not before: pydicom takes a while to load, and every other command goes through this module.
    from pacsteward.hospital.examinations import orders
    from pacsteward.hospital.modality import send

    morning = list(orders(seed, studies, datetime.now().astimezone()))
    started = time.monotonic()
    sent = asyncio.run(send(morning, host=host, port=port, called=called, progress=_show))
    took = time.monotonic() - started
    summary = (
        f"{sent.studies} studies, {sent.instances} instances, "
        f"{sent.size_bytes / 1e6:.0f} MB in {took:.1f} s"
    )
    if sent.refused:
        summary += f"; {sent.refused} refused, last: {sent.last_refusal}"
    return summary


def _show(order: Order, sent: Sent) -> None:
    """Tell how far it is, on one line that is written over and over where that is possible."""
    ending = "\r" if sys.stderr.isatty() else "\n"
    print(
        f"study {sent.studies:4d}  {order.modality}  {sent.instances} instances",
        end=ending,
        file=sys.stderr,
        flush=True,
    )
