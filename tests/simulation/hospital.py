"""The senders of a simulated day: what their modalities have made, and what they spoil on the way.

The images are those of the pretend hospital, few and small.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from pacsteward.dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from pacsteward.hospital.examinations import Order, objects, orders
from pacsteward.hospital.modality import encode
from tests.simulation.model import Content

EXAMINATIONS: Final = 10
_SCALE: Final = 4


class Examination:
    """One order, with what is still to be sent of it."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.actor = f"{order.modality}1"
        self.label = f"{order.modality} {order.number + 1}"
        self._made: list[tuple[Content, Dataset]] | None = None
        self._unsent: deque[Content] | None = None

    @property
    def contents(self) -> list[Content]:
        """Return what was made."""
        return [content for content, _ in self._all()]

    @property
    def unsent(self) -> deque[Content]:
        """Return what the archive has not acknowledged yet, in order."""
        if self._unsent is None:
            self._unsent = deque(self.contents)
        return self._unsent

    def in_implicit_vr(self, content: Content) -> Content:
        """Return the same object in the other plain encoding."""
        (dataset,) = (data for one, data in self._all() if one.uid == content.uid)
        target = DicomBytesIO()
        target.is_little_endian, target.is_implicit_VR = True, True
        write_dataset(target, dataset)
        return replace(content, syntax=IMPLICIT_VR_LITTLE_ENDIAN, data=bytes(target.getvalue()))

    def _all(self) -> list[tuple[Content, Dataset]]:
        if self._made is None:
            self._made = [
                (
                    Content(
                        data.SOPInstanceUID,
                        data.SOPClassUID,
                        data.StudyInstanceUID,
                        data.SeriesInstanceUID,
                        EXPLICIT_VR_LITTLE_ENDIAN,
                        encode(data),
                        f"{self.label} image {number}",
                        data.SOPInstanceUID,
                    ),
                    data,
                )
                for number, data in enumerate(objects(self.order, scale=_SCALE), start=1)
            ]
        return self._made


def examinations(seed: int, day: datetime) -> list[Examination]:
    """Return the examinations of a day, in the order in which they are performed."""
    return [Examination(order) for order in orders(seed, EXAMINATIONS, day)]


def with_other_pixels(content: Content, number: int) -> Content:
    """Return another object under the same UID; another one for each number."""
    return replace(
        content,
        data=content.data[:-2] + bytes([number % 251, 7]),
        label=f"{content.label} with other pixels",
        meaning=f"{content.uid}/{number % 251}",
    )


def cut_off(content: Content, chance: random.Random) -> Content:
    """Return an object that lost its end on the way."""
    lost = chance.randrange(1, len(content.data) // 2)
    return replace(content, data=content.data[:-lost], label=f"{content.label}, cut off")


def all_sent(many: Sequence[Examination]) -> bool:
    """Say whether every modality has got rid of its images."""
    return not any(one.unsent for one in many)
